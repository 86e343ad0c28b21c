"""The public consumer, against the broker."""

import json
import queue
import threading

import kombu
import pytest

from tests.conftest import pika_channel
from tests.containers.dummies import in_thread
from tests.support import amqp
from tests.support.proxy import Proxy
from tests.support.timing import TIMEOUT
from threadko.amqp import Exchange, Queue
from threadko.amqp.consume import Consumer, Message
from threadko.amqp.message import Delivery, Properties, encode_properties
from threadko.amqp.publish import Publisher
from threadko.exceptions import BrokerRefused, ConfigurationError, DecodeError
from threadko.serialization import Serialization


@pytest.fixture
def queue_name(names, broker_uri):
    name = names.service("consume")
    yield name
    with pika_channel(broker_uri) as channel:
        channel.queue_delete(name)


@pytest.fixture
def start():
    """Runs a consumer in a thread; stopped with the test."""
    running = []

    def start(consumer):
        thread = in_thread(consumer.run)
        running.append((consumer, thread))
        assert consumer.wait_until_consumer_ready(TIMEOUT)
        return thread

    yield start
    for consumer, thread in running:
        consumer.stop()
        thread.finish()


class Heard:
    """A callback that acknowledges, and what it was called with."""

    def __init__(self, settle=True):
        self.calls = queue.SimpleQueue()
        self._settle = settle

    def __call__(self, body, message):
        self.calls.put((body, message))
        if self._settle:
            message.ack()

    def take(self):
        return self.calls.get(timeout=TIMEOUT)


def waiting(uri, name):
    with pika_channel(uri) as channel:
        return channel.queue_declare(name, passive=True).method.message_count


def test_callbacks_get_body_and_message_in_the_thread_of_run(broker_uri, queue_name, start):
    class Noting(Consumer):
        def run(self):
            threads.append(threading.current_thread())
            super().run()

    heard = Heard()
    threads = []
    consumer = Noting(
        broker_uri,
        queues=[Queue(queue_name)],
        callbacks=[lambda *_: threads.append(threading.current_thread()), heard],
    )
    thread = start(consumer)
    Publisher(broker_uri).publish({"a": 1}, routing_key=queue_name, headers={"x": "y"})
    body, message = heard.take()
    assert body == {"a": 1}
    assert json.loads(message.body) == body
    assert message.headers == {"x": "y"}
    info = {"exchange": "", "routing_key": queue_name, "redelivered": False, "delivery_tag": 1}
    assert message.delivery_info == info
    assert message.payload is body
    consumer.stop()
    assert thread.finish() is None
    (ran_in, called_in) = threads
    assert ran_in is called_in
    assert not consumer.ready.is_set()
    assert waiting(broker_uri, queue_name) == 0


def test_several_queues_are_consumed_and_bound(broker_uri, names, start):
    heard = Heard()
    stem = names.service("several")
    exchange = Exchange(f"{stem}-exchange", "topic", auto_delete=True)
    queues = [Queue(f"{stem}-{key}", exchange, key, auto_delete=True) for key in ("a", "b")]
    start(Consumer(broker_uri, queues=queues, callbacks=[heard]))
    publisher = Publisher(broker_uri, exchange=exchange.name)
    publisher.publish(1, routing_key="a")
    publisher.publish(2, routing_key="b")
    assert {heard.take()[0], heard.take()[0]} == {1, 2}


