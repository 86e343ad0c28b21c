import threading
import uuid

import pytest
from pika.exceptions import UnroutableError

from tests.support import amqp
from tests.support.timing import TIMEOUT


@pytest.fixture
def queue(broker_uri):
    name = amqp.declare_queue(broker_uri, f"raw-{uuid.uuid4().hex}")
    yield name
    amqp.delete_queue(broker_uri, name)


def test_message_is_got_as_it_was_published(broker_uri, queue):
    amqp.publish(broker_uri, b"body", routing_key=queue, correlation_id="c", headers={"a": 1})
    assert amqp.queue_depth(broker_uri, queue) == 1
    message = amqp.get_message(broker_uri, queue)
    assert message is not None
    assert message.body == b"body"
    assert (message.properties.correlation_id, message.properties.headers) == ("c", {"a": 1})
    assert amqp.get_message(broker_uri, queue) is None


def test_queue_is_bound_when_an_exchange_is_named(broker_uri, queue):
    amqp.declare_queue(broker_uri, queue, exchange="amq.topic", routing_key="key")
    amqp.publish(broker_uri, b"x", exchange="amq.topic", routing_key="key")
    assert amqp.expect_message(broker_uri, queue).body == b"x"


def test_publish_to_nowhere_is_an_error(broker_uri):
    with pytest.raises(UnroutableError):
        amqp.publish(broker_uri, b"x", routing_key=f"missing-{uuid.uuid4().hex}")


def test_expected_message_is_waited_for(broker_uri, queue):
    found = []
    waiter = threading.Thread(target=lambda: found.append(amqp.expect_message(broker_uri, queue)))
    waiter.start()
    amqp.publish(broker_uri, b"late", routing_key=queue)
    waiter.join(TIMEOUT)
    assert [message.body for message in found] == [b"late"]


def test_expected_message_that_does_not_come_is_a_timeout(broker_uri, queue):
    with pytest.raises(TimeoutError, match=queue):
        amqp.expect_message(broker_uri, queue, 0.05)


def test_only_one_message_is_taken(broker_uri, queue):
    for body in (b"1", b"2"):
        amqp.publish(broker_uri, body, routing_key=queue)
    assert amqp.expect_message(broker_uri, queue).body == b"1"
    assert amqp.expect_message(broker_uri, queue).body == b"2"


def test_queue_can_be_looked_at_purged_and_deleted(broker_uri, queue):
    amqp.publish(broker_uri, b"x", routing_key=queue)
    amqp.purge_queue(broker_uri, queue)
    assert amqp.queue_depth(broker_uri, queue) == 0
    assert amqp.queue_consumers(broker_uri, queue) == 0
    assert amqp.has_queue(broker_uri, queue)
    amqp.delete_queue(broker_uri, queue)
    assert not amqp.has_queue(broker_uri, queue)
    amqp.delete_exchange(broker_uri, f"missing-{uuid.uuid4().hex}")
