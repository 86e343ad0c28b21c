"""nameko's services: an echo, and a service that calls it. Names come from ``BENCH_RUN``."""

import os
from typing import Any

from nameko.events import event_handler
from nameko.rpc import ServiceRpc, rpc

from tests.benchmarks.workload import Counter, pipelined, sequential

_RUN = os.environ["BENCH_RUN"]
_events = Counter()


class Echo:
    name = f"bench_nameko_echo_{_RUN}"

    @rpc
    def echo(self, value: Any) -> Any:
        return value

    @event_handler(f"bench_nameko_source_{_RUN}", "tick")
    def on_tick(self, number: int) -> None:
        _events.add()

    @rpc
    def wait_events(self, count: int) -> None:
        _events.wait(count)


class Middle:
    name = f"bench_nameko_middle_{_RUN}"
    target = ServiceRpc(Echo.name)

    @rpc
    def sequential(self, seconds: float) -> dict[str, float]:
        return sequential(lambda: self.target.echo("hello"), seconds)

    @rpc
    def pipelined(self, seconds: float, window: int) -> dict[str, float]:
        return pipelined(lambda: self.target.echo.call_async("hello"), seconds, window)