def test_queue_of_several_bindings_is_bound_by_each_on_every_connection(broker_uri, names, start):
    name = names.queue("bound")
    exchanges = [kombu.Exchange(f"{name}-{n}", "topic", auto_delete=True) for n in (1, 2)]
    first, second = (each.name for each in exchanges)
    bindings = [
        kombu.binding(exchanges[0], "a.#"),
        kombu.binding(exchanges[0], "b.#"),
        kombu.binding(exchanges[1], "c"),
    ]
    heard = Heard()
    publisher = Publisher(broker_uri, mandatory=True)

    def hear_each():
        for exchange, key in ((first, "a.x"), (first, "b.x"), (second, "c")):
            publisher.publish(key, exchange=exchange, routing_key=key)
        infos = [heard.take()[1].delivery_info for _ in range(3)]
        return [(info["exchange"], info["routing_key"]) for info in infos]

    with Proxy.for_uri(broker_uri) as proxy:
        consumer = Consumer(
            proxy.uri_for(broker_uri),
            queues=[kombu.Queue(name, bindings=bindings)],
            callbacks=[heard],
        )
        start(consumer)
        assert hear_each() == [(first, "a.x"), (first, "b.x"), (second, "c")]
        proxy.refuse()
        proxy.cut()
        amqp.delete_queue(broker_uri, name)
        consumer.ready.clear()
        proxy.accept()
        assert consumer.wait_until_consumer_ready(TIMEOUT)
        assert hear_each() == [(first, "a.x"), (first, "b.x"), (second, "c")]
        consumer.stop()


def test_stop_gives_back_what_no_callback_has_had(broker_uri, queue_name, start):
    reached, go_on = threading.Event(), threading.Event()

    def hold(body, message):
        reached.set()
        assert go_on.wait(TIMEOUT)
        message.ack()

    consumer = Consumer(broker_uri, queues=[Queue(queue_name)], callbacks=[hold])
    thread = start(consumer)
    publisher = Publisher(broker_uri, routing_key=queue_name)
    for number in range(5):
        publisher.publish(number)
    assert reached.wait(TIMEOUT)
    consumer.stop()
    go_on.set()
    thread.finish()
    assert waiting(broker_uri, queue_name) == 4


def test_requeued_message_comes_again_and_is_settled_once(broker_uri, queue_name, start):
    heard = Heard(settle=False)
    consumer = Consumer(broker_uri, queues=[Queue(queue_name)], callbacks=[heard])
    start(consumer)
    Publisher(broker_uri).publish("x", routing_key=queue_name)
    _, message = heard.take()
    consumer.requeue_message(message)
    consumer.ack_message(message)  # too late: the channel would be closed over it
    _, again = heard.take()
    assert again.delivery_info["redelivered"]
    assert message.acknowledged
    again.reject()
    consumer.stop()


def test_prefetch_count_bounds_what_is_unsettled(broker_uri, queue_name, start):
    heard = Heard(settle=False)
    consumer = Consumer(broker_uri, queues=[Queue(queue_name)], callbacks=[heard], prefetch_count=2)
    start(consumer)
    publisher = Publisher(broker_uri, routing_key=queue_name)
    for number in range(3):
        publisher.publish(number)
    (_, first), (_, _second) = heard.take(), heard.take()
    assert waiting(broker_uri, queue_name) == 1
    first.ack()
    assert heard.take()[0] == 2


def test_callback_that_raises_ends_run_and_loses_nothing(broker_uri, queue_name):
    def fail(body, message):
        raise LookupError("of the user")

    consumer = Consumer(broker_uri, queues=[Queue(queue_name)], callbacks=[fail])
    thread = in_thread(consumer.run)
    assert consumer.wait_until_consumer_ready(TIMEOUT)
    Publisher(broker_uri).publish("x", routing_key=queue_name)
    assert isinstance(thread.finish(), LookupError)
    assert waiting(broker_uri, queue_name) == 1


def test_unreadable_and_unaccepted_messages_are_rejected(broker_uri, queue_name, start):
    heard = Heard()
    consumer = Consumer(broker_uri, queues=[Queue(queue_name)], callbacks=[heard], accept=["json"])
    start(consumer)
    publisher = Publisher(broker_uri, routing_key=queue_name)
    publisher.publish({"a": 1}, serializer="yaml")
    publisher.publish(b"{", content_type="application/json")
    publisher.publish("good")
    assert heard.take()[0] == "good"
    consumer.stop()


def make_message(body, **properties):
    header = encode_properties(Properties(**properties))
    delivery = Delivery(1, 2, False, "exchange", "key", header, body)
    return Message(delivery, delivery.properties, Serialization.from_config({}), lambda *_: None)


