"""Who works next: the threads that work, and one waiting line for each source of work.

Threads that meet here::

    Slots.serve                          each thread of the pool, for as long as the slots last
    Slots.open, close, wait_idle,
    dismiss, kill                        the container, from any thread
    Slots.open_line                      any thread, while extensions are set up
    Line.put, withdraw, close            any thread, never blocking; connection threads among them
    Line.enter, leave                    a thread of somebody else's, which works in a slot itself
    jobs                                 run on the threads that serve, one at a time on each

A job is taken out of its line and given to a thread under one lock, so it is either begun or
handed back by ``withdraw`` or ``close``: never both, never neither. A thread that has finished a
job runs the next one itself, taking the lines in turn, so a busy pool costs no wake-up per job and
no source starves another. Of the idle threads the one that worked last is woken, by a lock of its
own: its memory is the warmest, and no other thread stirs.

A thread that is none of the pool's may work in a slot too: it calls ``enter`` and takes the seat of
one of them, which sleeps on meanwhile, so that no more jobs run than there are threads.

Idle threads are woken one after the other: each, when it runs, wakes the next if jobs still wait.
Of many jobs that come at once the short ones are done by a thread or two; ten threads woken
together would each have to fight for the interpreter's lock, and find nothing left to do.

Order of stopping: ``close()`` (nothing more is granted), each line's ``close()`` (what has not
begun goes back to its owner), ``wait_idle()`` (what has begun ends), ``dismiss()`` (the threads
leave); or ``kill()`` at any time.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable

from threadko.concurrency.deadline import Deadline
from threadko.exceptions import ContainerStopped

__all__ = ["Job", "Line", "Slots"]

_log = logging.getLogger(__name__)

Job = Callable[[], None]


class Slots:
    """As many jobs at once as there are threads in ``serve``, granted to the lines in turn."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards all fields below, and the fields of every line
        self._idle = threading.Condition(self._lock)
        self._busy = 0
        self._granting = False
        self._killed = False
        self._dismissed = False
        self._waking = False  # a thread was given a job, and will wake the next when it runs
        self._seats: list[_Seat] = []  # of the threads that wait for a job, the last to come last
        self._waiting: deque[Line] = deque()  # the lines that hold jobs, the next in turn first

    @property
    def busy(self) -> int:
        """How many jobs have begun and not ended."""
        return self._busy

    @property
    def waiting(self) -> int:
        """How many jobs wait for a slot."""
        with self._lock:
            return sum(len(line) for line in self._waiting)

    def open_line(self, name: str) -> "Line":
        """Return a new, empty waiting line for one source of work."""
        return Line(self, name)

    def open(self) -> None:
        """Begin to grant slots, first to what has waited for it."""
        with self._lock:
            self._granting = not self._dismissed
            self._wake_next()

    def close(self) -> None:
        """Grant no slot any more; jobs that wait stay for their line's ``close`` to take back."""
        with self._lock:
            self._granting = False

    def dismiss(self) -> None:
        """Close, and let each thread leave ``serve``, those that work when their job has ended."""
        with self._lock:
            self._granting = False
            self._dismissed = True
            while self._seats:
                self._seats.pop().give(None)

    def kill(self) -> None:
        """Dismiss, and let every ``wait_idle`` return at once."""
        with self._lock:
            self._killed = True
            self._idle.notify_all()
        self.dismiss()

    def wait_idle(self, deadline: Deadline) -> bool:
        """Wait until no job runs; False if the deadline or ``kill()`` came first."""
        with self._lock:
            self._idle.wait_for(lambda: self._killed or not self._busy, deadline.remaining())
            return not self._busy and not self._killed

    def serve(self, arrived: Callable[[], object] = lambda: None) -> None:
        """Run jobs in this thread, until it is dismissed; `arrived` is called when it may get one.

        Whoever waits for that finds as many free slots as there are threads.
        """
        seat = _Seat()
        with self._lock:
            self._sit(seat)
        arrived()
        while True:
            job = seat.wait()
            if job is None:
                return
            if seat.woken:
                seat.woken = False
                with self._lock:
                    self._waking = False
                    self._wake_next()
            try:
                job()
            except BaseException:
                # A job settles its own failures. What comes here is a fault of ours, and may not
                # cost the pool a thread and the container a slot.
                _log.exception("a job failed outside of its own error handling")
            with self._lock:
                self._busy -= 1
                self._sit(seat)
                if not self._busy:
                    self._idle.notify_all()

    def _sit(self, seat: "_Seat") -> None:
        """Give the thread of ``seat`` its next job, or let it wait for one. The lock is held."""
        job = self._take()
        if isinstance(job, _Ticket):
            job.grant(seat)
        elif job is not None or self._dismissed:
            seat.give(job)
        else:
            self._seats.append(seat)

    def _wake_next(self) -> None:
        """Wake an idle thread if jobs wait. The lock is held."""
        job = self._take() if self._seats else None
        while isinstance(job, _Ticket):
            # Of those who sleep, the one that will be missed last.
            job.grant(self._seats.pop(0))
            job = self._take() if self._seats else None
        if job is not None:
            self._wake(job)

    def _wake(self, job: Job) -> None:
        """Wake the thread that worked last for a job that has begun. The lock is held."""
        self._waking = True
        seat = self._seats.pop()
        seat.woken = True
        seat.give(job)

    def _take(self) -> Job | None:
        """Take the next job in turn out of its line; it has begun. The lock is held."""
        if not (self._granting and self._waiting):
            return None
        line = self._waiting.popleft()
        job = line._jobs.popleft()
        if line._jobs:
            self._waiting.append(line)
        self._busy += 1
        return job


