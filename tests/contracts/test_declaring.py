"""Exchanges, queues and bindings: what may be declared, and what is refused how."""

import time

import pytest
from pika.exceptions import ChannelClosedByBroker, ConnectionClosedByBroker

from tests.support.timing import TIMEOUT


def refused(call, code, text=""):
    with pytest.raises(ChannelClosedByBroker) as caught:
        call()
    assert caught.value.reply_code == code, caught.value.reply_text
    assert text in caught.value.reply_text


# Exchanges


@pytest.mark.parametrize("kind", ["direct", "fanout", "topic", "headers"])
def test_exchange_is_declared_once_and_again(channel, name, kind):
    for _ in range(2):
        channel.exchange_declare(name, kind, durable=True)
    channel.exchange_declare(name, passive=True)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"exchange_type": "fanout"}, "inequivalent arg 'type' for exchange"),
        ({"durable": True}, "inequivalent arg 'durable' for exchange"),
        ({"auto_delete": True}, "inequivalent arg 'auto_delete' for exchange"),
        ({"internal": True}, "inequivalent arg 'internal' for exchange"),
        ({"arguments": {"alternate-exchange": "x"}}, "inequivalent arg 'alternate-exchange'"),
    ],
)
def test_exchange_that_is_different_is_refused(channel, name, options, text):
    channel.exchange_declare(name, "direct")
    refused(lambda: channel.exchange_declare(name, **options), 406, f"PRECONDITION_FAILED - {text}")


def test_missing_exchange(channel, name):
    refused(lambda: channel.exchange_declare(name, passive=True), 404, f"no exchange '{name}'")


@pytest.mark.parametrize("exchange", ["amq.own", "amq.direct-2"])
def test_reserved_name_of_an_exchange(channel, exchange):
    refused(lambda: channel.exchange_declare(exchange), 403, "contains reserved prefix 'amq.*'")


@pytest.mark.parametrize(
    "exchange", ["amq.direct", "amq.fanout", "amq.topic", "amq.headers", "amq.match"]
)
def test_exchanges_that_are_there_from_the_beginning(channel, exchange):
    channel.exchange_declare(exchange, passive=True)


def test_default_exchange_is_left_alone(connect, name):
    text = "ACCESS_REFUSED - operation not permitted on the default exchange"
    refused(lambda: connect().channel().exchange_delete(""), 403, text)
    channel = connect().channel()
    channel.queue_declare(name)
    refused(lambda: channel.queue_bind(name, "", "key"), 403, text)


def test_unknown_type_of_exchange_ends_the_connection(channel, name):
    with pytest.raises(ConnectionClosedByBroker) as caught:
        channel.exchange_declare(name, "round")
    assert caught.value.reply_code == 503
    assert "COMMAND_INVALID - invalid exchange type 'round'" in caught.value.reply_text


def test_exchange_in_use_is_not_deleted_if_unused(channel, name):
    channel.exchange_declare(name)
    channel.queue_declare(name)
    channel.queue_bind(name, name, "key")
    refused(lambda: channel.exchange_delete(name, if_unused=True), 406, "in use")


def test_deleting_what_is_not_there_is_fine(channel, name):
    channel.exchange_delete(name)
    assert channel.queue_delete(name).method.message_count == 0
    channel.queue_declare(name)
    channel.queue_unbind(name, "amq.direct", "never bound")


def test_auto_delete_exchange_goes_with_its_last_binding(channel, name):
    channel.exchange_declare(name, auto_delete=True)
    channel.queue_declare(name)
    channel.exchange_declare(name, passive=True)
    channel.queue_bind(name, name, "a")
    channel.queue_bind(name, name, "b")
    channel.queue_unbind(name, name, "a")
    channel.exchange_declare(name, passive=True)
    channel.queue_delete(name)
    refused(lambda: channel.exchange_declare(name, passive=True), 404)


def test_internal_exchange_takes_nothing_from_clients(connect, name):
    channel = connect().channel()
    channel.exchange_declare(name, internal=True)
    channel.confirm_delivery()
    refused(lambda: channel.basic_publish(name, "key", b"x"), 403, "internal exchange")


# Queues


def test_server_names_queues(channel):
    first = channel.queue_declare("", exclusive=True).method.queue
    second = channel.queue_declare("", exclusive=True).method.queue
    assert first.startswith("amq.gen-")
    assert first != second


def test_empty_name_is_the_last_queue_of_the_channel(channel, name):
    channel.queue_declare(name)
    channel.basic_publish("", name, b"x")
    assert channel.queue_purge("").method.message_count == 1
    assert channel.queue_delete("").method.message_count == 0


