import contextlib
import queue
import threading
import time
import uuid

import pika
import pytest
from pika import frame, spec

from tests.conftest import pika_channel
from tests.support.fake_broker import FakeBroker
from tests.support.proxy import Proxy
from tests.support.timing import TIMEOUT
from threadko.amqp.connection import Connection
from threadko.amqp.consuming import ConsumerChannel
from threadko.amqp.entities import Exchange, Queue
from threadko.amqp.link import Link
from threadko.amqp.parameters import BrokerParameters
from threadko.concurrency.deadline import Deadline


class Consumer:
    """A session with one consumer, whose news the test takes from queues."""

    def __init__(self, uri, queue_, prefetch=0, **options):
        self.deliveries = queue.SimpleQueue()
        self.ready = queue.SimpleQueue()
        self.closed = queue.SimpleQueue()
        self.cancelled = queue.SimpleQueue()
        self.link = Link(
            BrokerParameters.from_uri(uri),
            name="threadko-test-consume-1",
            session=self,
            **options,
        )
        self.channel = ConsumerChannel(
            self.link,
            1,
            queue_,
            prefetch=prefetch,
            on_delivery=self.deliveries.put,
            on_ready=self._on_ready,
            on_closed=self._on_closed,
            on_cancelled=lambda: self.cancelled.put(True),
        )

    def _on_ready(self):
        self.link.came_up()
        self.ready.put(self.channel.generation)

    def _on_closed(self, reason):
        self.closed.put(reason)
        self.channel.open(self.link.connection)

    def begin(self, connection: Connection):
        self.channel.open(connection)

    def end(self, error):
        self.channel.detach()

    def turn(self):
        pass

    def finish(self):
        self.channel.close(self.link.finished)

    def abandon(self, error, killed):
        pass

    # The test's side

    def run(self, call):
        """Run on the link's thread, and return what came out."""
        out = queue.SimpleQueue()
        assert self.link.post(lambda: out.put(call()))
        return out.get(timeout=TIMEOUT)

    def start(self):
        self.link.start()
        self.link.wait_up(Deadline(TIMEOUT))
        self.ready.get(timeout=TIMEOUT)
        return self

    def consume(self):
        self.run(self.channel.consume)
        return self

    def take(self):
        return self.deliveries.get(timeout=TIMEOUT)

    def ack(self, delivery):
        self.run(lambda: self.channel.ack(delivery))


@pytest.fixture
def broker(broker_uri):
    with pika_channel(broker_uri) as channel:
        channel.confirm_delivery()  # so that what was sent is counted
        yield channel


@pytest.fixture
def queue_name(broker):
    name = f"test-{uuid.uuid4().hex}"
    yield name
    if broker.is_open:
        broker.queue_delete(name)


@pytest.fixture
def start(broker_uri):
    """Starts consumers, and ends them with the test."""
    consumers = []

    def start(queue_, *, prefetch=0, uri=broker_uri):
        consumer = Consumer(uri, queue_, prefetch)
        consumers.append(consumer)
        return consumer.start()

    yield start
    for consumer in consumers:
        consumer.link.kill()


def send(broker, name, *bodies):
    for body in bodies:
        broker.basic_publish("", name, body)


def waiting(broker, name):
    return broker.queue_declare(name, passive=True).method.message_count


def consumers_of(broker, name):
    return broker.queue_declare(name, passive=True).method.consumer_count


def wait_consumers(broker, name, count):
    end = time.monotonic() + TIMEOUT
    while consumers_of(broker, name) != count:  # each a round trip to the broker
        assert time.monotonic() < end


def wait_waiting(broker, name, count):
    deadline = time.monotonic() + TIMEOUT
    while waiting(broker, name) != count:
        assert time.monotonic() < deadline, f"{count} messages never waited"


def stop(consumer):
    assert consumer.link.stop(TIMEOUT), "it did not end by itself"


# Declaring and consuming


def test_nothing_is_consumed_before_it_is_asked_for(start, broker, queue_name):
    consumer = start(Queue(queue_name))
    send(broker, queue_name, b"a")
    assert consumers_of(broker, queue_name) == 0
    consumer.consume()
    assert consumer.take().body == b"a"


