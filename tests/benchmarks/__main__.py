"""``python -m tests.benchmarks``: measure nameko, a bare pika loop and threadko in turn.

Each service and each client has a process of its own, and all stay up from the first round to
the last, idle while another is measured. Within a round the sides take turns, so that a machine
that slows down slows all of them. Nothing is asserted: the goals are printed beside the figures.
"""

import os
import platform
import sys
import tempfile
import uuid
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TextIO

import click

from tests.benchmarks.brokers import describe_brokers
from tests.benchmarks.drivers import describe_drivers
from tests.benchmarks.kit import describe_kit
from tests.benchmarks.multiplied import describe_multiplied
from tests.benchmarks.processes import Service, cpu_seconds, delete_queues, resident_mib
from tests.benchmarks.report import Sample, format_rates, format_ratios
from tests.benchmarks.timers import describe_timer
from tests.benchmarks.web import describe_web
from tests.interop.peer import ROOT, Peer

WORKLOADS: Mapping[str, Sequence[str]] = {
    "sequential": ("nameko", "bare pika", "threadko"),
    "in flight": ("nameko", "bare pika", "threadko"),
    "service to service": ("nameko", "threadko"),
    "service to service, in flight": ("nameko", "threadko"),
    # An eventlet service that computes answers nobody: there is no rate to compare with.
    "in flight, computing": ("bare pika", "threadko"),
    "events": ("nameko", "bare pika", "threadko"),
    # nameko's dispatcher is not for threads, and its own rate is that of one.
    "events, 8 threads": ("threadko",),
}
SIDES = ("nameko", "bare pika", "threadko")

#: What a client may take to answer, beyond the seconds that it measures.
_GRACE_SECONDS = 90.0
_WARM_UP_SECONDS = 0.5

_SERVICES = "tests.benchmarks.sides"


def service_commands(side: str, python: str, uri: str, run: str) -> list[tuple[str, list[str]]]:
    """Return the queue and the command of each service of a side."""
    if side == "bare pika":
        module = f"{_SERVICES}.bare_pika"
        return [(f"rpc-bench_bare_echo_{run}", [python, "-m", module, "server", uri])]
    if side == "nameko":
        # Not `-m nameko`, which it has not; its script stands beside its Python.
        program = [str(Path(python).with_name("nameko"))]
    else:
        program = [python, "-m", "threadko"]
    return [
        (
            f"rpc-bench_{side}_{name.lower()}_{run}",
            [*program, "run", "-d", f"AMQP_URI={uri}", f"{_SERVICES}.{side}_services:{name}"],
        )
        for name in ("Echo", "Middle")
    ]


class Side:
    """One side's services and client."""

    def __init__(self, name: str, python: str, uri: str, run: str) -> None:
        self.name = name
        self._python = python
        self._uri = uri
        self._run = run
        self._environment = {
            "BENCH_RUN": run,
            "PYTHONPATH": str(ROOT),
            "PYTHONWARNINGS": "ignore",
        }
        self.services = [
            Service(queue, command, self._environment)
            for queue, command in service_commands(name, python, uri, run)
        ]
        self.client: Peer | None = None

    def start(self, folder: Path) -> None:
        """Start the services, then the client."""
        for service in self.services:
            service.start(self._uri, folder / f"{service.queue}.log")
        if self.name == "bare pika":
            arguments = [f"{_SERVICES}.bare_pika", "client", self._uri]
        else:
            arguments = [f"{_SERVICES}.client", self.name, self._uri]
        self.client = Peer(
            self._python, *arguments, environment=self._environment, timeout=_GRACE_SECONDS
        )

    def stop(self) -> None:
        """End the client, then the services, and delete their queues."""
        if self.client is not None:
            self.client.close()
        for service in self.services:
            service.stop()
        queues = [service.queue for service in self.services]
        own = f"bench_{self.name}_"
        source, echo = f"{own}source_{self._run}", f"{own}echo_{self._run}"
        delete_queues(
            self._uri, [*queues, f"evt-{source}-tick--{echo}.on_tick"], f"{source}.events"
        )

    def measure(self, workload: str, seconds: float, window: int) -> Sample:
        """Run one workload for so many seconds."""
        assert self.client is not None
        pids = [self.client.pid, *(service.pid for service in self.services)]
        before = cpu_seconds(pids)
        counted = self.client.ask(workload=workload, seconds=seconds, window=window)
        after = cpu_seconds(pids)
        cpu = None if before is None or after is None else after - before
        return Sample(counted["calls"], counted["elapsed"], cpu)


