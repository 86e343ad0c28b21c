"""The loops whose rate is measured, the same for every side. Standard library only."""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

__all__ = ["SPIN_LIMIT_SECONDS", "Counter", "Spinner", "dispatched", "pipelined", "sequential"]

#: A service stops computing after so long even if nobody tells it to.
SPIN_LIMIT_SECONDS = 60.0


def sequential(call: Callable[[], Any], seconds: float) -> dict[str, float]:
    """Call again and again, one after the other; returns ``{"calls", "elapsed"}``."""
    calls = 0
    began = now = time.monotonic()
    while now - began < seconds:
        call()
        calls += 1
        now = time.monotonic()
    return {"calls": calls, "elapsed": now - began}


def pipelined(call_async: Callable[[], Any], seconds: float, window: int) -> dict[str, float]:
    """Keep ``window`` calls in flight and await the oldest; returns ``{"calls", "elapsed"}``.

    Every call that was begun is awaited, and its time counts.
    """
    calls = 0
    waiting: deque[Any] = deque()
    began = now = time.monotonic()
    while now - began < seconds:
        while len(waiting) < window:
            waiting.append(call_async())
        waiting.popleft().result()
        calls += 1
        now = time.monotonic()
    while waiting:
        waiting.popleft().result()
        calls += 1
    return {"calls": calls, "elapsed": time.monotonic() - began}


def dispatched(
    dispatch: Callable[[int], Any],
    wait_events: Callable[[int], Any],
    seconds: float,
    threads: int,
) -> dict[str, float]:
    """Dispatch events from each of the threads, and wait until all are handled.

    Returns ``{"calls", "elapsed"}``: events, and the time from the first to the last handled.
    """
    counts = [0] * threads
    began = time.monotonic()

    def run(index: int) -> None:
        while time.monotonic() - began < seconds:
            dispatch(counts[index])
            counts[index] += 1

    if threads == 1:
        run(0)
    else:
        running = [threading.Thread(target=run, args=(index,)) for index in range(threads)]
        for each in running:
            each.start()
        for each in running:
            each.join()
    wait_events(sum(counts))
    return {"calls": sum(counts), "elapsed": time.monotonic() - began}


class Counter:
    """Counts what is handled; any thread adds, one waits."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._count = 0

    def add(self) -> None:
        """Count one."""
        with self._changed:
            self._count += 1
            self._changed.notify_all()

    def wait(self, count: int) -> None:
        """Wait until so many were added since the last time."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._count >= count, 60):
                raise TimeoutError(f"{self._count} of {count} events were handled")
            self._count -= count


class Spinner:
    """Computes in pure Python, never waiting for anything, until it is told to stop.

    ``spin`` is for one thread at a time, ``release`` for any other.
    """

    def __init__(self) -> None:
        self._released = threading.Event()

    def spin(self, limit: float) -> int:
        """Compute until ``release``, or for ``limit`` seconds; returns the rounds that it took."""
        rounds = total = 0
        end = time.monotonic() + limit
        while not self._released.is_set() and time.monotonic() < end:
            for number in range(1_000):
                total = (total + number * number) % 1_000_003
            rounds += 1
        self._released.clear()
        return rounds

    def release(self) -> None:
        """Let ``spin`` return, or the next one if none runs."""
        self._released.set()