def test_queue_is_declared_with_its_exchange_and_binding(start, broker, queue_name):
    exchange = Exchange(f"{queue_name}-x", "topic", auto_delete=True)
    consumer = start(Queue(queue_name, exchange, "some.*")).consume()
    broker.basic_publish(exchange.name, "some.key", b"a")
    delivery = consumer.take()
    assert (delivery.exchange, delivery.routing_key) == (exchange.name, "some.key")
    assert delivery.redelivered is False


def test_consuming_asked_for_before_the_connection_stands_begins_by_itself(
    broker_uri, broker, queue_name
):
    consumer = Consumer(broker_uri, Queue(queue_name))
    consumer.channel.consume()
    consumer.start()
    send(broker, queue_name, b"a")
    assert consumer.take().body == b"a"
    consumer.link.kill()


def test_consuming_asked_for_twice_makes_one_consumer(start, broker, queue_name):
    consumer = start(Queue(queue_name))
    consumer.run(lambda: (consumer.channel.consume(), consumer.channel.consume()))
    consumer.consume()
    send(broker, queue_name, b"a")
    consumer.take()
    assert consumers_of(broker, queue_name) == 1
    assert consumer.link.generation == 1


def test_prefetch_bounds_what_is_not_acknowledged(start, broker, queue_name):
    consumer = start(Queue(queue_name), prefetch=2).consume()
    send(broker, queue_name, b"a", b"b", b"c", b"d")
    first = consumer.take()
    consumer.take()
    assert waiting(broker, queue_name) == 2
    assert consumer.deliveries.empty()
    consumer.ack(first)
    assert consumer.take().body == b"c"


def test_consumer_arguments_reach_the_broker(start, broker, queue_name):
    low = start(Queue(queue_name, consumer_arguments={"x-priority": 1})).consume()
    high = start(Queue(queue_name, consumer_arguments={"x-priority": 9})).consume()
    wait_consumers(broker, queue_name, 2)
    send(broker, queue_name, b"a")
    assert high.take().body == b"a"
    assert low.deliveries.empty()


# Settling


def test_acknowledged_message_is_gone_and_rejected_one_comes_again(start, broker, queue_name):
    consumer = start(Queue(queue_name)).consume()
    send(broker, queue_name, b"a", b"b")
    first, second = consumer.take(), consumer.take()
    consumer.ack(first)
    consumer.run(lambda: consumer.channel.reject(second, requeue=True))
    again = consumer.take()
    assert (again.body, again.redelivered) == (b"b", True)
    consumer.run(lambda: consumer.channel.reject(again, requeue=False))
    stop(consumer)
    assert waiting(broker, queue_name) == 0


def test_acknowledging_up_to_a_tag_takes_all_before_it(start, broker, queue_name):
    consumer = start(Queue(queue_name)).consume()
    send(broker, queue_name, b"a", b"b", b"c")
    tags = [consumer.take().tag for _ in range(3)]
    consumer.run(lambda: consumer.channel.ack_up_to(tags[1]))
    stop(consumer)
    assert waiting(broker, queue_name) == 1


def test_late_acknowledgement_does_not_settle_a_message_of_the_next_connection(
    start, broker, queue_name
):
    consumer = start(Queue(queue_name), prefetch=1).consume()
    send(broker, queue_name, b"a", b"b")
    early = consumer.take()
    consumer.run(lambda: consumer.link.reset(OSError("cut by the test")))
    consumer.ready.get(timeout=TIMEOUT)
    again = consumer.take()
    assert (again.tag, early.tag) == (1, 1)  # the same tag, another message's or not
    consumer.ack(early)
    consumer.run(lambda: consumer.channel.reject(early, requeue=False))
    stop(consumer)
    assert waiting(broker, queue_name) == 2


def test_late_acknowledgement_does_not_settle_a_message_of_the_next_channel(
    start, broker, queue_name
):
    consumer = start(Queue(queue_name), prefetch=1).consume()
    send(broker, queue_name, b"a", b"b")
    early = consumer.take()
    consumer.run(lambda: consumer.channel.ack_up_to(99))  # 406
    consumer.take()
    consumer.ack(early)
    stop(consumer)
    assert waiting(broker, queue_name) == 2