def test_counts(connect, name):
    channel = connect().channel()
    channel.queue_declare(name)
    channel.confirm_delivery()
    for _ in range(3):
        channel.basic_publish("", name, b"x")
    channel.basic_get(name)
    other = connect().channel()
    method = other.queue_declare(name, passive=True).method
    assert (method.message_count, method.consumer_count) == (2, 0)
    assert channel.queue_purge(name).method.message_count == 2


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"durable": True}, "inequivalent arg 'durable' for queue"),
        ({"auto_delete": True}, "inequivalent arg 'auto_delete' for queue"),
        (
            {"arguments": {"x-message-ttl": 1}},
            "inequivalent arg 'x-message-ttl' for queue",
        ),
        ({"arguments": {"x-expires": 60000}}, "inequivalent arg 'x-expires' for queue"),
        ({"arguments": {"x-max-length": 1}}, "inequivalent arg 'x-max-length' for queue"),
        ({"arguments": {"x-max-priority": 1}}, "inequivalent arg 'x-max-priority' for queue"),
        (
            {"arguments": {"x-dead-letter-exchange": ""}},
            "inequivalent arg 'x-dead-letter-exchange' for queue",
        ),
    ],
)
def test_queue_that_is_different_is_refused(channel, name, options, text):
    channel.queue_declare(name)
    refused(lambda: channel.queue_declare(name, **options), 406, f"PRECONDITION_FAILED - {text}")


def test_equal_arguments_are_equal(channel, name):
    arguments = {"x-message-ttl": 1000, "x-dead-letter-exchange": "x", "own": "note"}
    for _ in range(2):
        channel.queue_declare(name, arguments=arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        {"x-message-ttl": -1},
        {"x-message-ttl": "1"},
        {"x-expires": 0},
        {"x-expires": -1},
        {"x-max-length": -1},
        {"x-max-priority": 256},
        {"x-overflow": "explode"},
        {"x-dead-letter-exchange": 1},
        {"x-dead-letter-routing-key": "alone"},
    ],
)
def test_wrong_arguments_are_refused(channel, name, arguments):
    refused(lambda: channel.queue_declare(name, arguments=arguments), 406, "PRECONDITION_FAILED")


def test_missing_queue(channel, name):
    text = f"NOT_FOUND - no queue '{name}' in vhost"
    refused(lambda: channel.queue_declare(name, passive=True), 404, text)


@pytest.mark.parametrize(
    "call",
    [
        lambda channel, name: channel.basic_get(name),
        lambda channel, name: channel.basic_consume(name, lambda *_: None),
        lambda channel, name: channel.queue_purge(name),
        lambda channel, name: channel.queue_bind(name, "amq.direct", "key"),
    ],
)
def test_missing_queue_in_other_methods(channel, name, call):
    refused(lambda: call(channel, name), 404, f"NOT_FOUND - no queue '{name}'")


def test_missing_exchange_of_a_binding(channel, name):
    channel.queue_declare(name)
    text = f"NOT_FOUND - no exchange '{name}-none'"
    refused(lambda: channel.queue_bind(name, f"{name}-none", "key"), 404, text)


def test_reserved_name_of_a_queue(channel):
    refused(lambda: channel.queue_declare("amq.own"), 403, "contains reserved prefix 'amq.*'")


@pytest.mark.parametrize(
    "call",
    [
        lambda channel, name: channel.queue_declare(name, passive=True),
        lambda channel, name: channel.queue_declare(name, exclusive=True),
        lambda channel, name: channel.basic_get(name),
        lambda channel, name: channel.queue_delete(name),
        lambda channel, name: channel.queue_bind(name, "amq.direct", "key"),
        lambda channel, name: channel.basic_consume(name, lambda *_: None),
    ],
)
def test_exclusive_queue_is_its_connection_s(connect, name, call):
    owner = connect()
    owner.channel().queue_declare(name, exclusive=True)
    owner.channel().queue_declare(name, passive=True)  # any channel of it
    text = "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue"
    refused(lambda: call(connect().channel(), name), 405, text)


def test_exclusive_queue_goes_with_its_connection(connect, name):
    owner = connect()
    owner.channel().queue_declare(name, exclusive=True)
    owner.close()
    refused(lambda: connect().channel().queue_declare(name, passive=True), 404)


def test_auto_delete_queue_goes_with_its_last_consumer(connect, name):
    channel = connect().channel()
    channel.queue_declare(name, auto_delete=True)
    tags = [channel.basic_consume(name, lambda *_: None) for _ in range(2)]
    channel.basic_cancel(tags[0])
    connect().channel().queue_declare(name, passive=True)
    channel.basic_cancel(tags[1])
    refused(lambda: connect().channel().queue_declare(name, passive=True), 404)


def test_queue_is_not_deleted_if_it_is_used_or_full(connect, name):
    channel = connect().channel()
    channel.queue_declare(name)
    channel.confirm_delivery()
    channel.basic_publish("", name, b"x")
    other = connect().channel()
    refused(lambda: other.queue_delete(name, if_empty=True), 406, "not empty")
    channel.basic_consume(name, lambda *_: None)
    other = connect().channel()
    refused(lambda: other.queue_delete(name, if_unused=True), 406, "in use")


def test_unused_queue_expires(connect, name):
    channel = connect().channel()
    channel.queue_declare(name, arguments={"x-expires": 50})
    deadline = time.monotonic() + TIMEOUT
    is_there = True
    while is_there:
        assert time.monotonic() < deadline
        channel.connection.sleep(0.2)  # each look counts as use
        try:
            channel.queue_declare(name, passive=True)
        except ChannelClosedByBroker:
            is_there = False
