"""What the broker takes away while we run: queues, exchanges, connections, permissions, vhosts.

The proxy counts the connections that are tried: a loop without a pause would make hundreds.
"""

import uuid

import pytest

from tests.faults.conftest import recording
from tests.support.amqp import (
    delete_exchange,
    delete_queue,
    has_queue,
    queue_consumers,
    queue_depth,
)
from tests.support.proxy import Proxy
from tests.support.timing import TIMEOUT, wait_until
from threadko.containers import ServiceContainer
from threadko.exceptions import (
    ReplyQueueExpiredWithPendingReplies,
    RpcTimeout,
    ThreadkoError,
    UnknownService,
)
from threadko.runners import run_services
from threadko.standalone.rpc import ClusterRpcClient

pytestmark = pytest.mark.long


@pytest.fixture(scope="session")
def broker_uri(node):
    return node.uri


@pytest.fixture
def config(amqp_config, proxy, broker_uri):
    """By way of the proxy, which counts connections."""
    return {**amqp_config, "AMQP_URI": proxy.uri_for(broker_uri)}


@pytest.fixture
def client_proxy(broker_uri):
    with Proxy.for_uri(broker_uri) as made:
        yield made


@pytest.fixture
def client(amqp_config, client_proxy, broker_uri):
    config = {**amqp_config, "AMQP_URI": client_proxy.uri_for(broker_uri)}
    with ClusterRpcClient(config=config, timeout=TIMEOUT * 2) as made:
        yield made


def texts(records):
    return [record.getMessage() for record in records]


def test_service_declares_its_queue_again_when_that_is_deleted(
    service_cls, name, gate, config, client, proxy, broker_uri
):
    with run_services(service_cls, config=config), recording("threadko") as records:
        for round_ in range(3):
            call = client[name].hold.call_async(round_)
            gate.wait_for(1)
            delete_queue(broker_uri, f"rpc-{name}")
            gate.open.set()
            assert call.result(TIMEOUT) == round_, "what ran is answered"
            wait_until(
                lambda: (
                    has_queue(broker_uri, f"rpc-{name}")
                    and queue_consumers(broker_uri, f"rpc-{name}") == 1
                )
            )
            assert client[name].echo(f"echo {round_}") == f"echo {round_}"
            gate.open.clear()
    assert set(gate.runs.values()) == {1}
    assert proxy.accepted == 1
    assert len(texts(records)) == 3
    assert all("is gone" in line for line in texts(records))


def test_service_and_client_restore_what_went_with_their_exchange(
    service_cls, name, gate, config, rpc_exchange, client, proxy, client_proxy, broker_uri
):
    with run_services(service_cls, config=config), recording("threadko") as records:
        held = client[name].hold.call_async("held")
        gate.wait_for(1)
        delete_exchange(broker_uri, rpc_exchange)
        gate.open.set()
        # The reply finds no exchange. The service makes it again and binds its queue; that the
        # caller's is bound no more it cannot know, and the caller does not learn of it yet.
        with pytest.raises(RpcTimeout):
            held.result(TIMEOUT / 4)
        delete_exchange(broker_uri, rpc_exchange)
        with pytest.raises(UnknownService):
            client[name].echo("first")
        assert held.cancel()
        assert not [line for line in texts(records) if "refused" in line]
    assert gate.runs == {"held": 1}
    assert queue_depth(broker_uri, f"rpc-{name}") == 0
    assert (proxy.accepted, client_proxy.accepted) == (1, 1)


def test_service_is_bound_again_when_a_reply_finds_no_exchange(
    service_cls, name, gate, config, amqp_config, rpc_exchange, client, proxy, broker_uri
):
    with run_services(service_cls, config=config):
        held = client[name].hold.call_async("held")
        gate.wait_for(1)
        delete_exchange(broker_uri, rpc_exchange)
        gate.open.set()
        with pytest.raises(RpcTimeout):
            held.result(TIMEOUT / 4)
        assert held.cancel()
        # Whoever comes now finds everything in its place.
        with ClusterRpcClient(config=amqp_config, timeout=TIMEOUT) as other:
            calls = [other[name].echo.call_async(number) for number in range(10)]
            assert [call.result(TIMEOUT) for call in calls] == list(range(10))
    assert proxy.accepted == 1


def test_replies_are_sent_when_the_exchange_is_deleted_and_made_again_by_others(
    service_cls, name, gate, config, rpc_exchange, client, proxy, client_proxy, broker_uri
):
    with run_services(service_cls, config=config):
        calls = [client[name].hold.call_async(number) for number in range(5)]
        gate.wait_for(5)
        delete_exchange(broker_uri, rpc_exchange)
        with pytest.raises(UnknownService):
            client[name].echo("returned")  # and the client's own queue is bound again
        gate.open.set()
        assert [call.result(TIMEOUT) for call in calls] == list(range(5))
    assert set(gate.runs.values()) == {1}
    assert (proxy.accepted, client_proxy.accepted) == (1, 1)


def reply_queue(node):
    """The one that somebody consumes from."""
    lines = node.control("list_queues", "name", "consumers").splitlines()
    (found,) = [line for line in lines if line.startswith("rpc.reply-") and line.endswith("\t1")]
    return found.split()[0]


