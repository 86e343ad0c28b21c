"""The `timer` entrypoint: a method that is called again and again.

Threads that meet here: a managed thread waits for each tick and for the end of its worker, so that
no two workers of one timer run at once; the worker runs on the container's pool. The thread leaves
as soon as the container stops, and a tick that no worker has begun is dropped.
"""

import logging
import math
import threading
import time
from collections.abc import Callable
from typing import Any

from threadko.concurrency.slots import Line
from threadko.exceptions import ConfigurationError, ContainerStopped
from threadko.extensions import Entrypoint, ExcInfo, WorkerContext

__all__ = ["Grid", "Timer", "timer"]

_log = logging.getLogger(__name__)

# No thread can keep the first, and its clock counts in floats; nobody sees the end of the last.
_SHORTEST_SECONDS, _LONGEST_SECONDS = 0.000001, 1_000_000_000


class Grid:
    """When a timer ticks: at fixed distances from its beginning, however long each tick takes.

    Plain arithmetic, without a clock; for one thread.

    Args:
        interval: seconds between ticks.
        eager: whether the first tick is at the beginning, and not one interval later.
        beginning: what the clock shows.
    """

    def __init__(self, interval: float, eager: bool, beginning: float) -> None:
        self._interval = interval
        self._beginning = beginning
        self._next = 0 if eager else 1  # the number of the tick, counted from the beginning

    def advance(self, now: float) -> tuple[float, int]:
        """Return the seconds from `now` until the next tick, and how many were missed before it.

        One that is due already comes at once; of several the others are missed, so that a slow
        tick is not followed by a burst.
        """
        due = self._beginning + self._next * self._interval
        missed = 0
        if now > due:
            missed = math.floor((now - due) / self._interval)
            due += missed * self._interval
        self._next += missed + 1
        return max(due - now, 0.0), missed


class Timer(Entrypoint):
    """Calls a method every `interval` seconds; see `timer`.

    Every instance of a service has its own timer. An error in a tick is logged, and the next one
    comes in its time.

    Args:
        interval: seconds, from the beginning of one tick to that of the next. A tick that takes
            longer has the ticks that it missed skipped.
        eager: whether the first tick is at once.
        kwargs: `expected_exceptions` and `sensitive_arguments`.

    Raises:
        ConfigurationError: the interval is no number of seconds, or one beyond all sense.
    """

    clock: Callable[[], float] = staticmethod(time.monotonic)

    def __init__(self, interval: float, eager: bool = False, **kwargs: Any) -> None:
        is_number = isinstance(interval, (int, float)) and not isinstance(interval, bool)
        if not is_number or not _SHORTEST_SECONDS <= interval <= _LONGEST_SECONDS:
            raise ConfigurationError(
                f"the interval of a timer must be seconds, from {_SHORTEST_SECONDS} to"
                f" {_LONGEST_SECONDS}, not {interval!r}"
            )
        self.interval = interval
        self.eager = eager
        super().__init__(**kwargs)

    def setup(self) -> None:
        """Open a waiting line."""
        self._line: Line = self.container.open_line(f"timer {self.method_name}")

    def open(self) -> None:
        """Begin to count."""
        self.container.spawn_managed_thread(self._run, identifier=f"{self.method_name}-timer")

    def cancel(self) -> None:
        """Drop a tick that no worker has begun; the thread has seen that the container stops."""
        self._line.close()

    def _run(self) -> None:
        grid = Grid(self.interval, self.eager, self.clock())
        was_late = False
        while True:
            delay, missed = grid.advance(self.clock())
            if missed and not was_late:
                _log.warning(
                    "timer %s of %s missed %d ticks: a tick took longer than %s s",
                    self.method_name,
                    self.container.service_name,
                    missed,
                    self.interval,
                )
            was_late = missed > 0
            if self.container.stopping.wait(delay):
                return
            self.handle_timer_tick()

    def handle_timer_tick(self) -> None:
        """Run a worker, and return when it has ended or nobody is to wait for it any more."""
        ended = threading.Event()

        def work() -> None:
            try:
                self.container.run_worker(self, (), {}, handle_result=self.handle_result)
            finally:
                ended.set()

        try:
            self._line.put(work)
        except ContainerStopped:
            return
        with self.container.stopping.calling(ended.set):
            ended.wait()

    def handle_result(
        self, worker_ctx: WorkerContext, result: Any = None, exc_info: ExcInfo | None = None
    ) -> tuple[Any, ExcInfo | None]:
        """Return the outcome that the dependencies see."""
        return result, exc_info


timer = Timer.decorator