class _Seat:
    """Where one thread waits. ``give`` is called once for each ``wait``, by any thread."""

    __slots__ = ("_job", "_wake", "woken")

    def __init__(self) -> None:
        self.woken = False  # the thread was idle, and is to wake the next
        self._job: Job | None = None
        self._wake = threading.Lock()
        self._wake.acquire()

    def give(self, job: Job | None) -> None:
        self._job = job
        self._wake.release()

    def wait(self) -> Job | None:
        """Return the next job, when there is one; None when the thread is to leave."""
        self._wake.acquire()
        job, self._job = self._job, None
        return job


class _Ticket:
    """A job in a line that its owner does in a thread of its own, when a seat is granted."""

    __slots__ = ("_decided", "refused", "seat")

    def __init__(self) -> None:
        self.seat: _Seat | None = None
        self.refused = False
        self._decided = threading.Event()

    def __call__(self) -> None:
        raise AssertionError("a ticket is granted, not run")

    def grant(self, seat: _Seat) -> None:
        self.seat = seat
        self._decided.set()

    def refuse(self) -> None:
        self.refused = True
        self._decided.set()

    def wait(self, timeout: float | None) -> bool:
        return self._decided.wait(timeout)


class Line:
    """The jobs of one source that wait for a slot, first in, first begun."""

    def __init__(self, slots: Slots, name: str) -> None:
        self.name = name
        self._slots = slots
        self._jobs: deque[Job] = deque()
        self._closed = False
        self._entered = threading.local()  # the seat that the calling thread has

    def __len__(self) -> int:
        return len(self._jobs)

    def put(self, job: Job, *, at_once: bool = False) -> None:
        """Begin ``job`` on an idle thread, else let it wait in this line.

        Args:
            at_once: take an idle thread, if there is one, even while another is being woken; then
                a job that has not begun means that no thread is free.

        Raises:
            ContainerStopped: the line is closed.
        """
        slots = self._slots
        with slots._lock:
            if self._closed:
                raise ContainerStopped(f"{self.name} takes no more work")
            if slots._granting and slots._seats and (at_once or not slots._waking):
                slots._busy += 1
                slots._wake(job)
            else:
                self._jobs.append(job)
                if len(self._jobs) == 1:
                    slots._waiting.append(self)

    def enter(self, deadline: Deadline) -> bool:
        """Take a slot for the calling thread; False if none was free by the deadline.

        Whoever was let in calls ``leave`` in the same thread.

        Raises:
            ContainerStopped: the line is closed, or was while it waited.
        """
        slots = self._slots
        with slots._lock:
            if self._closed:
                raise ContainerStopped(f"{self.name} takes no more work")
            if slots._granting and slots._seats and not self._jobs:
                slots._busy += 1
                self._entered.seat = slots._seats.pop(0)
                return True
            ticket = _Ticket()
            self._jobs.append(ticket)
            if len(self._jobs) == 1:
                slots._waiting.append(self)
        if not ticket.wait(deadline.remaining()) and self.withdraw(ticket):
            return False
        # Withdrawn too late means that it is decided: the seat is ours, or we are refused.
        ticket.wait(None)
        if ticket.refused:
            raise ContainerStopped(f"{self.name} takes no more work")
        self._entered.seat = ticket.seat
        return True

    def leave(self) -> None:
        """Give back the slot that ``enter`` took."""
        slots = self._slots
        seat, self._entered.seat = self._entered.seat, None
        with slots._lock:
            slots._busy -= 1
            slots._sit(seat)
            if not slots._busy:
                slots._idle.notify_all()

    def withdraw(self, job: Job) -> bool:
        """Take ``job`` out of the line; True means that it never begins."""
        with self._slots._lock:
            try:
                self._jobs.remove(job)
            except ValueError:
                return False
            if not self._jobs:
                self._slots._waiting.remove(self)
            return True

    def close(self) -> list[Job]:
        """Refuse further jobs and return those that had not begun, in their order.

        Whoever waits in ``enter`` is refused.
        """
        with self._slots._lock:
            self._closed = True
            left = list(self._jobs)
            self._jobs.clear()
            if left:
                self._slots._waiting.remove(self)
        for job in left:
            if isinstance(job, _Ticket):
                job.refuse()
        return [job for job in left if not isinstance(job, _Ticket)]
