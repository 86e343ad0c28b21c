"""Calling the hooks of a container's extensions: in their order, and none when it is too late.

==============  ================================================================================
`run_starting`  the thread that starts the container
`run_stopping`  the thread that stops it
`run_kill`      any thread, while the others are busy or hang; so too `log_stacks`
==============  ================================================================================
"""

import logging
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from threadko.concurrency.threads import format_stack
from threadko.extensions import Extension
from threadko.utils.safelog import log_safely

__all__ = ["Hooks"]

_log = logging.getLogger(__name__)


class Hooks:
    """The hooks of one container, and what is known of those that run or have run.

    An extension inside one of its starting hooks is killed by the thread that runs the hook, when
    that has ended: `kill()` while `start()` is making a connection would find none to close.
    """

    def __init__(self, service_name: str) -> None:
        self._service_name = service_name
        self._lock = threading.Lock()  # guards all fields below
        self._begun: dict[int, Extension] = {}  # whose kill() is due when the end comes early
        self._inside: Extension | None = None
        self._killed = False
        self._threads: list[threading.Thread] = []  # those inside a hook; twice if nested

    def run_starting(
        self, extensions: Iterable[Extension], hook: str, abort: threading.Event
    ) -> bool:
        """Run a hook of each extension; False if one may not begin any more.

        That is when `abort` is set, or when they were killed.
        """
        for extension in extensions:
            with self._lock:
                if self._killed or abort.is_set():
                    return False
                self._begun[id(extension)] = extension
                self._inside = extension
            try:
                with self.marked():
                    getattr(extension, hook)()
            finally:
                with self._lock:
                    self._inside = None
        return True

    def run_stopping(
        self, extensions: Iterable[Extension], hook: str, errors: list[BaseException]
    ) -> None:
        """Run a hook of each extension; what they raise is logged and added to `errors`."""
        for extension in extensions:
            if self._killed:
                return
            try:
                with self.marked():
                    getattr(extension, hook)()
            except BaseException as error:
                self._log_failure(hook, extension, error)
                errors.append(error)

    def run_kill(self) -> None:
        """Kill what has begun, the last first, and let no other hook begin.

        Each extension is killed once. What is inside a starting hook now is left to a second call,
        which is due by the thread that runs that hook.
        """
        with self._lock:
            self._killed = True
            due = [item for item in self._begun.values() if item is not self._inside]
            self._begun = {key: item for key, item in self._begun.items() if item is self._inside}
        for extension in reversed(due):
            try:
                with self.marked():
                    extension.kill()
            except BaseException as error:
                self._log_failure("kill", extension, error)

    @contextmanager
    def marked(self) -> Iterator[None]:
        """Mark the calling thread as one that runs hooks."""
        thread = threading.current_thread()
        with self._lock:
            self._threads.append(thread)
        try:
            yield
        finally:
            with self._lock:
                self._threads.remove(thread)

    def run_in_current_thread(self) -> bool:
        """Whether the calling thread is inside a hook."""
        with self._lock:
            return threading.current_thread() in self._threads

    def log_stacks(self) -> None:
        """Log where each thread is that runs a hook, except the calling one."""
        with self._lock:
            threads = set(self._threads) - {threading.current_thread()}
        for thread in threads:
            stack = format_stack(thread.ident)
            text = "a hook of %s has not ended, and is at:\n%s"
            log_safely(_log, logging.ERROR, text, self._service_name, stack)

    def _log_failure(self, hook: str, extension: Extension, error: BaseException) -> None:
        log_safely(
            _log,
            logging.ERROR,
            "%s() of %r in %s failed",
            hook,
            extension,
            self._service_name,
            exc_info=error,
        )