def test_payload_is_decoded_once_and_only_when_it_is_asked_for():
    message = make_message(b"[1]", content_type="application/json", correlation_id="c-1")
    assert message.decode() == [1]
    assert message.decode() is not message.decode()
    assert message.payload is message.payload
    assert message.payload == [1]
    assert message.properties["correlation_id"] == "c-1"
    assert message.properties.get("reply_to") is None


def test_headers_of_a_message_are_those_of_its_properties():
    message = make_message(b"1", headers={"key": 1})
    message.headers["key"] = 2
    assert message.properties["application_headers"] == {"key": 2}
    assert make_message(b"1").headers == {}


def test_payload_that_cannot_be_read_raises_each_time():
    message = make_message(b"{", content_type="application/json")
    for _ in range(2):
        with pytest.raises(DecodeError):
            message.payload  # noqa: B018 (the look at it)


def test_message_shows_neither_body_nor_headers_in_its_repr():
    message = make_message(b"a secret", headers={"key": "a secret"})
    assert message.payload
    assert "secret" not in repr(message)
    assert "secret" not in repr(message.properties)


def test_no_ack_settles_before_the_callback(broker_uri, queue_name, start):
    heard = Heard(settle=False)
    consumer = Consumer(broker_uri, queues=[Queue(queue_name)], callbacks=[heard], no_ack=True)
    thread = start(consumer)
    Publisher(broker_uri).publish("x", routing_key=queue_name)
    assert heard.take()[1].acknowledged
    consumer.stop()
    thread.finish()
    assert waiting(broker_uri, queue_name) == 0


def test_lost_connection_is_made_anew_and_late_acks_harm_nobody(broker_uri, queue_name, start):
    heard = Heard(settle=False)
    with Proxy.for_uri(broker_uri) as proxy:
        consumer = Consumer(
            proxy.uri_for(broker_uri), queues=[Queue(queue_name)], callbacks=[heard]
        )
        start(consumer)
        publisher = Publisher(broker_uri, routing_key=queue_name)
        publisher.publish("x")
        _, lost = heard.take()
        proxy.cut()
        body, again = heard.take()
        assert body == "x"
        assert again.delivery_info["redelivered"]
        lost.ack()
        again.ack()
        publisher.publish("y")
        assert heard.take()[0] == "y"
        consumer.stop()


def test_it_runs_again_after_a_stop_but_not_twice_at_once(broker_uri, queue_name, start):
    consumer = Consumer(broker_uri, queues=[Queue(queue_name)], callbacks=[Heard()])
    for _ in range(2):
        thread = start(consumer)
        with pytest.raises(RuntimeError, match="another thread"):
            consumer.run()
        consumer.stop()
        thread.finish()


def test_stop_ends_a_run_that_waits_for_an_absent_broker():
    consumer = Consumer("amqp://localhost:1/", queues=[Queue("q")])
    thread = in_thread(consumer.run)
    consumer.stop()
    assert thread.finish() is None


def test_refusal_is_raised(broker_uri, queue_name):
    with pika_channel(broker_uri) as channel:
        channel.queue_declare(queue_name, durable=False)
    with pytest.raises(BrokerRefused):
        Consumer(broker_uri, queues=[Queue(queue_name)]).run()


@pytest.mark.parametrize(
    "options",
    [
        {"queues": []},
        {"queues": ["q"]},
        {"prefetch_count": -1},
        {"heartbeat": 0},
        {"accept": "json"},
    ],
)
def test_wrong_option_is_a_configuration_error(options):
    with pytest.raises(ConfigurationError):
        Consumer("amqp://localhost/", **{"queues": [Queue("q")], **options})


def test_support_can_publish(broker_uri, queue_name, start):
    """A message of another client, without content type, is bytes or text."""
    heard = Heard()
    start(Consumer(broker_uri, queues=[Queue(queue_name)], callbacks=[heard]))
    amqp.publish(broker_uri, b"plain", routing_key=queue_name)
    assert heard.take()[0] in (b"plain", "plain")
