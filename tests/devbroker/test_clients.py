"""Clients that know nothing of this broker, as they are."""

import asyncio
import json
import subprocess
from pathlib import Path

import aio_pika
import kombu
import pika
import pytest

from tests.interop.sides import NAMEKO3
from tests.support.timing import TIMEOUT
from threadko.devbroker import DevBroker


@pytest.fixture(scope="module")
def uri():
    with DevBroker() as broker:
        yield broker.uri


def test_pika_blocking(uri):
    with pika.BlockingConnection(pika.URLParameters(uri)) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        name = channel.queue_declare("", exclusive=True).method.queue
        for number in range(10):
            channel.basic_publish("", name, str(number).encode(), mandatory=True)
        got = []
        for method, _, body in channel.consume(name, inactivity_timeout=TIMEOUT):
            got.append(int(body))
            channel.basic_ack(method.delivery_tag)
            if len(got) == 10:
                break
        channel.cancel()
    assert got == list(range(10))


def test_pika_select(uri):
    steps = []

    def opened(connection):
        connection.channel(on_open_callback=channel_opened)

    def channel_opened(channel):
        channel.confirm_delivery(
            lambda frame: steps.append(type(frame.method).__name__),
            callback=lambda _: channel.queue_declare(
                "", exclusive=True, callback=lambda frame: declared(channel, frame.method.queue)
            ),
        )

    def declared(channel, name):
        channel.basic_consume(name, delivered)
        channel.basic_publish("", name, b"x")

    def delivered(channel, method, properties, body):
        steps.append(body)
        channel.basic_ack(method.delivery_tag)
        channel.connection.close()

    connection = pika.SelectConnection(
        pika.URLParameters(uri),
        on_open_callback=opened,
        on_close_callback=lambda connection, reason: connection.ioloop.stop(),
        on_open_error_callback=lambda connection, error: connection.ioloop.stop(),
    )
    connection.ioloop.call_later(TIMEOUT, connection.ioloop.stop)
    connection.ioloop.start()
    connection.ioloop.close()
    assert sorted(map(str, steps)) == ["Ack", "b'x'"]


def test_kombu(uri):
    exchange = kombu.Exchange("kombu-exchange", "topic", durable=True)
    queue = kombu.Queue("kombu-queue", exchange, routing_key="a.#")
    got = []
    with kombu.Connection(uri, heartbeat=10) as connection:
        with connection.Producer(serializer="json") as producer:
            producer.publish(
                {"n": 1.5}, exchange=exchange, routing_key="a.b", declare=[queue], headers={"h": 1}
            )
        with connection.Consumer(queue, accept=["json"], prefetch_count=1) as consumer:
            consumer.register_callback(
                lambda body, message: (got.append((body, message.headers)), message.ack())
            )
            connection.drain_events(timeout=TIMEOUT)
        connection.heartbeat_check()
        queue(connection.default_channel).delete()
    assert got == [({"n": 1.5}, {"h": 1})]


def test_aio_pika(uri):
    async def run():
        connection = await aio_pika.connect_robust(uri)
        async with connection:
            channel = await connection.channel(publisher_confirms=True)
            await channel.set_qos(prefetch_count=1)
            queue = await channel.declare_queue("", exclusive=True)
            exchange = await channel.declare_exchange("aio", aio_pika.ExchangeType.FANOUT)
            await queue.bind(exchange)
            await exchange.publish(aio_pika.Message(b"x", headers={"h": 1.5}), routing_key="")
            message = await queue.get(timeout=TIMEOUT)
            await message.ack()
            return message.body, message.headers

    assert asyncio.run(run()) == (b"x", {"h": 1.5})


@pytest.mark.interop
def test_nameko(uri):
    """Calls, an error, events to all three kinds of handlers, and both standalone clients."""
    result = subprocess.run(
        [NAMEKO3.python, str(Path(__file__).with_name("nameko_peer.py")), uri],
        capture_output=True,
        text=True,
        timeout=3 * TIMEOUT,
    )
    assert result.returncode == 0, result.stderr
    told = json.loads(result.stdout)
    assert told["answers"] == [number * 2 for number in range(10)]
    assert "ValueError" in told["failure"]
    assert told["seen"] == {"pool": 11, "singleton": 11, "broadcast": 22}