def test_acknowledgement_while_there_is_no_connection_is_dropped(broker_uri, queue_name, broker):
    with Proxy.for_uri(broker_uri) as proxy:
        consumer = Consumer(proxy.uri_for(broker_uri), Queue(queue_name)).start().consume()
        send(broker, queue_name, b"a")
        delivery = consumer.take()
        proxy.refuse()
        proxy.cut()
        ended = threading.Event()
        consumer.run(lambda: consumer.link.call_at(0.0, ended.set))
        assert ended.wait(TIMEOUT)
        consumer.ack(delivery)
        proxy.accept()
        consumer.ready.get(timeout=TIMEOUT)
        again = consumer.take()
        assert again.redelivered
        consumer.ack(again)
        stop(consumer)
    assert waiting(broker, queue_name) == 0


# Cancelling


def test_what_comes_after_cancelling_goes_back(start, broker, queue_name):
    consumer = start(Queue(queue_name)).consume()
    for number in range(50):
        send(broker, queue_name, str(number).encode())
    taken = [consumer.take()]
    consumer.run(consumer.channel.cancel)
    broker.queue_declare(queue_name, passive=True)
    stop(consumer)
    with contextlib.suppress(queue.Empty):
        while True:
            taken.append(consumer.deliveries.get_nowait())
    # nothing was acknowledged: all are back, and none that came after was passed on twice
    assert len({delivery.tag for delivery in taken}) == len(taken)
    assert waiting(broker, queue_name) == 50


def test_delivery_on_its_way_when_cancelling_is_handed_back_at_once(start, broker, queue_name):
    consumer = start(Queue(queue_name)).consume()

    def cancel_what_is_sent():
        send(broker, queue_name, b"late")
        wait_waiting(broker, queue_name, 0)
        consumer.channel.cancel()

    consumer.run(cancel_what_is_sent)
    wait_waiting(broker, queue_name, 1)
    assert consumer.deliveries.empty()


def test_deliveries_taken_before_cancelling_can_still_be_acknowledged(start, broker, queue_name):
    consumer = start(Queue(queue_name)).consume()
    send(broker, queue_name, b"a")
    delivery = consumer.take()
    consumer.run(lambda: (consumer.channel.cancel(), consumer.channel.cancel()))
    consumer.ack(delivery)
    stop(consumer)
    assert waiting(broker, queue_name) == 0


def test_cancelled_consumer_does_not_consume_after_a_reconnect(start, broker, queue_name):
    consumer = start(Queue(queue_name)).consume()
    consumer.run(consumer.channel.cancel)
    consumer.run(lambda: consumer.link.reset(OSError("cut by the test")))
    consumer.ready.get(timeout=TIMEOUT)
    wait_consumers(broker, queue_name, 0)


def test_cancelling_while_the_broker_is_asked_to_consume_ends_the_consumer(
    start, broker, queue_name
):
    consumer = start(Queue(queue_name))
    consumer.run(lambda: (consumer.channel.consume(), consumer.channel.cancel()))
    stop(consumer)
    send(broker, queue_name, b"a")
    assert consumer.deliveries.empty()
    assert waiting(broker, queue_name) == 1


def test_consuming_again_while_the_consumer_is_being_cancelled_works(start, broker, queue_name):
    consumer = start(Queue(queue_name)).consume()
    consumer.run(lambda: (consumer.channel.cancel(), consumer.channel.consume()))
    send(broker, queue_name, b"a", b"b")
    bodies = {consumer.take().body, consumer.take().body}
    assert bodies == {b"a", b"b"}
    stop(consumer)  # the broker answers in order: it has heard all that was asked before
    assert consumer.link.generation == 1


def test_consuming_again_after_the_consumer_was_cancelled_works(start, broker, queue_name):
    consumer = start(Queue(queue_name)).consume()
    for body in (b"a", b"b"):
        consumer.run(consumer.channel.cancel)
        consumer.consume()
        send(broker, queue_name, body)
        delivery = consumer.take()
        consumer.ack(delivery)
        assert delivery.body == body
    stop(consumer)
    assert consumer.link.generation == 1


# Faults


