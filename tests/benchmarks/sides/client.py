"""The standalone client of nameko or threadko: ``client.py PACKAGE AMQP_URI``.

Their clients have one face, so one text serves both. Each line asks for one measurement.
"""

import os
import sys
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from tests.benchmarks.workload import dispatched, pipelined, sequential
from tests.interop.lines import serve, tell

#: Added to what a measurement takes, before a call in it counts as lost.
_GRACE_SECONDS = 60.0


def main(package: str, uri: str) -> None:
    """Connect, tell that the client is ready, and measure what is asked until input ends."""
    run = os.environ["BENCH_RUN"]
    client_class: Any = import_module(f"{package}.standalone.rpc").ClusterRpcClient
    dispatch: Any = import_module(f"{package}.standalone.events").event_dispatcher(uri=uri)
    source = f"bench_{package}_source_{run}"
    with client_class(uri=uri, timeout=_GRACE_SECONDS) as cluster:
        echo = cluster[f"bench_{package}_echo_{run}"]
        middle = cluster[f"bench_{package}_middle_{run}"]

        def measure(request: dict[str, Any]) -> dict[str, Any]:
            seconds, window = request["seconds"], request["window"]
            workload = request["workload"]
            if workload == "sequential":
                return sequential(lambda: echo.echo("hello"), seconds)
            if workload == "in flight":
                return pipelined(lambda: echo.echo.call_async("hello"), seconds, window)
            if workload == "service to service":
                return dict(middle.sequential(seconds))
            if workload == "service to service, in flight":
                return dict(middle.pipelined(seconds, window))
            if workload == "in flight, computing":
                computing = echo.compute.call_async()
                counted = pipelined(lambda: echo.echo.call_async("hello"), seconds, window)
                echo.release()
                computing.result()
                return counted
            if workload in ("events", "events, 8 threads"):
                return dispatched(
                    lambda number: dispatch(source, "tick", number),
                    echo.wait_events,
                    seconds,
                    8 if workload.endswith("threads") else 1,
                )
            raise ValueError(f"there is no workload {workload!r}")

        tell({"ready": True, "version": _version(package)})
        serve(measure)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # run from a checkout that was not installed
        return "checkout"


if __name__ == "__main__":
    main(*sys.argv[1:])
