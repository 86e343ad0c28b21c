"""Who works next: a fixed number of slots, and one waiting line for each source of work.

Threads that meet here::

    Slots.open, close, kill, wait_idle   the container, from any thread
    Slots.open_line                      any thread, while extensions are set up
    Line.put, withdraw, close            any thread, never blocking; connection threads among them
    jobs                                 run on pool threads only, each holding one slot

A slot is taken and a job begun under one lock, so a job is either begun or handed back by
``withdraw`` or ``close``: never both, never neither. A thread that has finished a job runs the
next one itself, taking the lines in turn, so a busy pool costs no wake-up per job and no source
starves another.

Order of stopping: ``close()`` (nothing more is granted), each line's ``close()`` (what has not
begun goes back to its owner), ``wait_idle()`` (what has begun ends), or ``kill()`` at any time.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable
from functools import partial

from threadko.concurrency.deadline import Deadline
from threadko.exceptions import ContainerStopped

__all__ = ["Job", "Line", "Slots"]

_log = logging.getLogger(__name__)

Job = Callable[[], None]


class Slots:
    """``count`` places to work in, granted to the waiting lines in turn.

    Args:
        count: how many jobs may run at once.
        submit: starts a callable on a thread of the pool that is free; called with no lock held.
    """

    def __init__(self, count: int, submit: Callable[[Job], object]) -> None:
        self._submit = submit
        self._lock = threading.Lock()  # guards all fields below, and the fields of every line
        self._idle = threading.Condition(self._lock)
        self._count = count
        self._free = count
        self._granting = False
        self._killed = False
        self._waiting: deque[Line] = deque()  # the lines that hold jobs, the next in turn first

    @property
    def busy(self) -> int:
        """How many jobs have begun and not ended."""
        return self._count - self._free

    def open_line(self, name: str) -> "Line":
        """Return a new, empty waiting line for one source of work."""
        return Line(self, name)

    def open(self) -> None:
        """Begin to grant slots, first to what has waited for it."""
        with self._lock:
            self._granting = not self._killed
            waiting = sum(len(line) for line in self._waiting) if self._granting else 0
            granted = min(self._free, waiting)
            self._free -= granted
        while granted:
            # The pool's thread takes its job itself: were it taken here, and the pool just shut
            # down, the job would be in no line that could hand it back.
            try:
                self._start(None)
            except ContainerStopped:
                with self._lock:
                    self._free += granted - 1
                    self._idle.notify_all()
                raise
            granted -= 1

    def close(self) -> None:
        """Grant no slot any more; jobs that wait stay for their line's ``close`` to take back."""
        with self._lock:
            self._granting = False

    def kill(self) -> None:
        """Close, and let every ``wait_idle`` return at once."""
        with self._lock:
            self._granting = False
            self._killed = True
            self._idle.notify_all()

    def wait_idle(self, deadline: Deadline) -> bool:
        """Wait until no job runs; False if the deadline or ``kill()`` came first."""
        with self._lock:
            self._idle.wait_for(
                lambda: self._killed or self._free == self._count, deadline.remaining()
            )
            return self._free == self._count and not self._killed

    def _take(self) -> Job | None:
        """Take the next job in turn out of its line. The lock is held."""
        if not (self._granting and self._waiting):
            return None
        line = self._waiting.popleft()
        job = line._jobs.popleft()
        if line._jobs:
            self._waiting.append(line)
        return job

    def _start(self, job: Job | None) -> None:
        """Begin a job, or the next in turn, on a thread of the pool. Its slot is taken."""
        try:
            self._submit(partial(self._run, job))
        except RuntimeError as error:  # the pool is shut down, or the interpreter is
            with self._lock:
                self._release()
            raise ContainerStopped("no worker thread takes work any more") from error

    def _run(self, job: Job | None) -> None:
        if job is None:
            job = self._next()
        while job is not None:
            try:
                job()
            except BaseException:
                # A job settles its own failures. What comes here is a fault of ours, and may not
                # cost the pool a thread and the container a slot.
                _log.exception("a job failed outside of its own error handling")
            job = self._next()

    def _next(self) -> Job | None:
        """Take the next job in turn into this thread's slot, or give the slot back."""
        with self._lock:
            job = self._take()
            if job is None:
                self._release()
            return job

    def _release(self) -> None:
        """Give a slot back. The lock is held."""
        self._free += 1
        if self._free == self._count:
            self._idle.notify_all()


class Line:
    """The jobs of one source that wait for a slot, first in, first begun."""

    def __init__(self, slots: Slots, name: str) -> None:
        self.name = name
        self._slots = slots
        self._jobs: deque[Job] = deque()
        self._closed = False

    def __len__(self) -> int:
        return len(self._jobs)

    def put(self, job: Job) -> None:
        """Begin ``job`` on a pool thread if a slot is free, else let it wait in this line.

        Raises:
            ContainerStopped: the line is closed.
        """
        slots = self._slots
        with slots._lock:
            if self._closed:
                raise ContainerStopped(f"{self.name} takes no more work")
            if not (slots._granting and slots._free):
                self._jobs.append(job)
                if len(self._jobs) == 1:
                    slots._waiting.append(self)
                return
            slots._free -= 1
        slots._start(job)

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
        """Refuse further jobs and return those that had not begun, in their order."""
        with self._slots._lock:
            self._closed = True
            left = list(self._jobs)
            self._jobs.clear()
            if left:
                self._slots._waiting.remove(self)
            return left