def test_deleted_queue_is_declared_again_and_consumed(start, broker, queue_name):
    consumer = start(Queue(queue_name)).consume()
    send(broker, queue_name, b"a")
    delivery = consumer.take()
    broker.queue_delete(queue_name)
    assert consumer.cancelled.get(timeout=TIMEOUT)
    consumer.ready.get(timeout=TIMEOUT)
    consumer.ack(delivery)  # the channel is the same, the broker takes it
    send(broker, queue_name, b"b")
    assert consumer.take().body == b"b"
    assert consumer.closed.empty()
    assert consumer.link.generation == 1


def test_queue_deleted_again_and_again_is_consumed_in_the_end(start, broker, queue_name):
    consumer = start(Queue(queue_name)).consume()
    for number in range(5):
        wait_consumers(broker, queue_name, 1)
        broker.queue_delete(queue_name)
        consumer.ready.get(timeout=TIMEOUT)
        send(broker, queue_name, str(number).encode())
        assert consumer.take().body == str(number).encode()


def test_deleted_queue_of_a_cancelled_consumer_is_left_alone(start, broker, queue_name):
    consumer = start(Queue(queue_name)).consume()
    consumer.run(consumer.channel.cancel)
    broker.queue_delete(queue_name)
    stop(consumer)
    assert consumer.cancelled.empty()
    with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="404"):
        broker.queue_declare(queue_name, passive=True)


def test_double_acknowledgement_costs_a_channel_and_consuming_goes_on(start, broker, queue_name):
    consumer = start(Queue(queue_name)).consume()
    send(broker, queue_name, b"a", b"b")
    first, held = consumer.take(), consumer.take()
    consumer.ack(first)
    consumer.run(lambda: consumer.channel.ack_up_to(first.tag))  # 406 unknown delivery tag
    assert consumer.closed.get(timeout=TIMEOUT).reply_code == 406
    again = consumer.take()
    assert (again.body, again.redelivered) == (b"b", True)
    assert again.generation > held.generation
    consumer.ack(again)
    stop(consumer)
    assert consumer.link.generation == 1
    assert waiting(broker, queue_name) == 0


def test_close_means_that_the_broker_has_seen_every_acknowledgement(start, broker, queue_name):
    consumer = start(Queue(queue_name)).consume()
    send(broker, queue_name, *[b"x"] * 200)
    deliveries = [consumer.take() for _ in range(200)]
    closed = threading.Event()

    def settle_and_close():
        for delivery in deliveries:
            consumer.channel.ack(delivery)
        consumer.channel.close(closed.set)
        return closed.is_set()

    assert consumer.run(settle_and_close) is False
    assert closed.wait(TIMEOUT)
    assert waiting(broker, queue_name) == 0
    assert not consumer.channel.is_open


def test_close_is_done_when_the_connection_is_lost_instead(start, queue_name):
    consumer = start(Queue(queue_name))
    closed = threading.Event()

    def close_and_lose():
        consumer.channel.close(closed.set)
        consumer.link.reset(OSError("cut by the test"))

    consumer.run(close_and_lose)
    assert closed.wait(TIMEOUT)


@contextlib.contextmanager
def mute_at_first(method, answer_timeout=0.5):
    """A broker that does not answer a method on the first connection that it gets."""
    with FakeBroker() as broker:
        broker.is_mute = lambda _, asked: broker.accepted == 1 and isinstance(asked, method)
        consumer = Consumer(broker.uri, Queue("q", Exchange("x")), 1, answer_timeout=answer_timeout)
        try:
            yield broker, consumer
        finally:
            stop(consumer)


@pytest.mark.parametrize(
    "method",
    [
        spec.Channel.Open,
        spec.Exchange.Declare,
        spec.Queue.Declare,
        spec.Queue.Bind,
        spec.Basic.Qos,
        spec.Basic.Consume,
    ],
)
def test_connection_is_made_anew_when_a_consumer_gets_no_answer(method, caplog):
    with mute_at_first(method) as (broker, consumer):
        consumer.channel.consume()
        consumer.link.start()
        broker.wait_for(lambda: len(broker.asked) == 1)
        broker.wait_consumer()
        consumer.link.wait_up(Deadline(TIMEOUT))
        assert broker.accepted >= 2  # a busy machine may need more
    assert "the broker has not answered" in caplog.text


