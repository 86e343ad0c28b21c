"""The public publisher, against the broker."""

import gc
import json
import os
import subprocess
import sys
import threading
import zlib
from types import SimpleNamespace

import kombu
import pytest

from tests.conftest import pika_channel
from tests.support import amqp
from tests.support.timing import TIMEOUT
from threadko.amqp import Binding, Exchange, Queue, UndeliverableMessage
from threadko.amqp.publish import Publisher
from threadko.exceptions import ConfigurationError, EncodeError, PublishFailed


@pytest.fixture
def queue_name(names, broker_uri):
    name = names.service("publish")
    with pika_channel(broker_uri) as channel:
        channel.queue_declare(name)
        yield name
        channel.queue_delete(name)


@pytest.fixture
def take(broker_uri, queue_name):
    def take():
        with pika_channel(broker_uri) as channel:
            _, properties, body = channel.basic_get(queue_name, auto_ack=True)
        return SimpleNamespace(body=body, properties=properties)

    return take


def connections():
    return [each for each in threading.enumerate() if "-publisher-connection-" in each.name]


def test_payload_arrives_with_nameko_s_defaults(broker_uri, queue_name, take):
    Publisher(broker_uri).publish({"a": [1, "ü"]}, routing_key=queue_name)
    got = take()
    assert json.loads(got.body) == {"a": [1, "ü"]}
    properties = got.properties
    assert (properties.content_type, properties.content_encoding) == ("application/json", "utf-8")
    assert (properties.delivery_mode, properties.priority, properties.expiration) == (2, 0, None)


def test_later_options_win_and_headers_are_merged(broker_uri, queue_name, take):
    class Quiet(Publisher):
        delivery_mode = 1
        priority = 3

    publisher = Quiet(
        broker_uri,
        priority=4,
        expiration=60,
        app_id="shop",
        headers={"a": "1", "b": "1", "c": "1"},
        extra_headers={"d": "1"},
        routing_key=queue_name,
    )
    publisher.publish(
        "x", expiration=2.5, app_id=None, headers={"b": "2", "c": "2"}, extra_headers={"c": "3"}
    )
    properties = take().properties
    assert (properties.delivery_mode, properties.priority) == (1, 4)
    assert (properties.expiration, properties.app_id) == ("2500", "shop")
    assert properties.headers == {"a": "1", "b": "2", "c": "3", "d": "1"}


def test_delivery_mode_may_be_kombu_s_word_wherever_it_is_given(broker_uri, queue_name, take):
    class Quiet(Publisher):
        delivery_mode = "transient"

    Quiet(broker_uri).publish("x", routing_key=queue_name)
    assert take().properties.delivery_mode == 1
    publisher = Publisher(broker_uri, delivery_mode="transient", routing_key=queue_name)
    publisher.publish("x")
    assert take().properties.delivery_mode == 1
    publisher.publish("x", delivery_mode="persistent")
    assert take().properties.delivery_mode == 2


def test_message_has_no_delivery_mode_where_a_subclass_has_none(broker_uri, queue_name, take):
    class Unspoken(Publisher):
        delivery_mode = None

    Unspoken(broker_uri).publish("x", routing_key=queue_name)
    assert take().properties.delivery_mode is None


def test_wrong_delivery_mode_of_a_subclass_is_an_error(broker_uri, queue_name):
    class Wrong(Publisher):
        delivery_mode = "durable"

    with pytest.raises(ConfigurationError, match="not 'durable'"):
        Wrong(broker_uri).publish("x", routing_key=queue_name)


def test_serializer_and_compression_are_the_call_s(broker_uri, queue_name, take):
    publisher = Publisher(broker_uri, serializer="yaml", routing_key=queue_name)
    publisher.publish({"a": 1})
    assert take().properties.content_type == "application/x-yaml"
    publisher.publish({"a": 1}, serializer="json", compression="gzip")
    got = take()
    assert got.properties.headers == {"compression": "application/x-gzip"}
    assert json.loads(zlib.decompress(got.body)) == {"a": 1}
    publisher.publish(b"<a/>", content_type="application/xml")
    got = take()
    assert (got.properties.content_type, got.body) == ("application/xml", b"<a/>")


def test_what_is_to_be_declared_is_there_before(broker_uri, names):
    name = names.service("declared")
    exchange = Exchange(f"{name}-exchange", "topic", auto_delete=True)
    queue = Queue(name, exchange, "a.#", auto_delete=True)
    publisher = Publisher(broker_uri, declare=[exchange])
    publisher.publish(1, exchange=exchange, routing_key="a.b", declare=[queue], mandatory=True)
    with pika_channel(broker_uri) as channel:
        assert channel.basic_get(name, auto_ack=True)[2] == b"1"
        channel.queue_delete(name)


