"""`Publisher`, against the broker."""

import json
import queue
import threading
import time

import kombu
import pytest

from tests.conftest import pika_channel
from tests.containers.dummies import Gate
from tests.support import amqp
from tests.support.proxy import Proxy
from tests.support.timing import TIMEOUT
from threadko.exceptions import BrokerRefused, ConfigurationError, WorkerKilled
from threadko.messaging import (
    Exchange,
    Publisher,
    Queue,
    consume,
)
from threadko.rpc import rpc
from threadko.standalone.rpc import ServiceRpcClient

# Headers


def test_unknown_option_of_a_publisher_is_an_error_where_it_stands():
    with pytest.raises(TypeError, match="no option is named 'colour'"):
        Publisher(colour="red")


@pytest.fixture
def publishing(container_factory, amqp_config, names):
    """Starts a service with one publisher, and returns a client whose `run` publishes."""
    clients = []

    def publishing(publisher, config=(), **members):
        class Publishing:
            name = names.service()
            publish = publisher

            @rpc
            def run(self, payload, options):
                self.publish(payload, **options)

        for key, value in members.items():
            setattr(Publishing, key, value)
        container_factory(Publishing, config={**amqp_config, **dict(config)}).start()
        client = ServiceRpcClient(
            Publishing.name, context_data={"language": "de"}, config=amqp_config, timeout=TIMEOUT
        )
        clients.append(client)
        return client.start()

    yield publishing
    for client in clients:
        client.stop()


def test_publisher_sends_the_context_along_and_call_options_win(publishing, broker_uri, queue_name):
    amqp.declare_queue(broker_uri, queue_name)
    client = publishing(
        Publisher(
            routing_key="nowhere",
            headers={"a": "1", "nameko.language": "fr"},
            extra_headers={"b": "1"},
            expiration=60,
            priority=1,
        )
    )
    options = {"routing_key": queue_name, "headers": {"a": "2"}, "priority": 2}
    client.run({"x": 1}, options)
    message = amqp.expect_message(broker_uri, queue_name)
    headers = message.properties.headers
    assert json.loads(message.body) == {"x": 1}
    assert (headers["a"], headers["b"], headers["nameko.language"]) == ("2", "1", "de")
    assert [name for name in headers if name.startswith("nameko.")] == [
        "nameko.language",
        "nameko.call_id_stack",
    ]
    assert headers["nameko.call_id_stack"][-1].split(".")[1] == "run"
    assert (message.properties.priority, message.properties.expiration) == (2, "60000")


def test_exchange_and_declarations_stand_when_the_service_runs(publishing, broker_uri, queue_name):
    exchange = Exchange(f"{queue_name}-x", "topic", auto_delete=True)
    publishing(Publisher(exchange=exchange, declare=[Queue(queue_name, exchange, "a.*")]))
    with pika_channel(broker_uri) as channel:
        channel.basic_publish(exchange.name, "a.b", b"x")
    assert amqp.expect_message(broker_uri, queue_name).body == b"x"


def test_queue_of_kombu_is_declared_at_the_start_with_each_binding(
    publishing, broker_uri, queue_name
):
    exchange = kombu.Exchange(f"{queue_name}-x", "topic", auto_delete=True)
    bindings = [kombu.binding(exchange, key) for key in ("a.*", "b.*")]
    publishing(Publisher(exchange=exchange, declare=[kombu.Queue(queue_name, bindings)]))
    for key in ("a.x", "b.x"):
        amqp.publish(broker_uri, key.encode(), exchange=exchange.name, routing_key=key)
    assert [each.body for each in amqp.take_messages(broker_uri, queue_name, 2)] == [b"a.x", b"b.x"]


def test_declaration_that_is_refused_fails_the_start(publishing, broker_uri, queue_name):
    with pika_channel(broker_uri) as channel:
        channel.queue_declare(queue_name, durable=False)
    with pytest.raises(BrokerRefused, match="other arguments"):
        publishing(Publisher(declare=[Queue(queue_name)]))


