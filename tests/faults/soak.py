"""`python -m tests.faults.soak [--calls COUNT]`: calls without a pause, in spite of everything.

Threads of one process call a service of two instances. Each of these three processes reaches the
broker through a proxy of its own, which breaks connections in the middle of what they carry; one
instance is stopped or killed every so often, the other one lives through it all. What the callers
and that instance hold is looked at when a tenth of the calls is done, and again after each further
tenth, while nothing is under way.

The exit code is 1 if a call was lost or failed, or if anything grew.
"""

import csv
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
import uuid
from array import array
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from tests.stories.process import Process
from tests.support.amqp import delete_exchange, delete_queue, queue_consumers, queue_depth
from tests.support.held import Held
from tests.support.ledger import Ledger
from tests.support.proxy import Proxy
from tests.support.timing import TIMEOUT

__all__ = ["Record", "Soak"]

CALLERS = 16
PARTS = 10

#: What memory may grow by from the end of the first tenth on.
GROWTH_PERCENT = 5.0

_DISARM = 1 << 60  # bytes that never come


@dataclass
class Record:
    """What a soak saw."""

    calls: int
    lost: int = 0
    failed: int = 0
    again: int = 0
    cuts: int = 0
    terms: int = 0
    kills: int = 0
    left: int = 0  # requests in the queue when all have been answered
    pending: int = 0
    seconds: float = 0.0
    held: dict[str, list[Held]] = field(default_factory=lambda: {"callers": [], "service": []})

    def growth(self, who: str) -> float:
        """Return by how many percent the memory of a process grew after the first tenth."""
        first, *_, last = self.held[who]
        return 100.0 * (last.kib - first.kib) / first.kib

    def faults(self) -> list[str]:
        """Return what should not have been."""
        found = [
            f"{name}: {count}"
            for name in ("lost", "failed", "left", "pending")
            if (count := getattr(self, name))
        ]
        for who, (first, *_, last) in self.held.items():
            if self.growth(who) > GROWTH_PERCENT:
                found.append(f"memory of the {who}: {first.kib} to {last.kib} KiB")
            if (first.threads, first.descriptors) != (last.threads, last.descriptors):
                found.append(f"the {who} held {first}, and then {last}")
        return found

    def lines(self) -> list[tuple[str, str]]:
        """Return what was seen, a line for each figure."""
        lines = [
            ("calls", f"{self.calls:,}"),
            ("calls a second, disturbances included", f"{self.calls / self.seconds:,.0f}"),
            ("connections cut", f"{self.cuts:,}"),
            ("an instance stopped by SIGTERM, by SIGKILL", f"{self.terms}, {self.kills}"),
            ("calls lost", f"{self.lost}"),
            ("calls failed", f"{self.failed}"),
            ("requests run again", f"{self.again:,}"),
            ("requests left in the queue, calls pending", f"{self.left}, {self.pending}"),
        ]
        at = "at 10 % and at 100 % of the calls"
        for who, (first, *_, last) in self.held.items():
            memory = f"{first.kib / 1024:.1f} and {last.kib / 1024:.1f} MiB"
            memory += f" ({self.growth(who):+.1f} %)"
            descriptors = f"{first.descriptors} and {last.descriptors}"
            lines += [
                (f"memory of the {who}, {at}", memory),
                (f"threads of the {who}, {at}", f"{first.threads} and {last.threads}"),
                (f"descriptors of the {who}, {at}", descriptors),
            ]
        return lines


