"""The fake is believed by a right client."""

import pika

from tests.support.fake_broker import FakeBroker, deliver
from tests.support.frames import properties
from tests.support.timing import TIMEOUT


def test_right_client_declares_publishes_consumes_and_leaves():
    with FakeBroker() as broker:
        connection = pika.BlockingConnection(pika.URLParameters(broker.uri))
        channel = connection.channel()
        channel.confirm_delivery()
        channel.exchange_declare("e", "topic")
        channel.queue_declare("q")
        channel.queue_bind("q", "e", "key")
        channel.basic_publish("e", "key", b"x" * 300_000, pika.BasicProperties(priority=3))
        channel.basic_consume("q", lambda *_: None, consumer_tag="consumer")
        taken = []
        channel.basic_cancel("consumer")
        channel.basic_consume("q", lambda *message: taken.append(message), consumer_tag="consumer")
        header = properties(correlation_id=b"1")
        broker.wait_consumer(2).send(deliver(1, 7, header, b"body", routing_key=b"key", step=3))
        connection.process_data_events(TIMEOUT)
        connection.process_data_events(0)
        channel.basic_ack(7)
        connection.close()
        broker.wait_for(lambda: len(broker.settled) == 1)
    (published,) = broker.publishes
    assert (published.exchange, published.routing_key) == ("e", "key")
    assert (published.properties.priority, published.body) == (3, b"x" * 300_000)
    ((_, method, read, body),) = taken
    assert (method.routing_key, read.correlation_id, body) == ("key", "1", b"body")
    assert broker.settled[0][1:] == (1, 7)
