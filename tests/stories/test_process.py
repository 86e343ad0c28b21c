"""A service in a process of its own: what it leaves alone, how it stops, how it fails."""

import signal
import time

import pytest

from tests.stories.process import Process
from tests.support.amqp import expect_message, queue_depth
from tests.support.timing import TIMEOUT, wait_until

SERVICE = """
import sys
import threading

from threadko.rpc import rpc

released = threading.Event()


def listen():
    sys.stdin.readline()
    released.set()


threading.Thread(target=listen, daemon=True).start()


class Service:
    name = {name!r}

    @rpc
    def echo(self, value):
        return value

    @rpc
    def hold(self, number):
        sys.stdout.write(f"begun {{number}}\\n")  # one write, or lines of threads would mix
        sys.stdout.flush()
        released.wait()
        return number
"""

UNTOUCHED = """
import importlib
import sys

MODULES = "socket threading time queue select selectors ssl os signal subprocess _thread".split()


def fingerprint():
    return {
        (name, key): id(value)
        for name in MODULES
        for key, value in vars(importlib.import_module(name)).items()
        if callable(value) and not key.startswith("__")
    } | {
        (name, cls.__name__, key): id(value)
        for name in MODULES
        for cls in vars(importlib.import_module(name)).values()
        if isinstance(cls, type) and cls.__module__.lstrip("_") == name.lstrip("_")
        for key, value in vars(cls).items()
        if callable(value)
    }


before = fingerprint()

from threadko.rpc import rpc
from threadko.runners import run_services
from threadko.standalone.rpc import ClusterRpcClient

CONFIG = {config!r}


class Service:
    name = {name!r}

    @rpc
    def echo(self, value):
        return value


with run_services(Service, config=CONFIG):
    with ClusterRpcClient(config=CONFIG, timeout={timeout}) as client:
        assert client[Service.name].echo(1) == 1
        during = fingerprint()
after = fingerprint()

changed = sorted(key for key in before if not before[key] == during[key] == after[key])
print("compared", len(before))
print("changed", changed)
print("found", [name for name in ("eventlet", "gevent", "greenlet") if name in sys.modules])
"""


