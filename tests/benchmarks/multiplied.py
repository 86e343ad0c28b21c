"""A service that computes in Python, in one process and in two."""

import os
import sys
import tempfile
import uuid
from pathlib import Path

from tests.benchmarks.processes import Service, delete_queues
from tests.benchmarks.workload import pipelined
from tests.interop.peer import ROOT
from threadko.standalone.rpc import ServiceRpcClient

__all__ = ["GOAL", "describe_multiplied"]

#: Two processes on two processors shall do so many times the work of one.
GOAL = 1.7

_COUNT = 400_000  # of additions in a call: so long that client and broker hardly matter
_WINDOW = 16
_WORKERS = 2
_GRACE_SECONDS = 60.0


def describe_multiplied(uri: str, seconds: float, rounds: int) -> str:
    """Measure one process and two in turn, and return one line on both."""
    rates: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(rounds):
        for processes, measured in rates.items():
            measured.append(_measure(uri, processes, 2 * seconds))
    one, two = max(rates[1]), max(rates[2])
    return (
        f"computing RPC: {one:,.1f}/s in one process, {two:,.1f}/s in two on"
        f" {os.cpu_count()} processors: {two / one:.2f} times, goal {GOAL:.2f}"
    )


def _measure(uri: str, processes: int, seconds: float) -> float:
    run = uuid.uuid4().hex[:8]
    name = f"bench_threadko_adder_{run}"
    command = [
        *(sys.executable, "-m", "threadko", "run", f"-dAMQP_URI={uri}"),
        *(f"-dmax_workers={_WORKERS}", "-dPREFETCH_COUNT=2", f"--processes={processes}"),
        "tests.benchmarks.sides.threadko_services:Adder",
    ]
    service = Service(f"rpc-{name}", command, {"BENCH_RUN": run, "PYTHONPATH": str(ROOT)})
    with tempfile.TemporaryDirectory() as folder:
        try:
            service.start(uri, Path(folder) / "log", consumers=processes)
            with ServiceRpcClient(name, uri=uri, timeout=_GRACE_SECONDS) as client:
                pipelined(lambda: client.add_up.call_async(_COUNT), seconds / 5, _WINDOW)
                counted = pipelined(lambda: client.add_up.call_async(_COUNT), seconds, _WINDOW)
        finally:
            service.stop()
            delete_queues(uri, [f"rpc-{name}"])
    return counted["calls"] / counted["elapsed"]


if __name__ == "__main__":
    print(describe_multiplied(os.environ["AMQP_URI"], 2.5, 3))
