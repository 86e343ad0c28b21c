"""A broker that is short of memory, and one that finds us too slow.

In an alarm RabbitMQ stops reading from each connection that publishes, acknowledgements included:
what is finished then is finished once, and is seen when the alarm is over.
"""

import threading
import time
from contextlib import contextmanager

import pytest

from tests.faults.conftest import recording
from tests.support.amqp import declare_queue, delete_queue, publish, queue_depth
from tests.support.timing import TIMEOUT
from threadko.amqp.message import Properties
from threadko.amqp.parameters import BrokerParameters
from threadko.amqp.publishing import PublishLink
from threadko.containers import ServiceContainer
from threadko.exceptions import PublishFailed, RpcTimeout
from threadko.messaging import Queue, consume
from threadko.runners import run_services
from threadko.standalone.rpc import ClusterRpcClient

pytestmark = pytest.mark.long


@pytest.fixture(scope="session")
def broker_uri(node):
    return node.uri


@pytest.fixture
def alarm(node):
    """Makes the broker short of memory within a block, or until `alarm.clear()`."""

    @contextmanager
    def alarm():
        node.control("set_vm_memory_high_watermark", "0.0000001")
        try:
            yield
        finally:
            node.control("set_vm_memory_high_watermark", "0.4")

    return alarm


@pytest.fixture
def config(amqp_config, proxy, broker_uri):
    """By way of the proxy, which counts connections."""
    return {**amqp_config, "AMQP_URI": proxy.uri_for(broker_uri)}


def test_what_is_finished_in_an_alarm_runs_once(
    alarm, service_cls, name, gate, config, amqp_config, proxy, broker_uri
):
    with run_services(service_cls, config=config):
        with ClusterRpcClient(config=amqp_config, timeout=TIMEOUT * 2) as client:
            calls = [client[name].hold.call_async(number) for number in range(10)]
            gate.wait_for(10)
            with alarm():
                gate.open.set()
                # The first reply blocks the connection: the callers wait, and nothing is lost.
                with pytest.raises(RpcTimeout):
                    calls[0].result(0.5)
            assert [call.result(TIMEOUT) for call in calls] == list(range(10))
            assert client[name].echo("next") == "next"
    assert gate.runs == {**dict.fromkeys(range(10), 1), "next": 1}
    assert queue_depth(broker_uri, f"rpc-{name}") == 0
    assert proxy.accepted == 1


def test_calls_fail_by_their_deadline_in_an_alarm_without_a_storm_of_resets(
    alarm, service_cls, name, gate, amqp_config, config, proxy
):
    rpc_client = ClusterRpcClient(config={**config, "PUBLISH_TIMEOUT": 2}, timeout=TIMEOUT)
    with run_services(service_cls, config=amqp_config), rpc_client as client:
        assert client[name].echo("before") == "before"
        with recording("threadko") as records, alarm():
            for round_ in range(3):
                begun = time.monotonic()
                calls = [client[name].echo.call_async(f"{round_}-{n}") for n in range(20)]
                for call in calls:
                    with pytest.raises(PublishFailed, match="memory"):
                        call.result(TIMEOUT)
                assert time.monotonic() - begun < 2 + TIMEOUT / 4
            # A caller's own deadline counts too.
            with pytest.raises(RpcTimeout):
                client[name].echo.call_async("impatient").result(0.1)
        assert proxy.accepted == 1
        assert records == []
        assert client[name].echo("after") == "after"
        assert rpc_client.pending == 0
    assert max(gate.runs.values()) == 1


def test_publishers_fail_by_their_deadline_in_an_alarm_and_what_they_sent_arrives_once(
    alarm, proxy, broker_uri
):
    queue = declare_queue(broker_uri, durable=True)
    publisher = PublishLink(
        BrokerParameters.from_uri(proxy.uri_for(broker_uri)),
        name="threadko-test-publisher-1",
        timeout=1,
    )
    publisher.start()
    try:
        publisher.publish(b"before", Properties(), routing_key=queue)
        with recording("threadko") as records, alarm():
            for _ in range(3):
                begun = time.monotonic()
                futures = [
                    publisher.publish_async(b"during", Properties(), routing_key=queue)
                    for _ in range(20)
                ]
                for future in futures:
                    with pytest.raises(PublishFailed, match="memory"):
                        future.result(TIMEOUT)
                assert time.monotonic() - begun < 1 + TIMEOUT / 4
        publisher.publish(b"after", Properties(), routing_key=queue, timeout=TIMEOUT)
        assert records == []
        assert proxy.accepted == 1
    finally:
        publisher.stop(TIMEOUT)
    # Their outcome was unknown: none may arrive twice.
    assert queue_depth(broker_uri, queue) <= 62
    delete_queue(broker_uri, queue)