def test_nothing_is_patched(tmp_path, amqp_config, name):
    source = UNTOUCHED.replace("{config!r}", repr(amqp_config)).replace("{name!r}", repr(name))
    (tmp_path / "untouched.py").write_text(source.replace("{timeout}", str(TIMEOUT)))
    with Process("untouched.py", cwd=tmp_path) as process:
        assert process.wait() == 0, process
        compared = int(process.stdout[0].split()[1])
        assert compared > 500
        assert process.stdout[1:] == ["changed []", "found []"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_calls_that_run_are_answered_when_a_signal_stops_the_service(run, name, client, number):
    process = run(SERVICE.format(name=name))
    process.wait_for("services ready", "stderr")
    calls = [client[name].hold.call_async(n) for n in range(10)]
    for _ in calls:
        process.wait_for("begun")
    process.send_signal(number)
    process.wait_for("stopping", "stderr")
    assert not any(call.done() for call in calls)
    process.tell("go on")
    assert [call.result(TIMEOUT) for call in calls] == list(range(10))
    assert process.wait() == 0, process
    assert not any("Traceback" in line for line in process.stderr), process


def test_what_was_begun_is_answered_once_and_the_rest_stays_in_the_queue(
    run, name, broker_uri, raw_caller
):
    process = run(SERVICE.format(name=name), max_workers=10, PREFETCH_COUNT=20)
    process.wait_for("services ready", "stderr")
    ids = [
        raw_caller.send(f"{name}.hold", {"args": [n], "kwargs": {}}) for n in range(25)
    ]  # 10 run, 10 are prefetched, 5 wait in the queue
    for _ in range(10):
        process.wait_for("begun")
    process.send_signal(signal.SIGTERM)
    # What was prefetched comes back, and nobody else takes it: the doors are closed.
    left = [expect_message(broker_uri, f"rpc-{name}") for _ in range(15)]
    assert sorted(message.properties.correlation_id for message in left) == sorted(ids[10:])
    process.tell("go on")
    assert process.wait() == 0, process
    replies = []
    while (reply := raw_caller.left()) is not None:
        replies.append(reply.properties.correlation_id)
    assert sorted(replies) == sorted(ids[:10])
    assert queue_depth(broker_uri, f"rpc-{name}") == 0
    assert sum("begun" in line for line in process.stdout) == 10


def test_worker_that_hangs_is_left_and_its_request_goes_back(run, name, broker_uri, raw_caller):
    process = run(SERVICE.format(name=name), SHUTDOWN_TIMEOUT=0.2)
    process.wait_for("services ready", "stderr")
    raw_caller.send(f"{name}.hold", {"args": [1], "kwargs": {}})
    process.wait_for("begun")
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 4, process
    assert any("released.wait()" in line for line in process.stderr), process
    wait_until(lambda: queue_depth(broker_uri, f"rpc-{name}") == 1)
    assert raw_caller.left() is None


def test_second_signal_ends_the_grace_and_loses_nothing(run, name, broker_uri, raw_caller):
    process = run(SERVICE.format(name=name))
    process.wait_for("services ready", "stderr")
    raw_caller.send(f"{name}.hold", {"args": [1], "kwargs": {}})
    process.wait_for("begun")
    process.send_signal(signal.SIGTERM)
    process.wait_for("stopping", "stderr")
    process.send_signal(signal.SIGTERM)
    assert process.wait() != 0
    wait_until(lambda: queue_depth(broker_uri, f"rpc-{name}") == 1)
    assert raw_caller.left() is None


DEAF = """
import sys
import threading

from threadko.extensions import DependencyProvider
from threadko.rpc import rpc


class Deaf(DependencyProvider):
    def {hook}(self):
        sys.stdout.write("begun {hook}\\n")
        sys.stdout.flush()
        threading.Event().wait()


class Service:
    name = {name!r}
    deaf = Deaf()

    @rpc
    def echo(self, value):
        return value
"""


@pytest.mark.parametrize("hook", ["setup", "start", "ready", "open"])
def test_second_signal_ends_a_start_that_hangs(run, name, hook):
    process = run(DEAF.format(name=name, hook=hook))
    process.wait_for(f"begun {hook}")
    process.send_signal(signal.SIGTERM)
    process.wait_for("stopping", "stderr")
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 130, process


@pytest.mark.parametrize("hook", ["cancel", "stop"])
def test_second_signal_ends_a_stop_that_hangs(run, name, hook):
    process = run(DEAF.format(name=name, hook=hook))
    process.wait_for("services ready", "stderr")
    process.send_signal(signal.SIGTERM)
    process.wait_for(f"begun {hook}")
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 130, process


@pytest.mark.parametrize("hook", ["cancel", "stop"])
def test_stop_that_hangs_ends_by_its_deadline_with_a_code_of_its_own(run, name, hook):
    process = run(DEAF.format(name=name, hook=hook), SHUTDOWN_TIMEOUT=1)
    process.wait_for("services ready", "stderr")
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 4, process
    assert any("threading.Event().wait()" in line for line in process.stderr), process


def test_third_signal_ends_a_kill_that_hangs(run, name):
    source = DEAF.format(name=name, hook="cancel")
    process = run(source.replace("class Service:", "Deaf.kill = Deaf.cancel\n\n\nclass Service:"))
    process.wait_for("services ready", "stderr")
    for _ in range(2):
        process.send_signal(signal.SIGTERM)
        process.wait_for("begun cancel")
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 130, process


def test_second_signal_ends_a_start_that_waits_for_its_broker(run, name, proxy, broker_uri):
    proxy.refuse()
    process = run(SERVICE.format(name=name), AMQP_URI=proxy.uri_for(broker_uri))
    process.wait_for("cannot connect", "stderr")
    for _ in range(3):
        process.send_signal(signal.SIGINT)
    # The last may come when all is done and the interpreter ends.
    assert process.wait() in (0, 130, -signal.SIGINT), process


def test_start_that_waits_for_its_broker_ends_when_it_is_stopped(run, name, proxy, broker_uri):
    proxy.refuse()
    process = run(SERVICE.format(name=name), AMQP_URI=proxy.uri_for(broker_uri))
    process.wait_for("cannot connect", "stderr")
    process.send_signal(signal.SIGTERM)
    begun = time.monotonic()
    assert process.wait() == 0, process
    assert time.monotonic() - begun < TIMEOUT / 4
    assert not any("Traceback" in line for line in process.stderr), process


def test_start_ends_when_it_is_stopped_before_the_broker_says_anything(
    run, name, proxy, broker_uri
):
    proxy.hole()
    process = run(SERVICE.format(name=name), AMQP_URI=proxy.uri_for(broker_uri))
    proxy.wait_for(lambda: proxy.swallowed["up"] > 0)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 0, process


def test_service_runs_when_its_broker_comes_late(run, name, proxy, broker_uri, client):
    proxy.refuse()
    process = run(SERVICE.format(name=name), AMQP_URI=proxy.uri_for(broker_uri))
    process.wait_for("cannot connect", "stderr")
    proxy.accept()
    process.wait_for("services ready", "stderr")
    assert client[name].echo(1) == 1
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 0, process


def test_wrong_password_is_said_in_one_line(run, name, broker_uri):
    bad = broker_uri.replace("guest:guest@", "guest:not-this-one@")
    process = run(SERVICE.format(name=name), AMQP_URI=bad)
    assert process.wait() == 3, process
    assert process.stdout == []
    said = [line for line in process.stderr if " INFO " not in line]
    assert len(said) == 1, process
    assert "refused" in said[0].lower()
    assert not any("not-this-one" in line for line in process.stderr)


@pytest.mark.long
@pytest.mark.parametrize("call", ["sleep", "usleep"])
def test_worker_that_blocks_for_three_heartbeats_keeps_its_connection(
    run, name, proxy, broker_uri, client, call
):
    blocking = {
        "sleep": "import time\nblock = lambda: time.sleep(3.5)",
        "usleep": (
            "import ctypes\nlibc = ctypes.CDLL(None)\n"
            "block = lambda: [libc.usleep(700_000) for _ in range(5)]"
        ),
    }[call]
    source = f"""
{blocking}
from threadko.rpc import rpc

class Service:
    name = {name!r}

    @rpc
    def block(self):
        print("begun", flush=True)
        block()
        return "done"
"""
    process = run(source, AMQP_URI=proxy.uri_for(broker_uri), HEARTBEAT=1)
    process.wait_for("services ready", "stderr")
    assert client[name].block() == "done"
    assert (proxy.accepted, proxy.connections) == (1, 1)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 0, process
    assert process.stdout == ["begun"]
    assert queue_depth(broker_uri, f"rpc-{name}") == 0