def test_delayed_message_arrives_later_at_its_exchange(publishing, broker_uri, queue_name):
    exchange = Exchange(f"{queue_name}-x", "topic", auto_delete=True)
    client = publishing(Publisher(exchange=exchange, declare=[Queue(queue_name, exchange, "a.*")]))
    begun = time.monotonic()
    client.run("later", {"routing_key": "a.b", "delay": 0.5})
    client.run("now", {"routing_key": "a.b"})
    came = {}
    for _ in range(2):  # on a busy machine the first may be sent half a second before the second
        body = amqp.expect_message(broker_uri, queue_name).body
        came[body] = time.monotonic() - begun
    assert set(came) == {b'"now"', b'"later"'}
    assert came[b'"later"'] >= 0.5


def test_delay_that_is_none_is_an_error(publishing, queue_name):
    client = publishing(Publisher(routing_key=queue_name))
    with pytest.raises(Exception, match="delay must be seconds"):
        client.run("x", {"delay": -1})


def test_two_publishers_share_a_connection_and_another_broker_has_its_own(
    publishing, broker_uri, queue_name
):
    amqp.declare_queue(broker_uri, queue_name)
    before = {each.name for each in threading.enumerate()}
    client = publishing(
        Publisher(), second=Publisher(), elsewhere=Publisher(uri=f"{broker_uri}?heartbeat=30")
    )
    client.run(1, {"routing_key": queue_name})
    new = [each.name for each in threading.enumerate() if each.name not in before]
    assert len([name for name in new if "-publisher-" in name]) == 2


def test_delivery_mode_may_be_kombu_s_word(publishing, broker_uri, queue_name):
    amqp.declare_queue(broker_uri, queue_name)
    client = publishing(Publisher(delivery_mode="transient", routing_key=queue_name))
    client.run("x", {})
    client.run("x", {"delivery_mode": "persistent"})
    got = amqp.take_messages(broker_uri, queue_name, 2)
    assert [each.properties.delivery_mode for each in got] == [1, 2]


def test_wrong_delivery_mode_is_an_error_where_it_stands():
    with pytest.raises(ConfigurationError, match="2 or 'persistent', not 'durable'"):
        Publisher(delivery_mode="durable")


def test_undeliverable_and_refused_messages_are_errors_of_the_call(publishing, names):
    client = publishing(Publisher(mandatory=True))
    with pytest.raises(Exception, match="no queue takes"):
        client.run(1, {"routing_key": names.queue()})
    with pytest.raises(Exception, match="404"):
        client.run(1, {"exchange": names.queue()})


def test_kill_wakes_a_worker_that_waits_for_its_confirm(
    container_factory, amqp_config, names, broker_uri, queue_name, send
):
    seen = queue.SimpleQueue()
    gate = Gate()

    with Proxy.for_uri(broker_uri) as proxy:

        class Publishing:
            name = names.service()
            publish = Publisher(uri=proxy.uri_for(broker_uri))

            @consume(Queue(queue_name))
            def run(self, body):
                gate.hold()
                try:
                    self.publish("x", routing_key="nowhere", timeout=10 * TIMEOUT)
                except BaseException as error:
                    seen.put(error)
                    raise

        container = container_factory(Publishing, config=amqp_config)
        container.start()
        send(1)
        gate.wait_reached()
        proxy.hole()
        gate.released.set()
        proxy.wait_for(lambda: proxy.swallowed["up"] > 0)
        container.kill()
        assert isinstance(seen.get(timeout=TIMEOUT), WorkerKilled)


def test_properties_of_all_messages_and_of_one(publishing, broker_uri, queue_name):
    amqp.declare_queue(broker_uri, queue_name)
    client = publishing(Publisher(app_id="shop", delivery_mode=1, routing_key=queue_name))
    client.run("x", {"correlation_id": "c", "type": "t", "serializer": "yaml"})
    got = amqp.expect_message(broker_uri, queue_name).properties
    assert (got.app_id, got.delivery_mode, got.correlation_id, got.type, got.content_type) == (
        "shop",
        1,
        "c",
        "t",
        "application/x-yaml",
    )
