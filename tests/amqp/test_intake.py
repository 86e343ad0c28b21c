"""The link that takes a queue's messages; what it shares with RPC is tested there too."""

import queue
import threading

import pytest

from tests.support import amqp
from tests.support.proxy import Proxy
from tests.support.timing import TIMEOUT
from threadko.amqp.confirms import Outgoing
from threadko.amqp.entities import Queue
from threadko.amqp.intake import IntakeLink
from threadko.amqp.message import Properties, encode_properties
from threadko.amqp.parameters import BrokerParameters
from threadko.concurrency.deadline import Deadline


class Told(Outgoing):
    """A message that says what became of it."""

    __slots__ = ("outcome",)

    def __init__(self, routing_key, **options):
        header = encode_properties(Properties())
        super().__init__(
            exchange="", routing_key=routing_key, header=header, body=b"sent", **options
        )
        self.outcome = queue.SimpleQueue()

    def on_confirmed(self):
        self.outcome.put(None)

    def on_failed(self, error):
        self.outcome.put(error)


class Intake:
    """A link whose messages a test takes."""

    def __init__(self, uri, name, prefetch=10):
        self.deliveries = queue.SimpleQueue()
        self.link = IntakeLink(
            BrokerParameters.from_uri(uri),
            name="threadko-test-intake-1",
            queue=Queue(name),
            prefetch=prefetch,
            on_delivery=self.deliveries.put,
        )
        self.link.start()
        self.link.wait_up(Deadline(TIMEOUT))
        self.link.open()

    def take(self):
        return self.deliveries.get(timeout=TIMEOUT)


@pytest.fixture
def name(names):
    return names.queue("intake")


@pytest.fixture
def make(broker_uri, name):
    made = []

    def make(uri=broker_uri, **options):
        made.append(Intake(uri, name, **options))
        return made[-1]

    yield make
    for each in made:
        each.link.stop(TIMEOUT)


def test_acknowledged_rejected_and_requeued(make, broker_uri, name):
    intake = make()
    for body in (b"a", b"b", b"c"):
        amqp.publish(broker_uri, body, routing_key=name)
    first, second, third = intake.take(), intake.take(), intake.take()
    intake.link.ack(first)
    intake.link.reject(second)
    intake.link.requeue(third)
    again = intake.take()
    assert (again.body, again.redelivered) == (b"c", True)
    intake.link.stop(TIMEOUT)
    assert amqp.queue_depth(broker_uri, name) == 1


def test_failed_message_comes_back_at_once_and_then_after_pauses(make, broker_uri, name):
    intake = make()
    amqp.publish(broker_uri, b"x", routing_key=name)
    first = intake.take()
    intake.link.back_off(first)
    second = intake.take()
    intake.link.back_off(second)
    # It is held meanwhile, not in the queue: its prefetch is the price of `requeue_on_error`.
    assert amqp.queue_depth(broker_uri, name) == 0
    third = intake.take()
    assert third.redelivered
    intake.link.ack(third)
    intake.link.stop(TIMEOUT)
    assert amqp.queue_depth(broker_uri, name) == 0


def test_what_is_held_back_goes_back_with_a_stop(make, broker_uri, name):
    intake = make()
    amqp.publish(broker_uri, b"x", routing_key=name)
    for _ in range(4):  # the pause grows
        intake.link.back_off(intake.take())
    intake.link.cancel()
    intake.link.stop(TIMEOUT)
    assert amqp.queue_depth(broker_uri, name) == 1


def test_pause_that_outlives_its_connection_harms_nobody(make, broker_uri, name):
    with Proxy.for_uri(broker_uri) as proxy:
        intake = make(proxy.uri_for(broker_uri), prefetch=1)
        amqp.publish(broker_uri, b"x", routing_key=name)
        intake.link.back_off(intake.take())
        held = intake.take()
        intake.link.back_off(held)
        proxy.cut()
        again = intake.take()
        amqp.publish(broker_uri, b"y", routing_key=name)
        # The pause of the first connection ends here, over a message that is not its own.
        intake.link.back_off(again)
        assert intake.take().body == b"x"
        intake.link.stop(TIMEOUT)
    assert amqp.queue_depth(broker_uri, name) == 2


def test_sent_message_is_confirmed_and_what_it_needs_is_declared_first(
    make, broker_uri, name, names
):
    target = names.queue("target")
    intake = make()
    for _ in range(2):
        message = Told(target, declare_first=(Queue(target),))
        intake.link.send(message)
        assert message.outcome.get(timeout=TIMEOUT) is None
        amqp.delete_queue(broker_uri, target)
    message = Told(target, declare_first=(Queue(target),))
    intake.link.send(message)
    assert message.outcome.get(timeout=TIMEOUT) is None
    assert amqp.expect_message(broker_uri, target).body == b"sent"


def test_refused_declaration_fails_its_message_alone(make, broker_uri, name, names):
    wrong, right = names.queue("wrong"), names.queue("right")
    amqp.declare_queue(broker_uri, wrong)
    intake = make()
    amqp.publish(broker_uri, b"x", routing_key=name)
    delivery = intake.take()
    refused = Told(wrong, declare_first=(Queue(wrong, max_length=1),))
    neighbours = [Told(right, declare_first=(Queue(right),)) for _ in range(3)]
    barrier = threading.Event()
    intake.link._link.post(lambda: barrier.wait(TIMEOUT))  # so that they leave together
    for message in (neighbours[0], refused, *neighbours[1:]):
        intake.link.send(message)
    barrier.set()
    assert "406" in str(refused.outcome.get(timeout=TIMEOUT))
    assert [each.outcome.get(timeout=TIMEOUT) for each in neighbours] == [None] * 3
    intake.link.ack(delivery)  # on the other channel, which is not concerned
    intake.link.stop(TIMEOUT)
    assert amqp.queue_depth(broker_uri, name) == 0


def test_stop_waits_for_what_was_sent(make, broker_uri, name, names):
    target = names.queue("target")
    intake = make()
    messages = [Told(target, declare_first=(Queue(target),)) for _ in range(200)]
    for message in messages:
        intake.link.send(message)
    intake.link.stop(TIMEOUT)
    assert [each.outcome.get_nowait() for each in messages] == [None] * 200
    assert amqp.queue_depth(broker_uri, target) == 200
