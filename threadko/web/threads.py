"""The threads that serve requests, made as they are needed, up to a limit that can move.

`put` is called by any thread and never waits; what nobody is free for waits in a queue, which is
as long as there are connections. All threads are daemons. `stop` lets each leave after what it has
begun, and waits for nobody; `join` does, for any thread.
"""

import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Final

from threadko.concurrency.threads import start_thread

__all__ = ["RequestThreads"]

_log = logging.getLogger(__name__)

_LEAVE: Final = object()
_NOTHING: Final = object()


class RequestThreads:
    """Runs `serve` for whatever is put in, in as many threads as the limit says.

    Args:
        name: stands in the names of the threads.
        serve: called with each item; what it raises is logged, and costs no thread.
    """

    def __init__(self, name: str, serve: Callable[[Any], object]) -> None:
        self._name = name
        self._serve = serve
        self._lock = threading.Lock()  # guards the numbers below
        self._limit = 1
        self._made = 0
        self._free = 0  # threads that wait, less the items that wait for them
        self._alive = 0
        self._aside = 0  # threads that wait for somebody outside
        self._left = threading.Condition(self._lock)  # told when a thread leaves, or steps aside
        self._queue: SimpleQueue[Any] = SimpleQueue()

    @property
    def alive(self) -> int:
        """How many threads there are."""
        return self._alive

    @property
    def is_short(self) -> bool:
        """Whether items wait because no thread is free."""
        return self._free < 0

    def set_limit(self, limit: int) -> None:
        """Have at most this many threads, from the next item on."""
        with self._lock:
            self._limit = max(1, limit)

    def start(self) -> None:
        """Do nothing: the first thread is made for the first item."""

    def put(self, item: Any) -> None:
        """Have `item` served."""
        with self._lock:
            number = self._count_new() if self._free <= 0 else 0
            if not number:
                self._free -= 1
        if not number:
            self._queue.put(item)
        elif not self._start(item, number):
            with self._lock:
                self._free -= 1
            self._queue.put(item)

    def step_aside(self) -> None:
        """Have one thread more until `step_back`: the calling one waits for somebody outside."""
        with self._lock:
            self._aside += 1
            self._left.notify_all()
            number = self._count_new() if self._free < 0 else 0
        if number:
            self._start(_NOTHING, number)

    def step_back(self) -> None:
        """Have one thread less: the calling one goes on."""
        with self._lock:
            self._aside -= 1

    def _count_new(self) -> int:
        """Return the number of a thread to be made, 0 if there may be none. The lock is held."""
        if not self._limit or self._alive >= self._limit + self._aside:
            return 0
        self._made += 1
        self._alive += 1
        return self._made

    def _start(self, item: Any, number: int) -> bool:
        try:
            start_thread(lambda: self._work(item), f"{self._name}-{number}")
        except RuntimeError:  # the system has no more; those that are there will come round
            with self._lock:
                self._alive -= 1
                self._left.notify_all()
            return False
        return True

    def stop(self, timeout: float | None = None) -> None:
        """Let each thread leave when it is done with what it does."""
        with self._lock:
            self._limit = 0
            leaving = self._alive
        for _ in range(leaving):
            self._queue.put(_LEAVE)

    def join(self, timeout: float) -> None:
        """Wait, after `stop`, until all have left that wait for nobody outside."""
        with self._lock:
            self._left.wait_for(lambda: self._alive <= self._aside, timeout)

    def _work(self, item: Any) -> None:
        while item is not _LEAVE:
            try:
                if item is not _NOTHING:
                    self._serve(item)
            except BaseException:
                _log.exception("a connection failed outside of its own error handling")
            with self._lock:
                most = self._limit + self._aside
                if self._limit and self._alive > most and self._free >= 0:
                    break
                self._free += 1
            item = self._queue.get()
        with self._lock:
            self._alive -= 1
            self._left.notify_all()
