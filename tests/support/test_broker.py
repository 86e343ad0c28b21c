import os
import subprocess
import sys
import threading

import pika
import pytest

from tests.support import broker as finder
from tests.support.broker import (
    NoBrokerError,
    OwnBroker,
    RabbitNode,
    alone,
    find_broker,
    find_rabbitmq,
    find_server,
    is_reachable,
)
from tests.support.timing import TIMEOUT, wait_until


@pytest.fixture
def nowhere():
    [port] = finder.find_free_ports(1)
    return f"amqp://guest:guest@127.0.0.1:{port}/"


@pytest.fixture(scope="module")
def node():
    server = find_server()
    if server is None:
        pytest.skip("needs rabbitmq-server (Debian: apt-get install rabbitmq-server)")
    with RabbitNode(server) as node:
        node.start()
        yield node


def test_broker_that_is_named_is_used(broker_uri, monkeypatch):
    monkeypatch.setenv("AMQP_URI", broker_uri)
    with find_broker() as found:
        assert found.uri == broker_uri
        assert not isinstance(found, RabbitNode)


def test_broker_that_is_named_and_absent_is_an_error(nowhere, monkeypatch):
    monkeypatch.setenv("AMQP_URI", nowhere)
    with pytest.raises(NoBrokerError, match="AMQP_URI"):
        find_broker()


def test_development_broker_is_started_when_none_is_named(monkeypatch):
    monkeypatch.delenv("AMQP_URI", raising=False)
    with find_broker() as found:
        assert isinstance(found, OwnBroker)
        assert is_reachable(found.uri)
    assert not is_reachable(found.uri)


@pytest.mark.rabbitmq
def test_rabbitmq_of_the_machine_is_used_when_none_is_named(node, monkeypatch):
    monkeypatch.delenv("AMQP_URI", raising=False)
    monkeypatch.setattr(finder, "DEFAULT_URI", node.uri)
    with find_rabbitmq() as found:
        assert found.uri == node.uri
        assert not isinstance(found, RabbitNode)


def test_development_broker_is_no_rabbitmq(monkeypatch):
    with OwnBroker() as own:
        monkeypatch.setenv("AMQP_URI", own.uri)
        monkeypatch.setattr(finder, "DEFAULT_URI", own.uri)
        monkeypatch.setattr(finder, "find_server", lambda: None)
        with pytest.raises(NoBrokerError):
            find_rabbitmq()


def test_missing_broker_is_one_line_that_says_how_to_get_one(nowhere, monkeypatch):
    monkeypatch.delenv("AMQP_URI", raising=False)
    monkeypatch.setattr(finder, "DEFAULT_URI", nowhere)
    monkeypatch.setattr(finder, "find_server", lambda: None)
    with pytest.raises(NoBrokerError, match="apt-get install rabbitmq-server") as caught:
        find_rabbitmq()
    assert "\n" not in str(caught.value)


def test_refused_login_is_not_reachable(broker_uri):
    host = broker_uri.rpartition("@")[2]
    assert not is_reachable(f"amqp://nobody:wrong@{host}")


def test_node_lets_us_in_when_it_is_started(node):
    assert is_reachable(node.uri)


def test_node_keeps_what_is_durable_when_killed_and_started(node):
    connection = pika.BlockingConnection(pika.URLParameters(node.uri))
    connection.channel().queue_declare("kept", durable=True)
    connection.close()
    node.kill()
    assert not is_reachable(node.uri)
    node.start()
    connection = pika.BlockingConnection(pika.URLParameters(node.uri))
    connection.channel().queue_declare("kept", passive=True)
    connection.close()


def test_node_answers_again_when_it_thaws(node):
    node.freeze()
    answered = threading.Event()

    def connect():
        if is_reachable(node.uri):
            answered.set()

    thread = threading.Thread(target=connect)
    thread.start()
    try:
        # Only what is frozen does not answer; this can fail, and cannot fail by chance.
        assert not answered.wait(0.5)
    finally:
        node.thaw()
    thread.join(TIMEOUT)
    wait_until(lambda: is_reachable(node.uri))


def test_node_is_controlled(node):
    node.control("add_vhost", "elsewhere")
    assert "elsewhere" in node.control("list_vhosts").split()
    with pytest.raises(RuntimeError, match="rabbitmqctl delete_vhost"):
        node.control("delete_vhost", "nowhere")


def test_node_gets_a_place_with_a_user_of_its_own(node):
    node.add_place("own", "somebody", "a secret")
    uri = node.uri.rstrip("/").replace("guest:guest", "somebody:a%20secret") + "/own"
    pika.BlockingConnection(pika.URLParameters(uri)).close()


@pytest.mark.rabbitmq
def test_node_takes_settings():
    server = find_server()
    if server is None:
        pytest.skip("needs rabbitmq-server (Debian: apt-get install rabbitmq-server)")
    with RabbitNode(server, {"consumer_timeout": 4321}) as node:
        node.start()
        answer = node.control("eval", "application:get_env(rabbit, consumer_timeout).")
        assert answer.strip() == "{ok,4321}"


@pytest.mark.rabbitmq
def test_node_ends_when_its_owner_is_killed():
    server = find_server()
    if server is None:
        pytest.skip("needs rabbitmq-server (Debian: apt-get install rabbitmq-server)")
    script = (
        "import os, signal\n"
        "from tests.support.broker import RabbitNode\n"
        f"node = RabbitNode({server!r})\n"
        "node.start()\n"
        "print(node.uri, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    # The guard is the last to hold our pipe: its end is the end of all.
    result = subprocess.run(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, timeout=8 * TIMEOUT
    )
    stopped = threading.Event()
    for _ in range(100):
        if not is_reachable(result.stdout.strip()):
            stopped.set()
            break
        stopped.wait(TIMEOUT / 100)
    assert stopped.is_set()


@pytest.mark.rabbitmq
def test_node_that_cannot_start_shows_its_log(tmp_path):
    server = tmp_path / "rabbitmq-server"
    server.write_text("#!/bin/sh\necho broken pieces\nexit 7\n", encoding="utf-8")
    server.chmod(0o755)
    if find_server() is None:
        pytest.skip("needs epmd (Debian: apt-get install rabbitmq-server)")
    with RabbitNode(os.fspath(server)) as node:
        with pytest.raises(RuntimeError, match=r"ended with 7(.|\n)*broken pieces"):
            node.start()


def test_broker_alone_is_another_development_broker():
    with OwnBroker() as shared:
        with alone(shared.uri) as uri:
            assert uri != shared.uri
            assert is_reachable(uri)
        assert not is_reachable(uri)
        assert is_reachable(shared.uri)