def test_calls_that_wait_fail_when_their_reply_queue_is_deleted(
    service_cls, name, gate, config, client, client_proxy, broker_uri, node
):
    with run_services(service_cls, config=config), recording("threadko") as records:
        queue = reply_queue(node)
        for round_ in range(20):
            calls = [client[name].hold.call_async(f"{round_} {number}") for number in range(3)]
            gate.wait_for(3)
            delete_queue(broker_uri, queue)
            with pytest.raises(ReplyQueueExpiredWithPendingReplies):
                calls[0].result(TIMEOUT)
            # At once, when the new queue has hardly been asked for.
            assert client[name].echo(round_) == round_
            for call in calls[1:]:
                with pytest.raises(ReplyQueueExpiredWithPendingReplies):
                    call.result(TIMEOUT)
            gate.open.set()
            assert client[name].echo(f"next {round_}") == f"next {round_}"
            gate.open.clear()
    assert client_proxy.accepted == 1
    assert len(texts(records)) == 40
    assert set(gate.runs.values()) == {1}


def test_work_goes_on_when_all_connections_are_closed_by_force(
    service_cls, name, gate, config, client, proxy, client_proxy, broker_uri, node
):
    with run_services(service_cls, config=config), recording("threadko") as records:
        held = client[name].hold.call_async("held")
        gate.wait_for(1)
        node.control("close_all_connections", "maintenance")
        gate.wait_for(1)  # it comes again, since nobody has acknowledged it
        gate.open.set()
        assert held.result(TIMEOUT) == "held"
        assert client[name].echo("next") == "next"
    assert gate.runs == {"held": 2, "next": 1}
    assert proxy.accepted < 6
    assert client_proxy.accepted < 6
    assert any("maintenance" in line for line in texts(records)), "the broker's reason is told"
    assert len(texts(records)) < 12
    assert queue_depth(broker_uri, f"rpc-{name}") == 0


@pytest.fixture
def user(node, broker_uri):
    """A user and a vhost of the test's own: name, vhost and URI."""
    user, vhost = f"user-{uuid.uuid4().hex[:8]}", f"vhost-{uuid.uuid4().hex[:8]}"
    node.add_place(vhost, user, "a secret")
    address = broker_uri.rpartition("@")[2].rstrip("/")
    return user, vhost, f"amqp://{user}:a%20secret@{address}/{vhost}"


def count_attempts(proxy, seconds):
    """Connections tried in so many seconds."""
    before = proxy.accepted
    with pytest.raises(TimeoutError):
        proxy.wait_for(lambda: False, seconds)
    return proxy.accepted - before


@pytest.mark.parametrize("what", ["permission", "login"])
def test_service_waits_calmly_until_it_may_work_again(
    what, user, service_cls, name, gate, proxy, node
):
    gate.open.set()
    user_name, vhost, uri = user
    config = {"AMQP_URI": proxy.uri_for(uri), "rpc_exchange": "rpc"}
    direct = {"AMQP_URI": uri, "rpc_exchange": "rpc"}
    with recording("threadko") as records, run_services(service_cls, config=config):
        with ClusterRpcClient(config=direct, timeout=TIMEOUT) as client:
            assert client[name].echo("before") == "before"
        if what == "permission":
            node.control("set_permissions", "-p", vhost, user_name, "^$", "^$", "^$")
        else:
            node.control("change_password", user_name, "another secret")
        node.control("close_all_connections", "--vhost", vhost, "revoked")
        wait_until(lambda: any("lacks a permission" in t or "login" in t for t in texts(records)))
        assert count_attempts(proxy, 2) <= 8
        if what == "permission":
            node.control("set_permissions", "-p", vhost, user_name, ".*", ".*", ".*")
        else:
            node.control("change_password", user_name, "a secret")
        with ClusterRpcClient(config=direct, timeout=TIMEOUT) as client:
            wait_until(lambda: "connected" in "".join(texts(records)) or proxy.connections == 1)
            assert client[name].echo("after") == "after"
        assert "secret" not in "".join(texts(records))


def test_calls_fail_clearly_when_their_vhost_is_deleted(
    user, service_cls, name, gate, proxy, client_proxy, node
):
    _, vhost, uri = user
    config = {"AMQP_URI": proxy.uri_for(uri), "PUBLISH_TIMEOUT": 2, "SHUTDOWN_TIMEOUT": 2}
    container = ServiceContainer(service_cls, config=config)
    container.start()
    client_config = {**config, "AMQP_URI": client_proxy.uri_for(uri)}
    with recording("threadko") as records:
        with ClusterRpcClient(config=client_config, timeout=4) as client:
            held = client[name].hold.call_async("held")
            gate.wait_for(1)
            node.control("delete_vhost", vhost)
            with pytest.raises(ThreadkoError):
                held.result(TIMEOUT)
            with pytest.raises(ThreadkoError, match="nothing was sent"):
                client[name].echo("no vhost")
            assert count_attempts(proxy, 2) <= 8
            assert count_attempts(client_proxy, 2) <= 8
            assert any(f"vhost '{vhost}'" in line for line in texts(records))
        gate.open.set()
        container.stop()
    assert gate.runs == {"held": 1}
