"""A broker connection on a thread of its own, which comes back when it is lost.

Threads that meet here::

    Link.start, post, wait_up, interrupt, stop, kill, is_up, trouble, ping,
    owns_this_thread                                                             any thread
    Link.call_at, cancel_timer, came_up, reset, finished                         the link's thread
    every method of an Expectation                                               the link's thread
    every method of a Session                                                    the link's thread

Work reaches the link as posted callables. A post is never lost in silence: it runs once on the
link's thread, connected or not, or ``post`` returns False because the thread is gone. What a
callable finds there is the session's business; the session keeps what could not be written yet,
and ``Session.abandon`` fails it when the link will not come back.

Order of stopping: ``stop()`` lets the session finish (``Session.finish``, which ends by calling
``finished``), bounded by a deadline; ``kill()`` drops the connection at once, so that the broker
takes back whatever was not acknowledged. Both end in ``Session.abandon``, then the thread ends.
"""

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import Protocol

from threadko.amqp.connection import Connection
from threadko.amqp.errors import translate
from threadko.amqp.loop import Loop
from threadko.amqp.parameters import BrokerParameters
from threadko.concurrency.deadline import Deadline
from threadko.concurrency.threads import start_thread
from threadko.concurrency.timers import Timer, TimerHeap
from threadko.exceptions import (
    BrokerError,
    BrokerRefused,
    BrokerUnavailable,
    ConfigurationError,
    ContainerStopped,
    ThreadkoError,
)
from threadko.utils.safelog import log_safely

__all__ = ["Expectation", "Link", "Session"]

_log = logging.getLogger(__name__)

_BACKOFF_FIRST_SECONDS = 0.1
_BACKOFF_CAP_SECONDS = 5.0
_TELL_EVERY = 64  # attempts; with pauses of up to 5 s this is every four minutes
_DROP_SECONDS = 1.0  # a dropped connection ends within two turns of the loop; this is the belt
_JOIN_GRACE_SECONDS = 2.0
# Guessed: a broker with much to do answers a declaration within that, or the next connection's.
_ANSWER_SECONDS = 60.0
_FRAME_MAX = 131072  # RabbitMQ's, until it has spoken


class Session(Protocol):
    """What a link is for. All methods are called on the link's thread."""

    def begin(self, connection: Connection) -> None:
        """A connection stands: open channels and declare; ``link.came_up()`` when usable.

        A connection that is not usable within ``answer_timeout`` is made anew.
        """

    def end(self, error: ThreadkoError) -> None:
        """The connection is gone, with all its channels; another may follow."""

    def turn(self) -> None:
        """The loop is about to wait: write what was saved up for the end of the turn."""

    def finish(self) -> None:
        """The link is to stop: complete what is under way, then call ``link.finished()``.

        Called once, connected or not; until ``finished`` a lost connection is made anew.
        """

    def abandon(self, error: ThreadkoError | None, killed: bool) -> None:
        """No connection will follow: fail everything that waits. Posts may still run after it."""


