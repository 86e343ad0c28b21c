"""How exactly a timer ticks, a hundred times a second."""

import time
from statistics import median

from threadko.containers import ServiceContainer
from threadko.timer import timer

__all__ = ["describe_timer"]

_INTERVAL = 0.01


def describe_timer(seconds: float) -> str:
    """Run a timer for so long, and return one line on how late its ticks were."""
    ticks: list[float] = []

    class Ticking:
        name = "bench_timer"

        @timer(_INTERVAL)
        def tick(self) -> None:
            ticks.append(time.monotonic())

    container = ServiceContainer(Ticking, config={})
    container.start()
    time.sleep(seconds)
    container.stop()
    first = min(tick - number * _INTERVAL for number, tick in enumerate(ticks))
    late = sorted((tick - first) % _INTERVAL for tick in ticks)
    middle, worst = median(late), late[int(len(late) * 0.99)]
    return (
        f"timer at {1 / _INTERVAL:.0f} Hz: {len(ticks)} ticks in {seconds:g} s,"
        f" {1000 * middle:.2f} ms late in the middle, {1000 * worst:.2f} ms at the 99th percentile"
    )