def test_connection_is_made_anew_when_a_consumer_that_comes_later_gets_no_answer(caplog):
    with mute_at_first(spec.Basic.Consume) as (broker, consumer):
        consumer.start().consume()
        broker.wait_for(lambda: len(broker.asked) == 1)
        broker.wait_consumer()
        assert broker.accepted >= 2  # a busy machine may need more
    assert "the broker has not answered what was asked about queue q" in caplog.text


def test_connection_is_made_anew_when_a_queue_that_is_gone_gets_no_answer(caplog):
    with mute_at_first(spec.Queue.Delete) as (broker, consumer):
        consumer.start().consume()
        peer = broker.wait_consumer()
        broker.is_mute = lambda _, asked: (
            broker.accepted == 1 and isinstance(asked, spec.Queue.Declare)
        )
        tag = f"{consumer.link.name}-1"
        peer.send(frame.Method(1, spec.Basic.Cancel(tag, True)).marshal())
        broker.wait_consumer(2)
        assert broker.accepted >= 2  # a busy machine may need more
    assert "the broker has not answered what was asked about queue q" in caplog.text


def test_connection_is_made_anew_when_a_channel_that_is_opened_again_gets_no_answer(caplog):
    with mute_at_first(spec.Queue.Delete) as (broker, consumer):
        consumer.start().consume()
        peer = broker.wait_consumer()
        broker.is_mute = lambda _, asked: (
            broker.accepted == 1 and isinstance(asked, spec.Channel.Open)
        )
        peer.send(frame.Method(1, spec.Channel.Close(406, "PRECONDITION_FAILED", 60, 80)).marshal())
        broker.wait_consumer(2)
        assert broker.accepted >= 2  # a busy machine may need more
    assert "the broker has not answered what was asked about queue q" in caplog.text


def test_consumer_that_got_its_answers_is_left_alone(caplog):
    with mute_at_first(spec.Queue.Delete, TIMEOUT / 8) as (broker, consumer):
        consumer.start().consume()
        broker.wait_consumer()
        passed = threading.Event()
        consumer.run(lambda: consumer.link.call_at(time.monotonic() + TIMEOUT / 5, passed.set))
        assert passed.wait(TIMEOUT)
        assert broker.accepted == 1
    assert "has not answered" not in caplog.text


def test_close_of_a_closed_channel_is_done_at_once(broker_uri, queue_name):
    consumer = Consumer(broker_uri, Queue(queue_name))
    closed = threading.Event()
    consumer.channel.close(closed.set)
    assert closed.is_set()


@pytest.mark.parametrize("answers", range(4))
def test_channel_closed_while_it_is_prepared_closes_without_a_fault(
    broker_uri, queue_name, caplog, answers
):
    # closed when it was asked to open, then after the first answer, and so on
    exchange = Exchange(f"{queue_name}-x", auto_delete=True)
    consumer = Consumer(broker_uri, Queue(queue_name, exchange), prefetch=1)
    consumer.channel.consume()
    closed = threading.Event()

    def close(turns):
        if turns:
            consumer.link.post(lambda: close(turns - 1))
        else:
            consumer.channel.close(closed.set)

    consumer.begin = lambda connection: (consumer.channel.open(connection), close(answers))
    consumer.link.start()
    assert closed.wait(TIMEOUT)
    stop(consumer)
    assert consumer.link.generation == 1
    assert [r.message for r in caplog.records if r.levelname == "ERROR"] == []


def test_connection_cut_while_messages_flow_loses_none(broker_uri, broker, queue_name):
    count, cuts = 300, 5
    with Proxy.for_uri(broker_uri) as proxy:
        consumer = Consumer(proxy.uri_for(broker_uri), Queue(queue_name), 10).start().consume()
        send(broker, queue_name, *[str(number).encode() for number in range(count)])
        seen = set()
        for number in range(count * 10):
            delivery = consumer.take()
            seen.add(delivery.body)
            consumer.link.post(lambda delivery=delivery: consumer.channel.ack(delivery))
            if number % 40 == 39 and proxy.accepted <= cuts:
                proxy.cut()
            if len(seen) == count:
                break
        stop(consumer)
    assert len(seen) == count
    # what was acknowledged on a link that was cut comes again, and nothing else is left
    assert waiting(broker, queue_name) <= 10
