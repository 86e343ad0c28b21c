"""Where the broker draws the line: messages that are too large, and messages that always fail."""

import threading

import pytest

from tests.support import amqp
from tests.support.timing import TIMEOUT
from threadko.amqp.message import Properties
from threadko.amqp.parameters import BrokerParameters
from threadko.amqp.publishing import PublishLink
from threadko.containers import ServiceContainer
from threadko.exceptions import PublishFailed
from threadko.messaging import Queue, consume

pytestmark = [pytest.mark.long, pytest.mark.timeout(8 * TIMEOUT)]


@pytest.fixture(scope="session")
def broker_uri(node):
    return node.uri


def test_message_that_is_too_large_for_the_broker_fails_alone(broker_uri, names, proxy):
    queue = amqp.declare_queue(broker_uri, names.queue())
    publisher = PublishLink(
        BrokerParameters.from_uri(proxy.uri_for(broker_uri)),
        name="threadko-test-publisher-1",
        timeout=TIMEOUT,
    )
    bodies = [b"x" * 250_000 if number == 4 else b"%d" % number for number in range(10)]
    publisher.start()
    try:
        futures = [
            publisher.publish_async(bodies[number], Properties(), routing_key=queue)
            for number in range(10)
        ]
        errors = [future.exception(TIMEOUT) for future in futures]
        publisher.publish(b"next", Properties(), routing_key=queue)
    finally:
        publisher.stop(TIMEOUT)
    assert [number for number, error in enumerate(errors) if error is not None] == [4]
    assert isinstance(errors[4], PublishFailed)
    assert "larger than configured max size" in str(errors[4])
    # Its neighbours are sent anew if their confirms were not here: they may be there twice.
    left = amqp.take_messages(broker_uri, queue, amqp.queue_depth(broker_uri, queue))
    assert {message.body for message in left} == {*bodies, b"next"} - {bodies[4]}
    assert proxy.accepted == 1, "a channel was closed, not the connection"


def test_poison_leaves_a_quorum_queue_when_it_was_delivered_as_often_as_allowed(
    broker_uri, names, amqp_config
):
    limit = 3
    dead = amqp.declare_queue(broker_uri, names.queue("dead"), durable=True)
    queue_name = names.queue("poisoned")
    runs = []
    well = threading.Event()
    arguments = {
        "x-queue-type": "quorum",
        "x-delivery-limit": limit,
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": dead,
    }

    class Service:
        name = names.service("poisoned")

        @consume(Queue(queue_name, queue_arguments=arguments), requeue_on_error=True)
        def handle(self, body):
            runs.append(body)
            if body == "poison":
                raise LookupError("always")
            well.set()

    container = ServiceContainer(Service, config=amqp_config)
    container.start()
    try:
        amqp.publish(
            broker_uri, b'"poison"', routing_key=queue_name, content_type="application/json"
        )
        message = amqp.expect_message(broker_uri, dead)
        amqp.publish(broker_uri, b'"well"', routing_key=queue_name, content_type="application/json")
        assert well.wait(TIMEOUT)
    finally:
        container.stop()
    assert message.body == b'"poison"'
    assert message.properties.headers["x-death"][0]["reason"] == "delivery_limit"
    assert runs == ["poison"] * (limit + 1) + ["well"]
    assert amqp.queue_depth(broker_uri, queue_name) == 0
