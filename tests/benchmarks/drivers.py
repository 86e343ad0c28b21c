"""50 calls, each waiting 100 ms in MariaDB through mysqlclient: nameko and threadko in turn.

Both run as their users run them, with ten workers. One client calls both: theirs is one wire.
"""

import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from tests.benchmarks.processes import Service, delete_queues
from tests.benchmarks.waiting import MYSQL_URL, WAIT_SECONDS
from tests.interop.peer import ROOT
from threadko.standalone.rpc import ClusterRpcClient

__all__ = ["describe_drivers", "format_times", "why_not"]

CALLS = 50
WORKERS = 10
GOAL = 8.0
_CALL_SECONDS = 60.0


def why_not(pythons: Mapping[str, str]) -> str | None:
    """Return what is missing for the measurement, None if nothing is."""
    parts = urlsplit(MYSQL_URL)
    try:
        socket.create_connection((parts.hostname or "127.0.0.1", parts.port or 3306), 2).close()
    except OSError as error:
        return f"no MariaDB at MYSQL_URL ({error}): apt-get install mariadb-server"
    for side, python in pythons.items():
        command = [python, "-c", "import MySQLdb"]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            return f"no mysqlclient beside {side}: {python} -m pip install mysqlclient"
    return None


def describe_drivers(nameko_python: str, uri: str, rounds: int) -> str:
    """Measure both, and return times and ratio."""
    pythons = {"nameko": nameko_python, "threadko": sys.executable}
    missing = why_not(pythons)
    if missing is not None:
        return f"drivers in C: not measured, {missing}"
    run = uuid.uuid4().hex[:8]
    times: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder, ClusterRpcClient(uri=uri) as client:
        for side, python in pythons.items():
            with _running(side, python, uri, run, Path(folder)):
                wait = client[f"bench_{side}_waiting_{run}"].wait
                wait()
                for _ in range(rounds):
                    began = time.monotonic()
                    for call in [wait.call_async() for _ in range(CALLS)]:
                        call.result(_CALL_SECONDS)
                    times[side].append(time.monotonic() - began)
    return format_times(times)


@contextmanager
def _running(side: str, python: str, uri: str, run: str, folder: Path) -> Iterator[None]:
    nameko = [str(Path(python).with_name("nameko"))]
    program = nameko if side == "nameko" else [python, "-m", "threadko"]
    options = ["-d", f"AMQP_URI={uri}", "-d", f"max_workers={WORKERS}"]
    queue = f"rpc-bench_{side}_waiting_{run}"
    environment = {"BENCH_RUN": run, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    command = [*program, "run", *options, f"tests.benchmarks.sides.{side}_drivers"]
    service = Service(queue, command, environment)
    try:
        service.start(uri, folder / f"{side}.log")
        yield
    finally:
        service.stop()
        delete_queues(uri, [queue])


def format_times(times: Mapping[str, list[float]]) -> str:
    """Return a text of the best times of both sides, and how many times faster ours is."""
    best = {side: min(seconds) for side, seconds in times.items()}
    wait = f"{1000 * WAIT_SECONDS:g} ms in MariaDB through mysqlclient"
    lines = [f"{CALLS} calls, each waiting {wait}, {WORKERS} workers:"]
    lines += [f"  {side}: {seconds:.2f} s" for side, seconds in best.items()]
    lines.append(f"  {best['nameko'] / best['threadko']:.1f} times faster, goal {GOAL:g}")
    return "\n".join(lines)
