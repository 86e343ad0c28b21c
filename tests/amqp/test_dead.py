"""Looking into dead queues, and bringing messages back."""

import struct

import pytest

from tests.conftest import pika_channel
from tests.support import amqp
from tests.support.proxy import Proxy
from tests.support.timing import TIMEOUT
from threadko.amqp.dead import DeadLetters
from threadko.amqp.delays import FAILURES_HEADER, REASON_HEADER
from threadko.amqp.parameters import BrokerParameters
from threadko.exceptions import BrokerUnavailable, UndeliverableMessage


@pytest.fixture
def name(names, broker_uri):
    made = names.queue("alive")
    amqp.declare_queue(broker_uri, made)
    amqp.declare_queue(broker_uri, f"{made}.dead", durable=True)
    return made


@pytest.fixture
def letters(broker_uri, name):
    with DeadLetters(BrokerParameters.from_uri(broker_uri), name, timeout=TIMEOUT) as made:
        yield made


@pytest.fixture
def die(broker_uri, name):
    def die(*bodies, **properties):
        for body in bodies:
            amqp.publish(broker_uri, body, routing_key=f"{name}.dead", **properties)

    return die


def test_all_are_read_in_order_and_stay(letters, die, broker_uri, name):
    die(*(str(number).encode() for number in range(50)))
    found = letters.read(1000)
    assert [each.body for each in found] == [str(number).encode() for number in range(50)]
    with DeadLetters(BrokerParameters.from_uri(broker_uri), name) as other:
        assert other.read(10) == []  # they are with us
    letters.__exit__(None, None, None)
    assert amqp.queue_depth(broker_uri, f"{name}.dead") == 50
    with DeadLetters(BrokerParameters.from_uri(broker_uri), name) as other:
        assert [each.body for each in other.read(3)] == [b"0", b"1", b"2"]


def test_nothing_is_read_from_an_empty_queue(letters):
    assert letters.read(10) == []


def test_replayed_message_is_as_it_was_before_it_failed(letters, die, broker_uri, name):
    headers = {"own": 1, "nameko.language": "de", FAILURES_HEADER: 6, REASON_HEADER: "exhausted"}
    die(b"a", b"b", headers=headers, message_id="m", content_type="application/json")
    first, _ = letters.read(10)
    letters.replay(first)
    message = amqp.expect_message(broker_uri, name)
    assert message.body == b"a"
    assert message.properties.headers == {"own": 1, "nameko.language": "de"}
    assert message.properties.message_id == "m"
    letters.__exit__(None, None, None)
    assert amqp.expect_message(broker_uri, f"{name}.dead").body == b"b"


def test_message_whose_queue_is_gone_stays(letters, die, broker_uri, name):
    amqp.delete_queue(broker_uri, name)
    die(b"a")
    (message,) = letters.read(10)
    with pytest.raises(UndeliverableMessage, match=f"there is no queue '{name}'"):
        letters.replay(message)
    amqp.declare_queue(broker_uri, name)
    letters.replay(message)
    assert amqp.expect_message(broker_uri, name).body == b"a"


def test_how_many_are_beyond_the_limit_is_known(letters, die):
    die(*(b"%d" % number for number in range(5)))
    assert len(letters.read(3)) == 3
    assert letters.left == 2


def test_floats_survive(letters, broker_uri, name, die):
    die(b"x", headers={"n": 1})
    (delivery,) = letters.read(1)
    table = b"\x01dd" + struct.pack(">d", 1.5)
    delivery.header = struct.pack(">HI", 1 << 13, len(table)) + table
    letters.replay(delivery)
    with pika_channel(broker_uri) as channel:
        assert channel.basic_get(name, auto_ack=True)[2] == b"x"


def test_dropped_message_is_gone(letters, die, broker_uri, name):
    die(b"a", b"b")
    letters.drop(letters.read(1)[0])
    letters.__exit__(None, None, None)
    assert amqp.expect_message(broker_uri, f"{name}.dead").body == b"b"


def test_missing_queue_is_not_made(broker_uri, names):
    name = names.queue("nobody")
    with DeadLetters(BrokerParameters.from_uri(broker_uri), name, timeout=TIMEOUT) as letters:
        with pytest.raises(LookupError, match="no queue"):
            letters.read(1)
    assert not amqp.has_queue(broker_uri, f"{name}.dead")


def test_lost_connection_is_an_error_and_loses_nothing(broker_uri, name, die):
    die(b"a")
    with Proxy.for_uri(broker_uri) as proxy:
        parameters = BrokerParameters.from_uri(proxy.uri_for(broker_uri))
        with DeadLetters(parameters, name, timeout=TIMEOUT) as letters:
            (delivery,) = letters.read(10)
            proxy.refuse()
            proxy.cut()
            with pytest.raises(BrokerUnavailable):
                letters.drop(delivery)
    assert amqp.expect_message(broker_uri, f"{name}.dead").body == b"a"


def test_absent_broker_is_an_error_in_time():
    letters = DeadLetters(BrokerParameters.from_uri("amqp://localhost:1/"), "q", timeout=0.1)
    with pytest.raises(BrokerUnavailable):
        letters.__enter__()