@click.command()
@click.option("--rounds", default=3, show_default=True, help="How often each side has its turn.")
@click.option("--seconds", default=2.5, show_default=True, help="How long one measurement takes.")
@click.option("--window", default=100, show_default=True, help="Calls in flight at once.")
@click.option("--side", "sides", multiple=True, type=click.Choice(SIDES), help="Only this side.")
@click.option(
    "--workload", "workloads", multiple=True, type=click.Choice(list(WORKLOADS)), help="Only this."
)
@click.option("--report", type=click.File("w", lazy=True), help="Write the findings here too.")
def main(
    rounds: int,
    seconds: float,
    window: int,
    sides: Sequence[str],
    workloads: Sequence[str],
    report: TextIO | None,
) -> None:
    """Measure RPC over the RabbitMQ at AMQP_URI and print rates, CPU per call and ratios."""

    def tell(*texts: str) -> None:
        for text in texts:
            click.echo(text)
            if report is not None:
                click.echo(text, file=report)

    uri = os.environ.get("AMQP_URI", "amqp://guest:guest@localhost:5672")
    nameko_python = os.environ.get("NAMEKO3_PYTHON")
    sides = sides or SIDES
    workloads = workloads or list(WORKLOADS)
    if "nameko" in sides and not nameko_python:
        click.echo("NAMEKO3_PYTHON names no Python with nameko: use `make bench`.", err=True)
        sys.exit(3)
    pythons = {"nameko": nameko_python or "", "bare pika": sys.executable}
    run = uuid.uuid4().hex[:8]
    running = {name: Side(name, pythons.get(name, sys.executable), uri, run) for name in sides}
    memory: dict[str, float | None] = {}
    results: dict[tuple[str, str], list[Sample]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        for name, side in running.items():
            stack.callback(side.stop)
            side.start(Path(folder))
            memory[name] = resident_mib(side.services[0].pid)
        tell(machine(running))
        for workload in workloads:
            turns = [name for name in WORKLOADS[workload] if name in running]
            for name in turns:
                running[name].measure(workload, _WARM_UP_SECONDS, window)
            for number in range(1, rounds + 1):
                for name in turns:
                    sample = running[name].measure(workload, seconds, window)
                    results[workload, name].append(sample)
                    click.echo(f"  {workload}, round {number}, {name}: {sample.rate:,.0f}/s")
    tell(f"\nBest of {rounds} rounds of {seconds:g} s; CPU of client and services per call.\n")
    tell(format_rates(results, memory, workloads, sides))
    tell("", format_ratios(results, memory))
    tell("", describe_timer(seconds))
    tell("", describe_brokers(uri, seconds))
    tell("", describe_multiplied(uri, seconds, rounds))
    if nameko_python:
        tell("", describe_web(nameko_python, seconds, rounds))
        tell("", describe_drivers(nameko_python, uri, rounds))
        tell("", describe_kit(nameko_python, uri))


def machine(running: Mapping[str, Side]) -> str:
    """Return one line on what is measured, and where."""
    parts = [f"Python {platform.python_version()}", f"{os.cpu_count()} processors"]
    for name, side in running.items():
        greeting = side.client.greeting if side.client else {}
        parts.append(f"{name.removeprefix('bare ')} {greeting.get('version', 'unknown')}")
        if "broker" in greeting:
            parts.append(f"RabbitMQ {greeting['broker']}")
    return ", ".join(parts)


if __name__ == "__main__":
    main()