@pytest.mark.parametrize("kind", ["kombu", "threadko"])
def test_queue_of_several_bindings_is_bound_by_each_and_again_when_they_are_lost(
    broker_uri, names, kind
):
    name = names.queue("declared")
    first, second = f"{name}-first", f"{name}-second"
    if kind == "kombu":
        one, two = (kombu.Exchange(each, "topic", auto_delete=True) for each in (first, second))
        bindings = [kombu.binding(one, "a.#"), kombu.binding(one, "b.#"), kombu.binding(two, "#")]
        bound = kombu.Queue(name, bindings)
    else:
        one, two = (Exchange(each, "topic", auto_delete=True) for each in (first, second))
        bound = Queue(name, one, "a.#", bindings=[Binding(one, "b.#"), Binding(two, "#")])
    publisher = Publisher(broker_uri, declare=[bound], mandatory=True)

    def publish_each():
        for exchange, key in ((first, "a.x"), (first, "b.x"), (second, "x")):
            publisher.publish(key, exchange=exchange, routing_key=key)
        got = amqp.take_messages(broker_uri, name, 3)
        return [each.method.exchange for each in got]

    assert publish_each() == [first, first, second]
    with pytest.raises(UndeliverableMessage):
        publisher.publish("c", exchange=first, routing_key="c.x")
    amqp.delete_exchange(broker_uri, first)
    amqp.delete_exchange(broker_uri, second)
    assert publish_each() == [first, first, second]
    amqp.delete_queue(broker_uri, name)  # and with it the exchanges, which delete themselves
    assert publish_each() == [first, first, second]


def test_delayed_message_finds_each_binding_of_its_queue(broker_uri, names):
    name = names.queue("delayed")
    exchange = Exchange(f"{name}-x", "topic", auto_delete=True)
    bound = Queue(name, bindings=[Binding(exchange, "a"), Binding(exchange, "b")])
    publisher = Publisher(broker_uri, exchange=exchange, declare=[bound])
    for key in ("a", "b"):
        publisher.publish(key, routing_key=key, delay=0.05)
    got = amqp.take_messages(broker_uri, name, 2)
    assert sorted(each.method.routing_key for each in got) == ["a", "b"]


def test_mandatory_message_without_a_queue_is_an_error(broker_uri, names):
    publisher = Publisher(broker_uri, mandatory=True)
    with pytest.raises(UndeliverableMessage, match="no queue takes"):
        publisher.publish("x", routing_key=names.service("nobody"))
    publisher.publish("x", routing_key=names.service("nobody"), mandatory=False)


def test_missing_exchange_fails_that_message_alone(broker_uri, queue_name, names, take):
    publisher = Publisher(broker_uri)
    with pytest.raises(PublishFailed, match="404"):
        publisher.publish("x", exchange=names.service("missing"))
    publisher.publish("y", routing_key=queue_name)
    assert take().body == b'"y"'


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"colour": "red"}, TypeError, "no option is named 'colour', there are: app_id, "),
        ({"expiration": -1}, EncodeError, "expiration must be seconds"),
        ({"serializer": "morse"}, ConfigurationError, "morse"),
        ({"compression": "squeeze"}, ConfigurationError, "squeeze"),
        ({"priority": 300}, EncodeError, "priority"),
        ({"headers": 5}, ConfigurationError, "headers must be a mapping"),
        ({"retry_policy": 5}, ConfigurationError, "retry_policy must be a mapping"),
        ({"timeout": "x"}, ConfigurationError, "timeout must be seconds above 0"),
        ({"timeout": 0}, ConfigurationError, "timeout must be seconds above 0"),
        ({"delivery_mode": 7}, ConfigurationError, "delivery_mode must be 1"),
        ({"delivery_mode": "durable"}, ConfigurationError, "2 or 'persistent', not 'durable'"),
        ({"declare": Queue("q")}, ConfigurationError, "declare must be a list"),
        ({"declare": [5]}, ConfigurationError, "an Exchange is wanted"),
        # The broker takes the shorter time for both, and drops neither the message nor the rest.
        ({"delay": 5, "expiration": 1}, ConfigurationError, "can have no expiration"),
    ],
)
def test_wrong_option_is_an_error_that_names_it(broker_uri, options, error, text):
    with pytest.raises(error, match=text):
        Publisher(broker_uri).publish("x", **options)


def test_absent_broker_is_an_error_by_the_deadline():
    with pytest.raises(PublishFailed, match="nothing was sent"):
        Publisher("amqp://localhost:1/").publish("x", timeout=0.1)


def test_all_publishers_of_a_broker_share_a_connection_which_ends_with_the_last(
    broker_uri, queue_name
):
    before = len(connections())
    publishers = [Publisher(broker_uri, routing_key=queue_name) for _ in range(3)]
    barrier = threading.Barrier(12)

    def publish(number):
        barrier.wait(TIMEOUT)
        for _ in range(20):
            publishers[number % 3].publish(number)

    threads = [threading.Thread(target=publish, args=(number,)) for number in range(12)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(TIMEOUT)
    (link,) = connections()[before:]
    with pika_channel(broker_uri) as channel:
        assert channel.queue_declare(queue_name, passive=True).method.message_count == 240
    publishers.pop()
    gc.collect()
    publishers[0].publish("still")
    assert link.is_alive()
    del publishers[:]
    gc.collect()
    link.join(TIMEOUT)
    assert not link.is_alive()


def test_wrong_password_is_told_and_does_not_stay(broker_uri, queue_name):
    wrong = Publisher(broker_uri.replace("guest:guest@", "guest:wrong@", 1))
    for _ in range(2):
        with pytest.raises(PublishFailed, match=r"(?i)refuse|403"):
            wrong.publish("x", routing_key=queue_name)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="fork needs a POSIX system")
def test_forked_child_publishes_on_a_connection_of_its_own(broker_uri, queue_name, take):
    program = f"""
import os
from threadko.amqp.publish import Publisher
publisher = Publisher({broker_uri!r}, routing_key={queue_name!r})
publisher.publish("parent")
child = os.fork()
if not child:
    publisher.publish("child")
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
publisher.publish("parent again")
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=TIMEOUT)
    assert [take().body for _ in range(3)] == [b'"parent"', b'"child"', b'"parent again"']
