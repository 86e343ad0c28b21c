"""threadko's services: an echo, and a service that calls it. Names come from ``BENCH_RUN``."""

import os
from typing import Any

from tests.benchmarks.workload import SPIN_LIMIT_SECONDS, Counter, Spinner, pipelined, sequential
from threadko.events import event_handler
from threadko.rpc import ServiceRpc, rpc

_RUN = os.environ["BENCH_RUN"]
_spinner = Spinner()
_events = Counter()


class Echo:
    name = f"bench_threadko_echo_{_RUN}"

    @rpc
    def echo(self, value: Any) -> Any:
        return value

    @event_handler(f"bench_threadko_source_{_RUN}", "tick")
    def on_tick(self, number: int) -> None:
        _events.add()

    @rpc
    def wait_events(self, count: int) -> None:
        _events.wait(count)

    @rpc
    def compute(self) -> int:
        return _spinner.spin(SPIN_LIMIT_SECONDS)

    @rpc
    def release(self) -> None:
        _spinner.release()


class Adder:
    name = f"bench_threadko_adder_{_RUN}"

    @rpc
    def add_up(self, count: int) -> int:
        """Compute in Python alone, a millisecond for some 20,000."""
        total = 0
        for number in range(count):
            total = (total + number * number) % 1_000_003
        return total


class Middle:
    name = f"bench_threadko_middle_{_RUN}"
    target = ServiceRpc(Echo.name)

    @rpc
    def sequential(self, seconds: float) -> dict[str, float]:
        return sequential(lambda: self.target.echo("hello"), seconds)

    @rpc
    def pipelined(self, seconds: float, window: int) -> dict[str, float]:
        return pipelined(lambda: self.target.echo.call_async("hello"), seconds, window)
