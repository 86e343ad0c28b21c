"""Deadlines of many things on one thread: a heap with cheap cancelling.

A ``TimerHeap`` belongs to one thread and is touched by no other. It holds no clock and waits for
nothing: its owner asks for ``next_at``, waits in its own way, and calls ``run_due``.
"""

import heapq
from collections.abc import Callable

__all__ = ["Timer", "TimerHeap"]

_COMPACT_FROM = 512  # cancelled timers that may lie in the heap before it is swept


class Timer:
    """One call to come at ``at`` (monotonic seconds), unless it is cancelled before."""

    __slots__ = ("at", "callback")

    def __init__(self, at: float, callback: Callable[[], None]) -> None:
        self.at = at
        self.callback: Callable[[], None] | None = callback

    def __lt__(self, other: "Timer") -> bool:
        return self.at < other.at


class TimerHeap:
    """Timers in the order of their time."""

    def __init__(self) -> None:
        self._heap: list[Timer] = []
        self._cancelled = 0

    def __len__(self) -> int:
        return len(self._heap) - self._cancelled

    @property
    def next_at(self) -> float | None:
        """When the earliest timer is due, or None if there is none."""
        while self._heap and self._heap[0].callback is None:
            heapq.heappop(self._heap)
            self._cancelled -= 1
        return self._heap[0].at if self._heap else None

    def add(self, at: float, callback: Callable[[], None]) -> Timer:
        """Call ``callback`` at ``at``; the timer returned can be given to ``cancel``."""
        timer = Timer(at, callback)
        heapq.heappush(self._heap, timer)
        return timer

    def cancel(self, timer: Timer) -> None:
        """Never call this timer; nothing happens if it ran or was cancelled already."""
        if timer.callback is None:
            return
        timer.callback = None
        self._cancelled += 1
        # Answered calls leave their timers behind for the whole of their timeout; without this
        # a busy client would hold every call of the last minute.
        if self._cancelled > _COMPACT_FROM and self._cancelled * 2 > len(self._heap):
            self._heap = [timer for timer in self._heap if timer.callback is not None]
            heapq.heapify(self._heap)
            self._cancelled = 0

    def run_due(self, now: float) -> None:
        """Run every timer that is due at ``now``, earliest first."""
        while (at := self.next_at) is not None and at <= now:
            timer = heapq.heappop(self._heap)
            callback, timer.callback = timer.callback, None
            assert callback is not None, "next_at leaves a live timer in front"
            callback()