class Link:
    """Keeps one connection up for a session, until it is stopped, killed or refused for good.

    Args:
        parameters: the broker to connect to; of several nodes the next one is tried after each
            failure, and there is a pause only when all have failed.
        name: of the thread.
        session: what to do with the connection.
        answer_timeout: seconds in which the broker is to answer what an `Expectation` waits for.
    """

    def __init__(
        self,
        parameters: BrokerParameters,
        *,
        name: str,
        session: Session,
        answer_timeout: float = _ANSWER_SECONDS,
    ) -> None:
        self.parameters = parameters  # of the node that is tried or connected to
        self.name = name
        self.answer_timeout = answer_timeout
        self._nodes = parameters.nodes
        self._session = session
        self._lock = threading.Lock()  # guards the fields from here to the blank line
        self._changed = threading.Condition(self._lock)
        self._inbox: list[Callable[[], None]] = []
        self._woken = False  # a wake-up for the inbox is under way
        self._loop: Loop | None = None
        self._thread: threading.Thread | None = None
        self._up = False
        self._error: ThreadkoError | None = None  # why it is not up
        self._interrupted = False
        self._closed = False  # the thread takes no more posts
        self.frame_max = _FRAME_MAX  # as agreed with the broker last; read by any thread

        # Touched by the link's thread alone.
        self.connection: Connection | None = None
        self.generation = 0  # counts the connections that stood
        self._timers = TimerHeap()
        self._finishing = False  # stop() was called
        self._done = False  # no further connection is made
        self._killed = False  # something may have been left unfinished
        self._was_up = False  # at any time
        self._failures = 0  # since it was last up
        self._told: dict[str, str] = {}  # by node: the failure that was logged last, since then
        self._refusals = 0  # for good, by one node after the other
        self._end_error: BaseException | None = None
        self._attempt = 0  # counts the connections that were tried
        self._setup = Expectation(self, "what is declared and consumed")
        self._belt: Timer | None = None  # ends the wait for a dropped connection's end

    # Any thread

    @property
    def is_up(self) -> bool:
        """Whether the connection stands and its session is ready."""
        return self._up

    def trouble(self) -> str | None:
        """Say why the connection does not stand; None if it does."""
        return None if self._up else f"no connection to {self.parameters.uri_redacted}"

    def ping(self, answer: Callable[[], object]) -> None:
        """Have `answer` called on the link's thread; never, if that hangs or has ended."""

        def run() -> None:
            answer()

        self.post(run)

    def owns_this_thread(self) -> bool:
        """Whether the calling thread is the link's: it must never wait for the link."""
        return threading.current_thread() is self._thread

    def start(self) -> None:
        """Begin to connect; returns at once."""
        with self._lock:
            if self._thread is not None or self._closed:
                return
            self._loop = Loop(self._before_wait)
            try:
                self._thread = start_thread(self._main, self.name)
            except BaseException:
                self._loop.close()
                self._loop = None
                raise

    def post(self, job: Callable[[], None]) -> bool:
        """Run ``job`` on the link's thread, once; False if there is no thread, or no more."""
        with self._lock:
            loop = self._loop
            if self._closed or loop is None:
                return False
            self._inbox.append(job)
            if self._woken:
                return True
            self._woken = True
        # One wake-up serves all that is posted until the thread comes round.
        loop.add_callback_threadsafe(self._run_inbox)
        return True

    def wait_up(self, deadline: Deadline) -> None:
        """Wait until the link is up.

        Raises:
            BrokerRefused: the broker will not have us, and waiting would not help.
            BrokerUnavailable: the deadline passed.
            ContainerStopped: the link was stopped, killed or interrupted first.
        """
        with self._lock:
            self._changed.wait_for(
                lambda: self._up or self._closed or self._interrupted, deadline.remaining()
            )
            if self._up:
                return
            error = self._error
        if isinstance(error, BrokerRefused):
            raise type(error)(*error.args) from error
        if self._closed or self._interrupted:
            raise ContainerStopped("stopped while waiting for the broker")
        raise BrokerUnavailable(
            f"no connection to {self.parameters.uri_redacted} in time: {error or 'no answer yet'};"
            " is the broker running, and is the address right?"
        )

    def interrupt(self) -> None:
        """Let ``wait_up`` give up; a link that is up, or comes up, is not touched."""
        with self._lock:
            self._interrupted = True
            self._changed.notify_all()

    def stop(self, timeout: float) -> bool:
        """Let the session finish, close the connection and wait for the thread.

        True if it ended by itself; False if ``timeout`` (seconds) passed, and the connection was
        dropped with what it had not finished. From the link's own thread it only begins.
        """
        with self._lock:
            thread = self._thread
            if thread is None:
                self._never_start()
                return True
        self.post(lambda: self._begin_finish(timeout))
        if thread is threading.current_thread():
            return False
        thread.join(timeout + _DROP_SECONDS + _JOIN_GRACE_SECONDS)
        if thread.is_alive():
            _log.error("%s did not end within %.1f s", self.name, timeout)
            return False
        return not self._killed

    def kill(self) -> None:
        """Drop the connection without finishing anything; does not wait."""
        with self._lock:
            if self._thread is None:
                self._never_start()
                return
        self.post(self._kill)

    def forget(self) -> None:
        """Close the descriptors that a forked child has inherited; only there.

        Nothing is shut down or taken out of a poller: both belong to the parent as well.
        """
        loop, self._loop = self._loop, None
        if self.connection is not None:
            self.connection.close_socket()
        if loop is not None:
            loop.forget()

    def _never_start(self) -> None:
        """Refuse a later ``start()``. The lock is held, or one might just have begun."""
        self._closed = True
        self._changed.notify_all()

    # The link's thread

    def call_at(self, at: float, callback: Callable[[], None]) -> Timer:
        """Call back on this thread at ``at`` (monotonic seconds), connected or not."""
        return self._timers.add(at, callback)

    def cancel_timer(self, timer: Timer) -> None:
        """Never call this timer."""
        self._timers.cancel(timer)

    def came_up(self) -> None:
        """The session is ready: those who wait in ``wait_up`` go on."""
        self._setup.end()
        self._was_up = True
        if self._failures:
            uri = self.parameters.uri_redacted
            log_safely(_log, logging.INFO, "%s: connected to %s again", self.name, uri)
        self._failures = 0
        self._told.clear()
        with self._lock:
            self._up = True
            self._error = None
            self._changed.notify_all()

    def reset(self, error: Exception) -> None:
        """Drop this connection, because of ``error``, and connect anew."""
        if self.connection is not None:
            self.connection.drop(error)

    def finished(self) -> None:
        """The session has completed its work: close the connection and end the thread."""
        self._done = True
        connection = self.connection
        if connection is not None and connection.is_open:
            connection.close()
        else:
            self._drop_and_leave()

    def _main(self) -> None:
        # start() may not have come so far yet, and owns_this_thread() must be right from the first
        # callback on: a wait for ourselves would never end.
        self._thread = threading.current_thread()
        error: ThreadkoError | None = None
        try:
            while not self._done:
                error = self._run_connection()
                if self._is_hopeless(error):
                    break
        finally:
            self._retire(error)

    def _is_hopeless(self, error: ThreadkoError) -> bool:
        """Whether every node has refused us for good, before we ever were up."""
        self._refusals = self._refusals + 1 if isinstance(error, BrokerRefused) else 0
        return not self._was_up and self._refusals >= len(self._nodes)

    def _run_connection(self) -> ThreadkoError:
        """One attempt, and the connection's life if it succeeds; returns why it ended."""
        loop = self._loop
        assert loop is not None, "made before the thread"
        self._end_error = None
        self._attempt += 1
        self.parameters = self._nodes[(self._attempt - 1) % len(self._nodes)]
        connecting = loop.call_later(self._backoff(), self._connect)
        clean = False
        try:
            loop.start()
            clean = self.connection is None or self.connection.is_closed
        except OSError as fault:
            self._end_error = fault  # pika's way to say that no descriptors are left
        except BaseException as fault:  # a SystemExit must not end this thread either
            text = "%s: the connection failed in an unforeseen way"
            log_safely(_log, logging.ERROR, text, self.name, exc_info=fault)
            self._end_error = fault
        finally:
            loop.remove_timeout(connecting)
            if self._belt is not None:
                loop.remove_timeout(self._belt)
                self._belt = None
            self._free()
            if not clean:
                self._replace_loop(loop)
        self._setup.end()
        error = translate(self._end_error or BrokerError("closed"), self.parameters)
        was_up = self._up
        with self._lock:
            self._up = False
            self._error = error
        self._guard(lambda: self._session.end(error))
        if not self._done:
            self._failures += 1
            self._log_loss(error, was_up)
        return error

    def _replace_loop(self, loop: Loop) -> None:
        """Leave behind what a connection that did not end as it should may have in its loop."""
        try:
            fresh = Loop(self._before_wait)
        except OSError:
            fresh = loop  # no descriptors: the old one must do
        with self._lock:
            self._loop = fresh
            if self._inbox:
                # Its wake-up may have gone to the loop before.
                self._woken = True
                fresh.add_callback_threadsafe(self._run_inbox)
        if fresh is not loop:
            loop.close()

    def _backoff(self) -> float:
        rounds, others_left = divmod(self._failures, len(self._nodes))
        if not rounds or others_left:
            return 0.0
        ceiling = min(_BACKOFF_FIRST_SECONDS * 2 ** min(rounds, 16), _BACKOFF_CAP_SECONDS)
        return random.uniform(ceiling / 2, ceiling)

    def _log_loss(self, error: ThreadkoError, was_up: bool) -> None:
        if isinstance(error, BrokerRefused) and not self._was_up and len(self._nodes) == 1:
            return  # raised to whoever started us
        uri = self.parameters.uri_redacted
        if was_up:
            text = "%s: lost the connection to %s: %s; trying again"
            log_safely(_log, logging.WARNING, text, self.name, uri, error)
        elif self._is_news(uri, error):
            times = "" if self._failures == 1 else f" ({self._failures} failures so far)"
            text = "%s: cannot connect to %s: %s; trying again%s"
            log_safely(_log, logging.WARNING, text, self.name, uri, error, times)

    def _is_news(self, uri: str, error: ThreadkoError) -> bool:
        """Whether a failed attempt is logged: a new reason is, the same one ever more seldom."""
        failure = f"{type(error).__name__}: {error}"
        known, self._told[uri] = self._told.get(uri), failure
        count = self._failures
        return failure != known or count % _TELL_EVERY == 0 or count & (count - 1) == 0

    def _connect(self) -> None:
        loop = self._loop
        assert loop is not None, "called by the loop"
        if self._done:
            self._leave()
            return
        attempt = self._attempt
        try:
            parameters = self.parameters.to_pika()
        except ConfigurationError as error:  # a certificate that is just being renewed, say
            self._ended(attempt, error)
            return
        self.connection = Connection(
            parameters,
            loop,
            on_open=self._opened,
            on_end=lambda error: self._ended(attempt, error),
        )

    def _opened(self) -> None:
        assert self.connection is not None, "it has just opened"
        connection = self.connection
        self.generation += 1
        self.frame_max = connection.frame_max
        self._setup.begin()
        self._guard(lambda: self._session.begin(connection))

    def _ended(self, attempt: int, error: BaseException) -> None:
        if attempt == self._attempt:
            self._end_error = self._end_error or error
            self._leave()

    def _leave(self) -> None:
        if self._loop is not None:
            self._loop.stop()

    def _free(self) -> None:
        """Close by hand what a connection that ended badly may have left open."""
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.close_socket()

    def _before_wait(self) -> float | None:
        """End a turn of the loop; returns when the earliest timer is due."""
        timers, loop = self._timers, self._loop
        due = timers.next_at
        # What was due when the sockets were last asked: where this thread was held up for long, the
        # answer that a timer waits for may have come in time, and lie there.
        now = time.monotonic() if loop is None else loop.asked_at
        if due is not None and due <= now:
            self._guard(lambda: timers.run_due(now))
        connection = self.connection
        if connection is not None:
            try:
                self._session.turn()
            except BaseException as error:
                self._fault(error)
            connection.flush()
        return timers.next_at

    def _run_inbox(self) -> None:
        with self._lock:
            jobs, self._inbox = self._inbox, []
            self._woken = False
        for job in jobs:
            try:
                job()
            except BaseException as error:
                self._fault(error)

    def _guard(self, job: Callable[[], None]) -> None:
        """Run a callable of ours; a fault in it costs this connection, never this thread."""
        try:
            job()
        except BaseException as error:  # a SystemExit must not end this thread either
            self._fault(error)

    def _fault(self, error: BaseException) -> None:
        text = "%s: a fault on the connection thread"
        log_safely(_log, logging.ERROR, text, self.name, exc_info=error)
        if self.connection is not None:  # or it would be told as the end of the next one
            self._end_error = self._end_error or error
            self.reset(BrokerError(f"internal fault: {error!r}"))

    def _begin_finish(self, timeout: float) -> None:
        if self._finishing:
            return
        self._finishing = True
        self.call_at(time.monotonic() + timeout, self._kill)
        self._guard(self._session.finish)

    def _kill(self) -> None:
        self._done = self._killed = True
        self._drop_and_leave()

    def _drop_and_leave(self) -> None:
        connection = self.connection
        if connection is None or connection.is_closed:
            self._leave()
            return
        connection.drop(ContainerStopped("stopped"))
        if self._loop is not None and self._belt is None:
            self._belt = self._loop.call_later(_DROP_SECONDS, self._leave)

    def _retire(self, error: ThreadkoError | None) -> None:
        """The thread's last act: nothing posted or pending is left without an answer."""
        self._guard(lambda: self._session.abandon(error, self._killed))
        self._run_inbox()
        with self._lock:
            self._closed = True
            self._up = False
            rest, self._inbox = self._inbox, []
            loop, self._loop = self._loop, None
            self._changed.notify_all()
        for job in rest:
            self._guard(job)
        if loop is not None:
            loop.close()


class Expectation:
    """An answer of the broker's that is waited for: without it the connection is made anew.

    Heartbeats tell of a connection that is dead, and not of a broker that has stopped to work.
    While the broker blocks us it reads nothing of ours, and is waited for.
    """

    def __init__(self, link: Link, what: str) -> None:
        self._link = link
        self._what = what
        self._timer: Timer | None = None

    def begin(self) -> None:
        """Wait from now on."""
        self.end()
        self._timer = self._link.call_at(
            time.monotonic() + self._link.answer_timeout, self._is_overdue
        )

    def end(self) -> None:
        """The answer is here, or is not waited for any more."""
        if self._timer is not None:
            self._link.cancel_timer(self._timer)
            self._timer = None

    def _is_overdue(self) -> None:
        connection = self._link.connection
        if connection is not None and connection.blocked:
            self.begin()
            return
        self._timer = None
        self._link.reset(
            BrokerUnavailable(
                f"the broker has not answered {self._what} within {self._link.answer_timeout:.0f} s"
            )
        )