class Soak:
    """One run, in a folder for what its processes write.

    Args:
        uri: the broker.
        calls: how many, 1,000 at least.
        say: is given a line of progress now and then.
    """

    def __init__(self, uri: str, folder: Path, calls: int, say: Callable[[str], object]) -> None:
        self._uri = uri
        self._folder = folder
        self._say = say
        self._name = f"soak-{uuid.uuid4().hex[:12]}"
        self._queue = f"rpc-{self._name}"
        self._ledger = Ledger(folder / "ledger")
        self._record = Record(calls)
        seed = random.randrange(1 << 32)
        say(f"seed {seed}")
        self._draw = random.Random(seed)
        self._cut_every = calls // max(40, calls // 2_500)
        self._restart_every = calls // max(5, calls // 10_000)
        self._burnt: list[threading.Event] = []

    def run(self) -> Record:
        """Make all calls, and return what was seen."""
        with ExitStack() as self._stack:
            self._stack.callback(self._clear)
            self._proxies = {
                role: self._stack.enter_context(Proxy.for_uri(self._uri))
                for role in ("callers", "steady", "shaken")
            }
            self._steady, self._shaken = self._start("steady"), self._start("shaken")
            self._callers = self._start_callers()
            begun = time.monotonic()
            for part in range(PARTS):
                self._make(part)
                self._look()
            self._record.seconds = time.monotonic() - begun
            self._end()
        self._count()
        return self._record

    def _config(self, role: str) -> dict[str, Any]:
        return {
            "AMQP_URI": self._proxies[role].uri_for(self._uri),
            "PUBLISH_TIMEOUT": 4 * TIMEOUT,
            "rpc_exchange": self._name,
        }

    def _start(self, role: str) -> Process:
        values = {
            **self._config(role),
            "STUCK_WARNING": 0,  # or a thread would come and go
            "soak_ledger": self._ledger.path,
            "soak_name": self._name,
        }
        defines = [part for key in values for part in ("-d", f"{key}={values[key]}")]
        arguments = ("-m", "threadko", "run", "tests.faults.soak_service", *defines)
        process = self._stack.enter_context(Process(*arguments, cwd=self._folder))
        process.wait_for("services ready", "stderr", 3 * TIMEOUT)
        return process

    def _start_callers(self) -> Process:
        order = {
            "calls": self._record.calls,
            "config": self._config("callers"),
            "parts": PARTS,
            "service": self._name,
            "tell_every": self._cut_every // 5,
            "threads": CALLERS,
            "timeout": 4 * TIMEOUT,
        }
        arguments = ("-m", "tests.faults.soak_callers", json.dumps(order))
        return self._stack.enter_context(Process(*arguments, cwd=self._folder))

    def _make(self, part: int) -> None:
        """Have the calls of a part made, and disturb them."""
        self._callers.tell(f"go on {part}")
        while True:
            word, *values = self._callers.wait_for("", timeout=6 * TIMEOUT).split(maxsplit=2)
            if word == "done":
                self._record.pending += int(values[1].removeprefix("pending "))
                return
            if word == "answered":
                self._disturb(int(values[0]))
            else:
                self._say(f"{word} {' '.join(values)}")
                self._record.lost += word == "lost"
                self._record.failed += word != "lost"

    def _disturb(self, count: int) -> None:
        if count % self._cut_every == 0:
            proxy = self._proxies[self._draw.choice(list(self._proxies))]
            direction, fault = (
                self._draw.choice(["up", "down"]),
                self._draw.choice(["cut", "reset"]),
            )
            self._burnt.append(proxy.arm(direction, self._draw.randrange(1, 5_000), fault))
        if count % self._restart_every == 0:
            self._restart()

    def _restart(self) -> None:
        number = signal.SIGTERM if self._record.terms <= self._record.kills else signal.SIGKILL
        self._shaken.send_signal(number)
        code = self._shaken.wait(3 * TIMEOUT)
        if code != (0 if number == signal.SIGTERM else -number):
            raise RuntimeError(f"ended by {code} after {number!r}: {self._shaken}")
        self._record.terms += number == signal.SIGTERM
        self._record.kills += number == signal.SIGKILL
        self._shaken = self._start("shaken")

    def _look(self) -> None:
        """See what processes hold, once all of them are connected and at rest."""
        for proxy in self._proxies.values():
            for direction in ("up", "down"):
                proxy.arm(direction, _DISARM, "cut")
        _wait_until(lambda: all(proxy.connections == 1 for proxy in self._proxies.values()))
        _wait_until(lambda: queue_consumers(self._uri, self._queue) == 2)
        _wait_until(lambda: queue_depth(self._uri, self._queue) == 0)
        held = self._record.held
        processes = {"callers": self._callers, "service": self._steady}
        for who, process in processes.items():
            before = held[who][:1]
            held[who].append(Held.by(process.pid))
            end = time.monotonic() + TIMEOUT
            # What is about to go may take a moment; what stays is a fault.
            while before and held[who][-1][1:] != before[0][1:] and time.monotonic() < end:
                _pause()
                held[who][-1] = Held.by(process.pid)
        texts = [f"the {who} {held[who][-1].kib / 1024:.1f} MiB" for who in processes]
        done = self._record.calls * len(held["callers"]) // PARTS
        self._say(f"{done:,} calls: {', '.join(texts)}")

    def _end(self) -> None:
        self._callers.tell("end")
        for process in (self._callers, self._steady, self._shaken):
            if process is not self._callers:
                process.send_signal(signal.SIGTERM)
            if process.wait(3 * TIMEOUT) != 0:
                raise RuntimeError(str(process))
        self._record.left = queue_depth(self._uri, self._queue)

    def _count(self) -> None:
        runs = array("L", bytes(array("L").itemsize * self._record.calls))
        with self._ledger.path.open() as lines:
            for line in lines:
                runs[int(line)] += 1
        # An answer without a run would be one that was made up.
        self._record.lost += runs.count(0)
        self._record.again = sum(runs) + runs.count(0) - len(runs)
        self._record.cuts = sum(event.is_set() for event in self._burnt)

    def _clear(self) -> None:
        delete_queue(self._uri, self._queue)
        delete_exchange(self._uri, self._name)


def _pause() -> None:
    threading.Event().wait(0.02)


def _wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 3 * TIMEOUT
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError("it does not come to rest")
        _pause()


@click.command()
@click.option("--calls", default=1_000_000, type=click.IntRange(min=1_000), show_default=True)
@click.option("--figures", type=click.Path(path_type=Path), help="Write the record there, as CSV.")
def main(calls: int, figures: Path | None) -> None:
    """Make calls without a pause while connections are cut and an instance restarts."""
    with tempfile.TemporaryDirectory(prefix="threadko-soak-") as folder:
        record = Soak(os.environ["AMQP_URI"], Path(folder), calls, click.echo).run()
    for what, seen in record.lines():
        click.echo(f"{what}: {seen}")
    if figures is not None:
        with figures.open("w", newline="", encoding="utf-8") as stream:
            rows = [("Soak", "Seen"), *record.lines()]
            csv.writer(stream, lineterminator="\n").writerows(rows)
    faults = record.faults()
    for fault in faults:
        click.echo(f"fault: {fault}", err=True)
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
