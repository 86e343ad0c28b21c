"""Each program in examples/ does what it shows."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import pika_channel
from tests.support.timing import TIMEOUT
from threadko.standalone.rpc import ServiceRpcClient

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"


SERVICES = (
    "contained_service",
    "embedded_service",
    "greeting_service",
    "orders",
    "prices",
    "service_x",
    "service_y",
)


@pytest.fixture(autouse=True)
def _no_queue_left(broker_uri):
    """Examples have fixed names, and their queues would stay."""
    yield
    with pika_channel(broker_uri) as channel:
        for name in SERVICES:
            channel.queue_delete(f"rpc-{name}")


@pytest.fixture
def load(monkeypatch):
    """Import an example as a user in that folder would; forgotten after the test."""
    known = set(sys.modules)
    monkeypatch.syspath_prepend(str(EXAMPLES))

    def load(name):
        __import__(name)
        return sys.modules[name]

    yield load
    for name in set(sys.modules) - known:
        if not name.startswith(("threadko", "tests")):
            del sys.modules[name]


def run_script(name, uri):
    return subprocess.run(
        [sys.executable, f"examples/{name}.py"],
        cwd=ROOT,
        env={**os.environ, "AMQP_URI": uri, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=2 * TIMEOUT,
    )


def test_helloworld_says_hello(load):
    assert load("helloworld").GreetingService().hello("Ada") == "Hello, Ada!"


def test_standalone_rpc_calls_helloworld(load, runner_factory, broker_uri):
    runner_factory(load("helloworld").GreetingService, config={"AMQP_URI": broker_uri}).start()
    result = run_script("standalone_rpc", broker_uri)
    assert result.stdout.splitlines() == ["Hello, Ada!", "Hello, Ben!", "Hello, Cleo!"]
    assert result.returncode == 0


def test_rpc_goes_from_service_to_service(load, runner_factory, amqp_config):
    module = load("rpc")
    runner_factory(module.ServiceX, module.ServiceY, config=amqp_config).start()
    with ServiceRpcClient("service_x", config=amqp_config, timeout=TIMEOUT) as client:
        assert client.remote_method("value") == "value-x-y"


@pytest.mark.parametrize(
    ("name", "output"), [("service_container", ["42"]), ("service_runner", ["11", "11"])]
)
def test_program_prints_the_answers_and_ends(name, output, broker_uri):
    result = run_script(name, broker_uri)
    assert result.stdout.splitlines() == output, result.stderr
    assert result.returncode == 0


def test_demo_shows_calls_and_a_clean_stop(broker_uri):
    result = run_script("demo", broker_uri)
    assert "greeting_service.hello('Ada') -> 'Hello, Ada!'" in result.stdout
    assert "service_x.remote_method('value') -> 'value-x-y'" in result.stdout
    assert "greeting_service.goodbye() raises MethodNotFound: goodbye" in result.stdout
    assert "100 calls at once: 100 right answers" in result.stdout
    assert result.stdout.splitlines()[-1] == "exit code 0"
    assert result.returncode == 0


def test_every_example_has_a_test():
    tested = Path(__file__).read_text(encoding="utf-8")
    missing = [path.stem for path in EXAMPLES.glob("*.py") if f'"{path.stem}"' not in tested]
    assert missing == []


def test_embedded_service_serves_threads_and_tells_of_its_end(broker_uri):
    result = run_script("embedded", broker_uri)
    lines = result.stdout.splitlines()
    assert lines == ["Hello, Ada!", "Hello, Ben!", "ended well"]
    assert (result.returncode, result.stderr) == (0, "")
