"""Observers: others who are told of a container's workers and of its end.

For test tools, metrics and tracing. Each callback runs in the thread in which the thing happens:
the worker's own, or the one that ends the container. Adding and removing: any thread.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from threadko.utils.safelog import log_safely

__all__ = ["Observer", "Observers"]

_log = logging.getLogger(__name__)

Callback = Callable[..., object]


@dataclass(frozen=True, eq=False)
class Observer:
    """What an observer may have; any other object with some of these methods serves as well."""

    #: Called with the worker context when all `worker_setup` hooks have run.
    on_worker_setup: Callback | None = None
    #: Called with context, result and exc_info when all `worker_result` hooks have run.
    on_worker_result: Callback | None = None
    #: Called with context, result and exc_info when all `worker_teardown` hooks have run.
    on_worker_teardown: Callback | None = None
    #: Called with the container and its error (or None) when it has stopped or was killed.
    on_death: Callback | None = None


_EVENTS = ("on_worker_setup", "on_worker_result", "on_worker_teardown", "on_death")


class Observers:
    """The observers of one container.

    Whoever tells them asks `if observers.on_worker_result:` first, so that having none costs
    nothing. An observer that raises is logged and disturbs nobody.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards changes of _all; readers take the tuples as they are
        self._all: tuple[Any, ...] = ()
        self.on_worker_setup: tuple[Callback, ...] = ()
        self.on_worker_result: tuple[Callback, ...] = ()
        self.on_worker_teardown: tuple[Callback, ...] = ()
        self.on_death: tuple[Callback, ...] = ()

    def add(self, observer: Any) -> None:
        """Tell `observer` from now on.

        Raises:
            TypeError: it has none of the methods of `Observer`.
        """
        if not any(callable(getattr(observer, event, None)) for event in _EVENTS):
            raise TypeError(f"{observer!r} is no observer: it has none of {', '.join(_EVENTS)}")
        with self._lock:
            if not any(known is observer for known in self._all):
                self._rebuild((*self._all, observer))

    def remove(self, observer: Any) -> None:
        """Tell `observer` no more; nothing happens if it is not there."""
        with self._lock:
            self._rebuild(tuple(known for known in self._all if known is not observer))

    @staticmethod
    def tell(callbacks: tuple[Callback, ...], *args: Any) -> None:
        """Call each of the callbacks."""
        for callback in callbacks:
            try:
                callback(*args)
            except BaseException as error:  # an observer's SystemExit must not be the worker's
                log_safely(_log, logging.ERROR, "observer %r failed", callback, exc_info=error)

    def _rebuild(self, observers: tuple[Any, ...]) -> None:
        self._all = observers
        for event in _EVENTS:
            callbacks = (getattr(observer, event, None) for observer in observers)
            setattr(self, event, tuple(callback for callback in callbacks if callback is not None))
