"""`threadko run --dev`: the broker beside the services, in every kind of end."""

import logging
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.broker import find_free_ports, is_reachable
from tests.support.timing import TIMEOUT
from threadko.cli.dev import DevProcess, advising
from threadko.cli.options import UserError, own_command
from threadko.devbroker import DevBroker
from threadko.standalone.rpc import ServiceRpcClient

ROOT = Path(__file__).parents[2]

SERVICE = """
import threading
from threadko.rpc import rpc

class Service:
    name = "served"

    @rpc
    def hello(self, name):
        return f"Hello, {name}!"
"""


@pytest.fixture
def uri():
    [port] = find_free_ports(1)
    return f"amqp://ann:secret@127.0.0.1:{port}/shop"


@pytest.fixture
def run(tmp_path, uri):
    """Starts `threadko run`, and waits until it says that all is ready."""
    (tmp_path / "served.py").write_text(SERVICE)
    processes = []

    def run(*args, wait_for="services ready"):
        process = subprocess.Popen(
            [*own_command(), "run", "-d", f"AMQP_URI={uri}", *args, "served"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        log = []
        for line in process.stderr:
            log.append(line)
            if wait_for in line:
                break
        else:
            raise AssertionError("".join(log))
        return process

    yield run
    for process in processes:
        process.kill()
        process.communicate()


def wait_gone(uri):
    port = int(uri.rpartition(":")[2].partition("/")[0])
    end = time.monotonic() + TIMEOUT
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            return
        assert time.monotonic() < end, "the broker is still there"


def call(uri):
    with ServiceRpcClient("served", uri=uri, timeout=TIMEOUT) as client:
        return client.hello("Ada")


def test_broker_has_the_user_and_vhost_of_the_uri_and_ends_with_the_services(run, uri):
    process = run("--dev")
    assert call(uri) == "Hello, Ada!"
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0
    assert "lost the connection" not in err  # it outlives the drain
    wait_gone(uri)


@pytest.mark.long
@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 has no -P")
def test_modules_of_the_folder_do_not_stand_in_for_ours(run, uri, tmp_path):
    for name in ("random", "logging", "threadko"):
        (tmp_path / f"{name}.py").write_text("raise AssertionError('not this one')")
    run("--dev")
    assert call(uri) == "Hello, Ada!"


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGABRT])
def test_broker_ends_however_its_parent_does(run, uri, number):
    process = run("--dev")
    process.send_signal(number)
    process.communicate(timeout=TIMEOUT)
    wait_gone(uri)


@pytest.mark.long
def test_second_one_uses_the_broker_of_the_first(run, uri):
    first = run("--dev")
    run("--dev")
    assert {call(uri) for _ in range(4)} == {"Hello, Ada!"}
    first.send_signal(signal.SIGTERM)
    first.communicate(timeout=TIMEOUT)
    wait_gone(uri)


def test_ctrl_c_in_the_terminal_is_for_the_services(run, uri):
    process = run("--dev")
    listed = subprocess.run(
        ["ps", "-o", "pid=,sid=,args=", "--ppid", str(process.pid)], capture_output=True, text=True
    ).stdout.splitlines()
    children = {line.split("threadko ")[1].split()[0]: line.split()[:2] for line in listed}
    assert children.keys() == {"broker", "run"}
    # Sessions of their own, so no terminal's signal comes there.
    assert all(pid == session for pid, session in children.values())
    pid = int(children["broker"][0])
    os.kill(pid, signal.SIGINT)
    os.kill(pid, signal.SIGTERM)
    assert call(uri) == "Hello, Ada!"


def test_without_it_the_way_to_a_broker_is_said_once(run, uri):
    process = run(wait_for="threadko run --dev")
    for _ in range(3):
        assert "threadko run --dev" not in process.stderr.readline()
    with DevBroker(
        port=int(uri.rpartition(":")[2].partition("/")[0]),
        users={"ann": "secret"},
        vhosts=("shop",),
    ):
        while "services ready" not in process.stderr.readline():
            pass  # it keeps trying
        assert call(uri) == "Hello, Ada!"
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("uri", "text"),
    [
        ("amqp://example.org/", "on this machine only"),
        ("amqp://localhost:1/;amqp://localhost:2/", "on this machine only"),
        ("amqps://localhost:1/", "without TLS"),
    ],
)
def test_broker_elsewhere_is_one_line(uri, text):
    with pytest.raises(UserError, match=text):
        DevProcess(uri)


def test_broker_that_is_there_is_left_alone():
    with DevBroker() as there:
        with DevProcess(there.uri):
            assert is_reachable(there.uri)
        assert is_reachable(there.uri)


def test_advice_is_given_at_the_first_failure_only(caplog):
    logger = logging.getLogger("threadko.amqp.link")
    with advising("amqp://localhost:1/"):
        logger.warning("something else happened to x")
        assert "threadko run --dev" not in caplog.text
        logger.warning("cannot connect to x")
        logger.warning("cannot connect to x")
    logger.warning("cannot connect to x")
    assert caplog.text.count("threadko run --dev") == 1


def test_no_advice_is_given_where_a_connection_has_stood(caplog):
    logger = logging.getLogger("threadko.amqp.link")
    with advising(("amqp://a:1/", "amqp://b:1/")):
        logger.warning("link: cannot connect to amqp://a:1/: refused; trying again")
        logger.warning("link: lost the connection to amqp://b:1/: closed; trying again")
        logger.warning("link: cannot connect to amqp://b:1/: refused; trying again")
    assert "threadko run --dev" not in caplog.text


def test_node_that_is_named_twice_is_one(caplog):
    logger = logging.getLogger("threadko.amqp.link")
    with advising(("amqp://a:1/", "amqp://a:1/")):
        logger.warning("link: cannot connect to amqp://a:1/: refused; trying again")
    assert caplog.text.count("threadko run --dev") == 1


def test_advice_is_given_when_no_node_of_several_can_be_reached(caplog):
    logger = logging.getLogger("threadko.amqp.link")
    with advising(("amqp://a:1/", "amqp://b:1/")):
        for _ in range(2):
            logger.warning("link: cannot connect to amqp://a:1/: refused; trying again")
        assert "threadko run --dev" not in caplog.text
        logger.warning("link: cannot connect to amqp://b:1/: refused; trying again")
    assert caplog.text.count("threadko run --dev") == 1
