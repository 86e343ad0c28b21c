"""Futures that are resolved on a connection thread, whose callbacks run elsewhere.

A done-callback is the user's code: on a connection thread it could block heartbeats, or end the
thread with a ``SystemExit``. ``CallbackFuture`` runs them one after the other on one thread that
all of them share and that lives while there are any.
"""

import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeVar

from threadko.concurrency.threads import start_thread, thread_name

__all__ = ["CallbackFuture"]

_log = logging.getLogger(__name__)

_Result = TypeVar("_Result")


class _CallbackThread:
    """Runs callables in the order of ``submit``, on a thread that ends when there is none left."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards the two fields below
        self._queue: deque[Callable[[], object]] = deque()
        self._running = False

    def renew(self) -> None:
        """Begin anew in a forked child, where no other thread runs."""
        self._lock = threading.Lock()
        self._queue.clear()
        self._running = False

    def submit(self, callback: Callable[[], object]) -> None:
        with self._lock:
            self._queue.append(callback)
            if self._running:
                return
            self._running = True
        try:
            start_thread(self._run, thread_name("futures", "callbacks"))
        except BaseException:
            with self._lock:
                self._running = False  # or no later callback would start a thread either
            raise

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._queue:
                    self._running = False
                    return
                callback = self._queue.popleft()
            try:
                callback()
            except BaseException:
                _log.exception("a done-callback failed")


_callbacks = _CallbackThread()
os.register_at_fork(after_in_child=_callbacks.renew)


class CallbackFuture(Future[_Result]):
    """A ``concurrent.futures.Future`` that any thread may resolve: it runs no callback there."""

    def add_done_callback(self, fn: Callable[[Future[Any]], object]) -> None:
        """Call ``fn`` with this future when it is done, on the thread for callbacks."""
        super().add_done_callback(lambda future: _callbacks.submit(partial(fn, future)))
