"""The managed threads of a container: those that its extensions run beside the workers.

Any thread may call anything here, save that nothing waits for the thread that asks.
"""

import logging
import threading
from collections.abc import Callable

from threadko.concurrency.deadline import Deadline
from threadko.concurrency.threads import ManagedThread, thread_name

__all__ = ["ManagedThreads"]

_log = logging.getLogger(__name__)


class ManagedThreads:
    """The threads that run now, each until its function returns.

    Args:
        service_name: stands in the threads' names.
        on_error: called in the thread with whatever exception leaves its function.
    """

    def __init__(self, service_name: str, on_error: Callable[[BaseException], None]) -> None:
        self._service_name = service_name
        self._on_error = on_error
        self._lock = threading.Lock()  # guards _running and _closed
        self._running: dict[ManagedThread, threading.Thread | None] = {}
        self._closed = False

    def spawn(self, fn: Callable[[], object], identifier: str | None) -> ManagedThread | None:
        """Run `fn` in a thread of its own and return its handle; None after `close()`."""
        role = identifier or str(getattr(fn, "__name__", "<unknown>"))

        def run() -> None:
            with self._lock:
                self._running[handle] = threading.current_thread()
            try:
                fn()
            finally:
                with self._lock:
                    del self._running[handle]

        handle = ManagedThread(run, thread_name(self._service_name, role), self._on_error)
        with self._lock:
            if self._closed:
                return None
            self._running[handle] = None
        handle.start()
        return handle

    def owns_current(self) -> bool:
        """Whether the calling thread is one of these."""
        with self._lock:
            return threading.current_thread() in self._running.values()

    def close(self) -> None:
        """Ask all threads to end, and refuse to run more."""
        with self._lock:
            self._closed = True
            running = list(self._running)
        for handle in running:
            handle.kill()

    def join(self, deadline: Deadline) -> None:
        """Wait for all threads to end; those that do not are named in the log and left."""
        with self._lock:
            running = [
                handle
                for handle, thread in self._running.items()
                if thread is not threading.current_thread()
            ]
        for handle in running:
            try:
                handle.wait(deadline.remaining())
            except TimeoutError:
                if handle.is_alive():
                    _log.warning(
                        "thread %s does not end, so it is left behind; a loop should watch"
                        " container.stopping",
                        handle.name,
                    )
            except BaseException:
                _log.debug("thread %s had failed", handle.name)  # `on_error` has been told
