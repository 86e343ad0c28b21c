"""Named daemon threads, and the handle of those that a container spawns for an extension.

All are daemons: code of the user that never returns must not hold the process at its end.

==========================  ==================================================================
`ManagedThread.start()`     its owner, once
`ManagedThread.kill()`      any thread; never blocks
`ManagedThread.wait()`      any thread but itself
`on_error`                  called on the managed thread, as the last thing that it does
==========================  ==================================================================
"""

import gc
import itertools
import logging
import sys
import threading
import traceback
from collections.abc import Callable
from types import FrameType, TracebackType

from threadko.concurrency.deadline import Deadline
from threadko.exceptions import WorkerKilled

__all__ = [
    "ManagedThread",
    "current_frames",
    "format_stack",
    "run_in_thread",
    "start_thread",
    "thread_name",
]

_log = logging.getLogger(__name__)

_numbers = itertools.count(1)
_frames_lock = threading.Lock()  # guards the garbage collector's being off


def thread_name(service: str, role: str) -> str:
    """Return a new name for a thread, `threadko-<service>-<role>-<n>`; n is unique here."""
    return f"threadko-{service}-{role}-{next(_numbers)}"


def start_thread(target: Callable[[], object], name: str) -> threading.Thread:
    """Start and return a daemon thread that runs `target`."""
    thread = threading.Thread(target=target, name=name, daemon=True)
    thread.start()
    return thread


def current_frames() -> dict[int, FrameType]:
    """Return the frame in which each thread is, by the thread's id.

    Python 3.11 holds a lock meanwhile that some destructors take: where the garbage collector
    runs just then, the whole process stands still for ever.
    """
    with _frames_lock:
        was_enabled = gc.isenabled()
        gc.disable()
        try:
            return sys._current_frames()
        finally:
            if was_enabled:
                gc.enable()


def format_stack(thread_id: int | None) -> str:
    """Return the lines of code at which a thread is, without values; "" if it does not run."""
    frame = None if thread_id is None else current_frames().get(thread_id)
    return "" if frame is None else "".join(traceback.format_stack(frame))


def run_in_thread(target: Callable[[], object], name: str) -> threading.Thread | None:
    """Run `target` in a daemon thread; where none can be started, here and now: None is returned.

    For what must be done even at the end of the interpreter, where no thread can be started.
    """
    try:
        return start_thread(target, name)
    except RuntimeError:
        target()
        return None


class ManagedThread:
    """A thread that a container looks after.

    `stopping` is set by `kill()`; the function in the thread is expected to watch it. Whatever
    exception leaves the function is kept for `wait()` and handed to `on_error`; `WorkerKilled` is
    no error, for then somebody wanted the thread to end.
    """

    def __init__(
        self,
        fn: Callable[[], object],
        name: str,
        on_error: Callable[[BaseException], None] | None = None,
    ) -> None:
        self.name = name
        self.stopping = threading.Event()
        self._fn = fn
        self._on_error = on_error
        # Both are written by the thread before it ends and read by others after joining it.
        self._error: BaseException | None = None
        self._traceback: TracebackType | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread; a second start is a RuntimeError."""
        self._thread.start()

    def kill(self) -> None:
        """Ask the thread to end, by setting `stopping`; does not wait for it."""
        self.stopping.set()

    def is_alive(self) -> bool:
        """Whether the thread has been started and has not ended."""
        return self._thread.is_alive()

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the thread has ended, and raise the exception that ended it.

        Raises `TimeoutError` when `timeout` seconds have passed, and `RuntimeError` if called from
        the thread itself.
        """
        if threading.current_thread() is self._thread:
            raise RuntimeError(f"thread {self.name} cannot wait for its own end")
        self._thread.join(Deadline(timeout).remaining())
        if self._thread.is_alive():
            raise TimeoutError(f"thread {self.name} still runs after {timeout} s")
        if self._error is not None:
            # Each raise adds to the traceback of this one object, so begin from the original.
            raise self._error.with_traceback(self._traceback)

    def _run(self) -> None:
        try:
            self._fn()
        except WorkerKilled:
            _log.debug("thread %s was killed", self.name)
        except BaseException as exc:
            self._error = exc
            self._traceback = exc.__traceback__
            self._report(exc)

    def _report(self, exc: BaseException) -> None:
        if self._on_error is None:
            _log.error("thread %s failed", self.name, exc_info=exc)
            return
        try:
            self._on_error(exc)
        except Exception:
            _log.exception("the failure of thread %s could not be reported", self.name)

    def __repr__(self) -> str:
        state = "alive" if self.is_alive() else "not alive"
        return f"<ManagedThread {self.name} {state}>"
