"""Errands: declaring, deleting, fetching one message."""

import threading

import pytest

from tests.containers.dummies import in_thread
from tests.support import amqp
from tests.support.proxy import Proxy
from tests.support.timing import TIMEOUT
from threadko.amqp.entities import Queue
from threadko.amqp.errands import Errands
from threadko.amqp.parameters import BrokerParameters
from threadko.exceptions import BrokerError, BrokerUnavailable
from threadko.testing.utils import assert_stops_raising


@pytest.fixture
def parameters(broker_uri):
    return BrokerParameters.from_uri(broker_uri)


@pytest.fixture
def errands(parameters):
    with Errands(parameters, timeout=TIMEOUT) as made:
        yield made


@pytest.fixture
def name(names, broker_uri):
    made = names.queue()
    amqp.declare_queue(broker_uri, made)
    return made


def test_first_message_is_fetched_and_is_gone(errands, broker_uri, name):
    amqp.publish(broker_uri, b"first", routing_key=name)
    amqp.publish(broker_uri, b"second", routing_key=name)
    assert errands.fetch(name).body == b"first"
    assert errands.fetch(name).body == b"second"
    assert errands.fetch(name) is None


def test_message_stays_when_it_is_not_acknowledged(errands, broker_uri, name):
    amqp.publish(broker_uri, b"first", routing_key=name)
    assert errands.fetch(name, ack=False).body == b"first"
    delivery = errands.fetch(name)
    assert (delivery.body, delivery.redelivered) == (b"first", True)


def test_message_that_comes_later_is_waited_for(errands, broker_uri, name):
    waiting = threading.Event()

    def publish():
        waiting.wait(TIMEOUT)
        amqp.publish(broker_uri, b"late", routing_key=name)

    later = in_thread(publish)
    waiting.set()
    assert errands.fetch(name, wait=TIMEOUT).body == b"late"
    assert later.finish() is None


def test_message_that_never_comes_is_waited_for_in_vain(errands, name):
    assert errands.fetch(name, wait=0.05) is None


def test_missing_queue_is_an_error_and_the_next_errand_is_done(errands, name):
    with pytest.raises(BrokerError, match="404"):
        errands.fetch(f"{name}-missing")
    assert errands.fetch(name) is None


def test_exclusive_queue_is_refused_to_others(errands, parameters, names):
    queue = Queue(names.queue(), durable=False, exclusive=True)
    errands.declare(queue)
    errands.declare(queue)
    with Errands(parameters, timeout=TIMEOUT) as other, pytest.raises(BrokerError, match="405"):
        other.declare(queue)


def test_queue_and_exchange_are_deleted_unless_in_use(errands, broker_uri, name, rpc_exchange):
    with amqp.open_channel(broker_uri) as channel:
        channel.exchange_declare(rpc_exchange)
        channel.queue_bind(name, rpc_exchange, "key")
        with pytest.raises(BrokerError, match="in use"):
            errands.delete_exchange(rpc_exchange)
        channel.basic_consume(name, lambda *_: None)
        with pytest.raises(BrokerError, match="in use"):
            errands.delete_queue(name)
    errands.delete_queue(name)
    errands.delete_exchange(rpc_exchange)
    for _ in range(2):  # what is not there is deleted already
        errands.delete_queue(name)
        errands.delete_exchange(rpc_exchange)
    with pytest.raises(BrokerError, match="404"):
        errands.fetch(name)


def test_broker_that_is_not_there_is_an_error():
    nowhere = BrokerParameters.from_uri("amqp://127.0.0.1:1/")
    with pytest.raises(BrokerUnavailable):
        Errands(nowhere, timeout=0.1).__enter__()


def test_errand_fails_when_the_connection_is_lost(broker_uri, name):
    def assert_consumed():
        assert amqp.queue_consumers(broker_uri, name)

    with Proxy.for_uri(broker_uri) as proxy:
        through = BrokerParameters.from_uri(proxy.uri_for(broker_uri))
        with Errands(through, timeout=TIMEOUT) as errands:
            call = in_thread(lambda: errands.fetch(name, wait=TIMEOUT))
            assert_stops_raising(assert_consumed, AssertionError, TIMEOUT)
            proxy.cut()
            assert isinstance(call.finish(), BrokerError)


def test_errand_fails_when_the_broker_does_not_answer(broker_uri, name):
    with Proxy.for_uri(broker_uri) as proxy:
        through = BrokerParameters.from_uri(proxy.uri_for(broker_uri))
        with Errands(through, timeout=TIMEOUT) as errands:
            proxy.stall()
            errands._timeout = 0.05
            with pytest.raises(BrokerUnavailable, match="does not answer"):
                errands.delete_queue(name)
            proxy.flow()


def test_errand_after_the_end_is_an_error(parameters):
    with Errands(parameters, timeout=TIMEOUT) as errands:
        pass
    with pytest.raises(BrokerUnavailable, match="has ended"):
        errands.delete_queue("any")
