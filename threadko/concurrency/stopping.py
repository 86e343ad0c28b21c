"""The event that says "stop", for those who wait on it and for those who wait on something else.

Any thread may call anything. ``set()`` runs the callbacks in the thread that sets, with no lock
held; they must not block.
"""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["StopEvent"]

_log = logging.getLogger(__name__)


class StopEvent(threading.Event):
    """A ``threading.Event`` that can wake a thread which waits elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self._callbacks_lock = threading.Lock()  # guards _callbacks
        self._callbacks: list[Callable[[], None]] = []

    def set(self) -> None:
        """Set the event, and run the callbacks of those who are in ``calling`` now."""
        super().set()
        with self._callbacks_lock:
            callbacks = list(self._callbacks)
        for callback in callbacks:
            try:
                callback()
            except Exception:
                # Whoever sets the event has a stop to carry out, and other callers to wake.
                _log.exception("a callback of the stop event failed")

    @contextmanager
    def calling(self, callback: Callable[[], None]) -> Iterator[None]:
        """Call ``callback`` if the event is set, or becomes set before the block is left."""
        with self._callbacks_lock:
            self._callbacks.append(callback)
        try:
            # Asked after entering the list: whoever sets it now finds the callback there.
            if self.is_set():
                callback()
            yield
        finally:
            with self._callbacks_lock:
                self._callbacks.remove(callback)
