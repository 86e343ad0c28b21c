"""What a test costs that runs two services and has one call the other: nameko's kit and ours.

Each runs its own pytest, and pytest itself says how long each test took from setup to teardown.
"""

import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from tests.benchmarks.processes import delete_queues
from tests.interop.peer import ROOT

__all__ = ["describe_kit", "measure_tests"]

_GOAL_MS = 100.0

_FRONT, _BACK = "bench_kit_front", "bench_kit_back"

# The same text for both, save one word and the fixture of the broker.
_TESTS = """
import pytest
from {framework} import config
from {framework}.rpc import ServiceRpc, rpc
from {framework}.testing.services import entrypoint_hook
from {framework}.testing.utils import get_container


class Front:
    name = {front!r}
    back = ServiceRpc({back!r})

    @rpc
    def call(self, value):
        return self.back.echo(value)


class Back:
    name = {back!r}

    @rpc
    def echo(self, value):
        return value


@pytest.fixture
def named_broker():
    with config.patch({{"AMQP_URI": {uri!r}}}):
        yield


@pytest.mark.parametrize("number", range({count}))
def test_call({broker}, runner_factory, number):
    runner = runner_factory(Front, Back)
    runner.start()
    with entrypoint_hook(get_container(runner, Front), "call") as call:
        assert call(number) == number
"""


def describe_kit(nameko_python: str, uri: str, count: int = 30) -> str:
    """Measure tests of nameko on RabbitMQ, and ours there and on the development broker."""
    nameko = [str(Path(nameko_python).with_name("nameko")), "test"]
    ours = [sys.executable, "-m", "pytest"]
    try:
        measured = _measure_all(nameko, ours, uri, count)
    finally:
        delete_queues(uri, [f"rpc-{_FRONT}", f"rpc-{_BACK}"])
    lines = [f"a test with two services and a call, the median of {count}:"]
    lines += [f"  {name}: {1000 * each:.0f} ms" for name, each in measured.items()]
    first, *_, last = measured.values()
    lines.append(f"  {first / last:.1f} times as quick; goal: under {_GOAL_MS:.0f} ms")
    return "\n".join(lines)


def _measure_all(
    nameko: Sequence[str], ours: Sequence[str], uri: str, count: int
) -> dict[str, float]:
    return {
        # Its own fixture needs the management API, for a vhost per test; this has none.
        "nameko on RabbitMQ, no fresh vhost": measure_tests(
            nameko, "nameko", "named_broker", uri, count
        ),
        "threadko on RabbitMQ, no fresh vhost": measure_tests(
            ours, "threadko", "named_broker", uri, count
        ),
        "threadko on the development broker, a fresh vhost": measure_tests(
            ours, "threadko", "rabbit_config", uri, count
        ),
    }


def measure_tests(
    command: Sequence[str], framework: str, broker: str, uri: str, count: int
) -> float:
    """Return the median of the seconds that the tests of a framework take, but for the first.

    Raises:
        RuntimeError: some of them failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        text = _TESTS.format(
            framework=framework, broker=broker, uri=uri, count=count + 1, front=_FRONT, back=_BACK
        )
        Path(folder, "test_bench.py").write_text(text, encoding="utf-8")
        options = ["-c", os.devnull, "--rootdir", folder, "-p", "no:cacheprovider", "-q"]
        done = subprocess.run(
            [*command, *options, "--junitxml", "report.xml", "test_bench.py"],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stdout}{done.stderr}")
        report = ET.parse(Path(folder, "report.xml"))
    seconds = [float(case.attrib["time"]) for case in report.iter("testcase")]
    return median(seconds[1:])  # the first imports, connects, starts the broker
