"""Taking single messages out of queues."""

import queue
import zlib

import pytest

from tests.support import amqp
from threadko.exceptions import DecodeError
from threadko.testing.messages import take_message


@pytest.fixture
def name(names, broker_uri):
    made = names.queue()
    amqp.declare_queue(broker_uri, made)
    return made


def test_message_has_payload_and_properties(broker_uri, name):
    amqp.publish(
        broker_uri,
        b'{"a": 1}',
        routing_key=name,
        content_type="application/json",
        content_encoding="utf-8",
        correlation_id="an id",
        headers={"key": "value"},
    )
    message = take_message(broker_uri, name)
    assert message.payload == message.decode() == {"a": 1}
    assert message.body == b'{"a": 1}'
    assert message.properties["correlation_id"] == "an id"
    assert "headers" not in message.properties
    assert message.headers == {"key": "value"}
    assert (message.content_type, message.content_encoding) == ("application/json", "utf-8")
    assert message.delivery_info == {"exchange": "", "routing_key": name, "redelivered": False}


def test_message_that_is_not_acknowledged_can_be_taken_again(broker_uri, name):
    amqp.publish(broker_uri, b"text", routing_key=name)
    assert take_message(broker_uri, name, ack=False).headers == {}
    assert take_message(broker_uri, name).delivery_info["redelivered"]


@pytest.mark.parametrize("options", [{"block": False}, {"timeout": 0.05}])
def test_empty_queue_is_an_error(broker_uri, name, options):
    with pytest.raises(queue.Empty, match=f"no message in queue '{name}'"):
        take_message(broker_uri, name, **options)


def test_only_what_is_accepted_is_read(broker_uri, name):
    amqp.publish(broker_uri, b"a: 1", routing_key=name, content_type="application/x-yaml")
    with pytest.raises(DecodeError):
        _ = take_message(broker_uri, name, ack=False).payload
    assert take_message(broker_uri, name, accept=["yaml"]).payload == {"a": 1}


def test_compressed_message_is_read(broker_uri, name):
    headers = {"compression": "application/x-gzip"}
    amqp.publish(
        broker_uri,
        zlib.compress(b"1"),
        routing_key=name,
        headers=headers,
        content_type="application/json",
        content_encoding="utf-8",
    )
    assert take_message(broker_uri, name).payload == 1