def test_consumer_takes_and_acknowledges_messages_in_an_alarm(
    alarm, node, names, amqp_config, config, proxy, broker_uri
):
    queue_name = names.queue("consumed")
    declare_queue(broker_uri, queue_name, durable=True)
    for _ in range(20):
        publish(broker_uri, b'"body"', routing_key=queue_name, content_type="application/json")
    handled = threading.Semaphore(0)

    class Consumer:
        name = names.service("consumer")

        @consume(Queue(queue_name))
        def handle(self, body):
            handled.release()

    def left():
        """Messages that are ready, or have not been acknowledged."""
        lines = node.control("list_queues", "name", "messages").splitlines()
        (line,) = [line for line in lines if line.startswith(queue_name)]
        return int(line.split()[1])

    container = ServiceContainer(Consumer, config=config)
    with alarm():
        container.start()
        try:
            for _ in range(20):
                assert handled.acquire(timeout=TIMEOUT)
            end = time.monotonic() + TIMEOUT
            while left():
                assert time.monotonic() < end, "the broker reads no acknowledgement"
        finally:
            container.stop()
    assert proxy.accepted == 1


@pytest.mark.parametrize("finished", [True, False], ids=["with replies unread", "at work"])
def test_service_stops_within_its_deadline_in_an_alarm(
    alarm, service_cls, name, gate, config, amqp_config, broker_uri, finished
):
    container = ServiceContainer(service_cls, config={**config, "SHUTDOWN_TIMEOUT": 2})
    container.start()
    with ClusterRpcClient(config=amqp_config, timeout=TIMEOUT * 2) as client:
        calls = [client[name].hold.call_async(number) for number in range(3)]
        gate.wait_for(3)
        with alarm():
            if finished:
                gate.open.set()
                with pytest.raises(RpcTimeout):
                    calls[0].result(0.5)
            begun = time.monotonic()
            stopped = threading.Thread(target=container.stop)
            stopped.start()
            stopped.join(TIMEOUT)
            assert not stopped.is_alive()
            assert time.monotonic() - begun < 12
            gate.open.set()
        # The broker reads what it finds in the socket of a connection that has ended, the
        # acknowledgement of one request perhaps and the reply to it no more: such a caller is left
        # to its timeout. What it does not find acknowledged, the next instance does.
        with run_services(service_cls, config=amqp_config):
            if not finished:
                assert [call.result(TIMEOUT) for call in calls] == list(range(3))
            assert client[name].echo("next") == "next"
    assert queue_depth(broker_uri, f"rpc-{name}") == 0
    assert set(gate.runs) == {0, 1, 2, "next"}
    assert max(gate.runs.values()) <= 2


def test_client_stops_within_its_deadline_in_an_alarm(alarm, service_cls, name, amqp_config):
    with run_services(service_cls, config=amqp_config):
        client = ClusterRpcClient(config=amqp_config, timeout=TIMEOUT)
        services = client.start()
        assert services[name].echo(1) == 1
        with alarm():
            calls = [services[name].echo.call_async(number) for number in range(5)]
            begun = time.monotonic()
            client.stop()
            assert time.monotonic() - begun < 10
            for call in calls:
                assert call.done()


def test_links_outlive_an_alarm_that_is_longer_than_their_heartbeats(
    alarm, service_cls, name, gate, config, proxy
):
    config = {**config, "HEARTBEAT": 2}
    with run_services(service_cls, config=config):
        with ClusterRpcClient(config=config, timeout=TIMEOUT * 2) as client:
            call = client[name].hold.call_async("held")
            gate.wait_for(1)
            with alarm():
                gate.open.set()
                with pytest.raises(RpcTimeout):
                    call.result(8)
            assert call.result(TIMEOUT) == "held"
    assert gate.runs == {"held": 1}
    assert proxy.accepted == 2


@pytest.fixture
def impatient(node):
    """Lets the broker take back what is not acknowledged within three seconds."""
    default = node.control("eval", "application:get_env(rabbit, consumer_timeout).")

    def set_limits(timeout, interval):
        node.control(
            "eval",
            f"application:set_env(rabbit, consumer_timeout, {timeout}),"
            f"application:set_env(rabbit, channel_tick_interval, {interval}).",
        )

    set_limits(3000, 200)
    yield
    set_limits(default.strip().removeprefix("{ok,").removesuffix("}"), 60_000)


@pytest.mark.usefixtures("impatient")
def test_request_comes_again_when_its_worker_takes_longer_than_the_broker_waits(
    service_cls, name, gate, config, amqp_config, proxy, broker_uri
):
    with recording("threadko") as records:
        with run_services(service_cls, config=config):
            with ClusterRpcClient(config=amqp_config, timeout=TIMEOUT * 2) as client:
                slow = client[name].hold.call_async("slow")
                gate.wait_for(1)
                gate.wait_for(1)  # the broker has taken it back, and given it to us again
                assert client[name].echo("quick") == "quick"
                gate.open.set()
                assert slow.result(TIMEOUT) == "slow"
                assert client[name].echo("next") == "next"
    assert gate.runs["slow"] >= 2
    assert (gate.runs["quick"], gate.runs["next"]) == (1, 1)
    assert queue_depth(broker_uri, f"rpc-{name}") == 0
    assert proxy.accepted == 1, "the channel was closed, not the connection"
    told = [record.getMessage() for record in records]
    assert len(told) == gate.runs["slow"] - 1
    assert all("timed out" in line for line in told)
