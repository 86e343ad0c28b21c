"""threadko's services: an echo, and a service that calls it. Names come from ``BENCH_RUN``."""

import os
from typing import Any

from tests.benchmarks.workload import SPIN_LIMIT_SECONDS, Spinner, pipelined, sequential
from threadko.rpc import ServiceRpc, rpc

_RUN = os.environ["BENCH_RUN"]
_spinner = Spinner()


class Echo:
    name = f"bench_threadko_echo_{_RUN}"

    @rpc
    def echo(self, value: Any) -> Any:
        return value

    @rpc
    def compute(self) -> int:
        return _spinner.spin(SPIN_LIMIT_SECONDS)

    @rpc
    def release(self) -> None:
        _spinner.release()


class Middle:
    name = f"bench_threadko_middle_{_RUN}"
    target = ServiceRpc(Echo.name)

    @rpc
    def sequential(self, seconds: float) -> dict[str, float]:
        return sequential(lambda: self.target.echo("hello"), seconds)

    @rpc
    def pipelined(self, seconds: float, window: int) -> dict[str, float]:
        return pipelined(lambda: self.target.echo.call_async("hello"), seconds, window)
