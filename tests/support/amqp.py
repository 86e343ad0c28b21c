"""Raw looks at a broker, and raw messages for it, past all of threadko.

Each call opens a connection of its own and closes it, so that nothing is shared between threads
and nothing depends on the test's own connections. Slow (some ms), and good enough.
"""

import contextlib
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import pika
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import AMQPError, ChannelClosedByBroker

from tests.support.timing import TIMEOUT, wait_until

__all__ = [
    "RawMessage",
    "declare_queue",
    "delete_exchange",
    "delete_queue",
    "expect_message",
    "get_message",
    "has_queue",
    "open_channel",
    "publish",
    "purge_queue",
    "queue_consumers",
    "queue_depth",
    "take_messages",
]


class RawMessage(NamedTuple):
    """What the broker delivered."""

    body: bytes
    properties: pika.BasicProperties
    method: Any


@contextlib.contextmanager
def open_channel(uri: str) -> Iterator[BlockingChannel]:
    """A channel for a few calls from this thread; its connection ends with the block."""
    connection = pika.BlockingConnection(pika.URLParameters(uri))
    try:
        yield connection.channel()
    finally:
        with contextlib.suppress(AMQPError):
            connection.close()


def publish(
    uri: str,
    body: bytes,
    *,
    exchange: str = "",
    routing_key: str = "",
    mandatory: bool = True,
    **properties: Any,
) -> None:
    """Publish, and wait for the confirm; pika's UnroutableError if no queue took it."""
    with open_channel(uri) as channel:
        channel.confirm_delivery()
        channel.basic_publish(
            exchange,
            routing_key,
            body,
            properties=pika.BasicProperties(**properties),
            mandatory=mandatory,
        )


def declare_queue(
    uri: str, name: str = "", *, exchange: str = "", routing_key: str = "", **options: Any
) -> str:
    """Declare a queue (options are pika's), bind it if an exchange is named; return its name."""
    with open_channel(uri) as channel:
        name = channel.queue_declare(name, **options).method.queue
        if exchange:
            channel.queue_bind(name, exchange, routing_key=routing_key)
    return name


def get_message(uri: str, name: str) -> RawMessage | None:
    """Take one message off a queue, None if none is ready."""
    with open_channel(uri) as channel:
        method, properties, body = channel.basic_get(name, auto_ack=True)
    return None if method is None else RawMessage(body, properties, method)


def expect_message(uri: str, name: str, timeout: float = TIMEOUT) -> RawMessage:
    """Wait for a message in a queue and take it off.

    Raises:
        TimeoutError: None came within `timeout` seconds.
    """
    found: list[RawMessage] = []
    with open_channel(uri) as channel:
        channel.basic_qos(prefetch_count=1)
        for method, properties, body in channel.consume(name, inactivity_timeout=timeout):
            if method is not None:
                channel.basic_ack(method.delivery_tag)
                found.append(RawMessage(body, properties, method))
            break
        channel.cancel()
    if not found:
        raise TimeoutError(f"no message in {name} within {timeout} s")
    return found[0]


def take_messages(uri: str, name: str, count: int, timeout: float = TIMEOUT) -> list[RawMessage]:
    """Wait for so many messages, take them off the queue and return them in order.

    Raises:
        TimeoutError: They did not all come within `timeout` seconds.
    """
    found: list[RawMessage] = []
    end = time.monotonic() + timeout
    with open_channel(uri) as channel:
        while len(found) < count:
            left = max(0.01, end - time.monotonic())
            for method, properties, body in channel.consume(name, inactivity_timeout=left):
                if method is None:
                    raise TimeoutError(f"{len(found)} messages of {count} in {name}")
                channel.basic_ack(method.delivery_tag)
                found.append(RawMessage(body, properties, method))
                break
        channel.cancel()
    return found


def has_queue(uri: str, name: str) -> bool:
    """Tell whether a queue exists. Asking counts as use, and puts `x-expires` off."""
    try:
        queue_depth(uri, name)
    except ChannelClosedByBroker as exc:
        if exc.reply_code != 404:
            raise
        return False
    return True


def wait_for_queue(uri: str, name: str) -> None:
    """Wait for a queue that is declared when something is first put into it."""
    wait_until(lambda: has_queue(uri, name), f"there is no queue {name}")


def queue_depth(uri: str, name: str) -> int:
    """How many messages are ready; those that a consumer holds unacked do not count."""
    with open_channel(uri) as channel:
        count: int = channel.queue_declare(name, passive=True).method.message_count
    return count


def queue_consumers(uri: str, name: str) -> int:
    """How many consumers a queue has."""
    with open_channel(uri) as channel:
        count: int = channel.queue_declare(name, passive=True).method.consumer_count
    return count


def purge_queue(uri: str, name: str) -> None:
    """Drop all messages that are ready."""
    with open_channel(uri) as channel:
        channel.queue_purge(name)


def delete_queue(uri: str, name: str) -> None:
    """Delete a queue with all that is in it; one that does not exist is fine."""
    with open_channel(uri) as channel:
        channel.queue_delete(name)


def delete_exchange(uri: str, name: str) -> None:
    """Delete an exchange; one that does not exist is fine."""
    with open_channel(uri) as channel:
        channel.exchange_delete(name)
