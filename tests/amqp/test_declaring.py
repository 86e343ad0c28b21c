"""Declaring while somebody waits for it, through the link that publishes."""

import threading

import pytest

from tests.conftest import pika_channel
from tests.containers.dummies import in_thread
from tests.support.proxy import Proxy
from tests.support.timing import TIMEOUT
from threadko.amqp import Exchange, Queue
from threadko.amqp.message import Properties
from threadko.amqp.parameters import BrokerParameters
from threadko.amqp.publishing import PublishLink
from threadko.concurrency.deadline import Deadline
from threadko.exceptions import BrokerRefused, BrokerUnavailable, ContainerStopped


@pytest.fixture
def make():
    links = []

    def make(uri):
        link = PublishLink(BrokerParameters.from_uri(uri), name="threadko-test-declaring-1")
        links.append(link)
        link.start()
        return link

    yield make
    for link in links:
        link.stop(TIMEOUT)


def test_declared_is_declared_when_it_returns(make, broker_uri, names):
    name = names.queue()
    exchange = Exchange(f"{name}-exchange", auto_delete=True)
    link = make(broker_uri)
    link.declare([exchange, Queue(name, exchange, "key")], Deadline(TIMEOUT))
    with pika_channel(broker_uri) as channel:
        channel.basic_publish(exchange.name, "key", b"x")
        assert channel.basic_get(name, auto_ack=True)[2] == b"x"
        channel.queue_delete(name)


def test_refusal_is_raised_and_the_connection_serves_on(make, broker_uri, names):
    name = names.queue()
    with pika_channel(broker_uri) as channel:
        channel.queue_declare(name, durable=False)
    link = make(broker_uri)
    with pytest.raises(BrokerRefused, match="declared with other arguments"):
        link.declare([Queue(name)], Deadline(TIMEOUT))
    link.publish(b"x", Properties(), routing_key=name, timeout=TIMEOUT)


def test_many_threads_declare_at_once(make, broker_uri, names):
    link = make(broker_uri)
    queues = [Queue(names.queue()) for _ in range(8)]
    barrier = threading.Barrier(8)

    def declare(queue):
        barrier.wait(TIMEOUT)
        link.declare([queue], Deadline(TIMEOUT))

    calls = [in_thread(lambda queue=queue: declare(queue)) for queue in queues]
    assert [call.finish() for call in calls] == [None] * 8
    with pika_channel(broker_uri) as channel:
        for queue in queues:
            channel.queue_declare(queue.name, passive=True)


def test_lost_connection_is_waited_for(make, broker_uri, names):
    name = names.queue()
    with Proxy.for_uri(broker_uri) as proxy:
        link = make(proxy.uri_for(broker_uri))
        link.wait_up(Deadline(TIMEOUT))
        proxy.stall()
        call = in_thread(lambda: link.declare([Queue(name)], Deadline(TIMEOUT)))
        proxy.cut()
        proxy.flow()
        assert call.finish() is None
        with pika_channel(broker_uri) as channel:
            channel.queue_declare(name, passive=True)
        link.stop(TIMEOUT)


@pytest.mark.parametrize("end", ["interrupt", "stop", "deadline"])
def test_wait_for_a_silent_broker_ends(make, broker_uri, names, end):
    with Proxy.for_uri(broker_uri) as proxy:
        link = make(proxy.uri_for(broker_uri))
        link.wait_up(Deadline(TIMEOUT))
        proxy.stall()
        deadline = Deadline(0.2 if end == "deadline" else TIMEOUT)
        name = names.queue("never")
        call = in_thread(lambda: link.declare([Queue(name)], deadline))
        if end == "interrupt":
            link.interrupt()
        elif end == "stop":
            link.stop(0.1)
        expected = BrokerUnavailable if end == "deadline" else ContainerStopped
        assert isinstance(call.finish(), expected)
        proxy.flow()
        link.stop(TIMEOUT)
