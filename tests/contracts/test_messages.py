"""Publishing, consuming, settling: order, rounds, limits, confirms, returns."""

import struct
import threading
import time

import pika
import pytest
from pika import spec
from pika.exceptions import (
    ChannelClosedByBroker,
    ConnectionClosedByBroker,
    NackError,
    UnroutableError,
)

from tests.contracts.wire import Wire
from tests.support.timing import TIMEOUT


@pytest.fixture
def queue(channel, name):
    channel.queue_declare(name)
    return name


@pytest.fixture
def send(connect, queue):
    """Publishes to the queue with confirms, on a connection of its own."""
    channel = connect().channel()
    channel.confirm_delivery()

    def send(*bodies, **properties):
        for body in bodies:
            channel.basic_publish("", queue, body, pika.BasicProperties(**properties))

    return send


class Consumer:
    """A consumer that keeps what it gets, driven by the test."""

    def __init__(self, channel, queue, **options):
        self.channel = channel
        self.got = []
        self.tag = channel.basic_consume(queue, self._take, **options)

    def _take(self, channel, method, properties, body):
        self.got.append((method, properties, body))

    def wait(self, count):
        """Return the bodies, once there are so many; no more may come meanwhile."""
        self.channel.connection.process_data_events(0)
        for _ in range(int(TIMEOUT * 20)):
            if len(self.got) >= count:
                break
            self.channel.connection.process_data_events(0.05)
        self.settle_down()
        assert len(self.got) == count, [body for _, _, body in self.got]
        return [body for _, _, body in self.got]

    def settle_down(self):
        """A round trip: what was sent before it has come."""
        self.channel.queue_declare(self.channel._test_queue, passive=True)

    def take(self, count):
        bodies = self.wait(count)
        self.got.clear()
        return bodies

    def tags(self):
        return [method.delivery_tag for method, _, _ in self.got]


@pytest.fixture
def consume(connect, queue):
    def consume(channel=None, prefetch=None, per_channel=False, **options):
        if channel is None:
            channel = connect().channel()
        channel._test_queue = queue
        if prefetch is not None:
            channel.basic_qos(prefetch_count=prefetch, global_qos=per_channel)
        return Consumer(channel, queue, **options)

    return consume


# Publishing


def test_message_comes_as_it_was_sent(channel, queue):
    channel.confirm_delivery()
    properties = pika.BasicProperties(
        content_type="application/json",
        content_encoding="utf-8",
        headers={"a": 1, "b": ["x", True, None], "c": {"d": "ü"}},
        delivery_mode=2,
        priority=3,
        correlation_id="c",
        reply_to="r",
        message_id="m",
        timestamp=12345,
        type="t",
        app_id="app",
    )
    channel.basic_publish("", queue, b"body", properties)
    method, got, body = channel.basic_get(queue, auto_ack=True)
    assert got == properties
    assert body == b"body"
    assert (method.exchange, method.routing_key, method.redelivered) == ("", queue, False)


RAW_TABLE = b"".join(
    (
        b"\x01fd" + struct.pack(">d", 1.5),
        b"\x01gf" + struct.pack(">f", 0.5),
        b"\x01sS\x00\x00\x00\x02\xff\xfe",
        b"\x01DD\x02" + struct.pack(">i", 150),
        b"\x01lF\x00\x00\x00\x00",
        b"\x01vV",
        b"\x01xx\x00\x00\x00\x01\x00",
        b"\x01bb\xff",
        b"\x01TT" + struct.pack(">Q", 1 << 40),
    )
)


@pytest.mark.parametrize("size", [0, 1, 4088, 4089, 131064, 131065, 400_000])
def test_header_and_body_pass_through_byte_for_byte(uri, queue, size):
    header = struct.pack(">H", 1 << 13 | 1 << 10) + struct.pack(">I", len(RAW_TABLE)) + RAW_TABLE
    header += b"\x02id"
    body = bytes(range(256)) * (size // 256 + 1)
    body = body[:size]
    with Wire(uri) as wire:
        wire.start(frame_max=131072).open()
        wire.call(1, spec.Confirm.Select())
        assert isinstance(wire.read(), spec.Confirm.SelectOk)
        wire.call(1, spec.Basic.Publish(routing_key=queue))
        wire.frame(2, 1, struct.pack(">HHQ", 60, 0, size) + header)
        for start in range(0, size, 131064):
            wire.frame(3, 1, body[start : start + 131064])
        assert isinstance(wire.read(), spec.Basic.Ack)
        wire.call(1, spec.Basic.Get(queue=queue, no_ack=True))
        assert isinstance(wire.read(), spec.Basic.GetOk)
        kind, _, payload = wire.read_raw()
        assert (kind, payload[12:]) == (2, header)
        received = b""
        while len(received) < size:
            kind, _, part = wire.read_raw()
            assert kind == 3
            received += part
        assert received == body


def test_frames_are_cut_to_what_was_agreed(uri, queue, send):
    send(b"x" * 10_000)
    with Wire(uri) as wire:
        wire.start(frame_max=4096).open()
        wire.call(1, spec.Basic.Get(queue=queue, no_ack=True))
        wire.read()
        wire.read_raw()
        sizes = [len(wire.read_raw()[2]) for _ in range(3)]
    assert sizes == [4088, 4088, 10_000 - 2 * 4088]


def test_confirms_come_in_order_and_count_up(uri, queue):
    with Wire(uri) as wire:
        wire.start().open()
        wire.call(1, spec.Confirm.Select())
        wire.read()
        for number in range(50):
            wire.publish(1, queue, str(number).encode())
        confirmed = 0
        while confirmed < 50:
            ack = wire.read()
            assert isinstance(ack, spec.Basic.Ack)
            assert ack.delivery_tag > confirmed
            assert ack.multiple or ack.delivery_tag == confirmed + 1
            confirmed = ack.delivery_tag


def test_mandatory_message_comes_back_before_its_confirm(uri, queue):
    with Wire(uri) as wire:
        wire.start().open()
        wire.call(1, spec.Confirm.Select())
        wire.read()
        wire.call(1, spec.Basic.Publish(routing_key="nobody", mandatory=True))
        wire.frame(2, 1, struct.pack(">HHQH", 60, 0, 1, 0))
        wire.frame(3, 1, b"x")
        returned = wire.read()
        assert isinstance(returned, spec.Basic.Return)
        assert (returned.reply_code, returned.reply_text) == (312, "NO_ROUTE")
        assert (returned.exchange, returned.routing_key) == ("", "nobody")
        assert wire.read_raw()[0] == 2
        assert wire.read_raw()[2] == b"x"
        assert wire.read().delivery_tag == 1


def test_unroutable_and_not_mandatory_is_confirmed(channel, queue):
    channel.confirm_delivery()
    channel.basic_publish("", "nobody", b"x")
    with pytest.raises(UnroutableError):
        channel.basic_publish("", "nobody", b"x", mandatory=True)


def test_missing_exchange_closes_the_channel(channel, queue):
    channel.confirm_delivery()
    with pytest.raises(ChannelClosedByBroker) as caught:
        channel.basic_publish("surely not there", queue, b"x")
    assert caught.value.reply_code == 404
    assert "NOT_FOUND - no exchange 'surely not there' in vhost" in caught.value.reply_text


@pytest.mark.parametrize(
    ("properties", "code", "text"),
    [
        ({"expiration": "soon"}, 406, "invalid expiration 'soon'"),
        ({"expiration": "-1"}, 406, "invalid expiration"),
        ({"expiration": "9" * 20}, 406, "invalid expiration"),
        ({"user_id": "somebody"}, 406, "user_id property set to 'somebody' but authenticated user"),
    ],
)
def test_properties_that_are_refused(channel, queue, properties, code, text):
    channel.confirm_delivery()
    with pytest.raises(ChannelClosedByBroker) as caught:
        channel.basic_publish("", queue, b"x", pika.BasicProperties(**properties))
    assert caught.value.reply_code == code
    assert text in caught.value.reply_text


@pytest.mark.parametrize("expiration", ["60000", "+60000", "315360000000"])
def test_expirations_that_are_taken(channel, queue, expiration):
    channel.confirm_delivery()
    channel.basic_publish("", queue, b"x", pika.BasicProperties(expiration=expiration))
    assert channel.basic_get(queue, auto_ack=True)[2] == b"x"


def test_own_user_id_is_taken(channel, queue):
    channel.confirm_delivery()
    channel.basic_publish("", queue, b"x", pika.BasicProperties(user_id="guest"))


def test_immediate_is_not_implemented(uri, queue):
    with Wire(uri) as wire:
        wire.start().open()
        wire.call(1, spec.Basic.Publish(routing_key=queue, immediate=True))
        wire.frame(2, 1, struct.pack(">HHQH", 60, 0, 0, 0))
        close = wire.read()
        assert (type(close), close.reply_code) == (spec.Connection.Close, 540)


def test_prefetch_size_is_not_implemented(uri, queue):
    with Wire(uri) as wire:
        wire.start().open()
        wire.call(1, spec.Basic.Qos(prefetch_size=1))
        close = wire.read()
        assert (type(close), close.reply_code) == (spec.Connection.Close, 540)


# Getting


def test_get_in_order_with_what_is_left(channel, queue, send):
    send(b"a", b"b")
    method, _, body = channel.basic_get(queue, auto_ack=True)
    assert (body, method.message_count) == (b"a", 1)
    assert channel.basic_get(queue, auto_ack=True)[2] == b"b"
    assert channel.basic_get(queue, auto_ack=True) == (None, None, None)


# Consuming


def test_messages_come_in_order(consume, send):
    bodies = [str(number).encode() for number in range(200)]
    consumer = consume(auto_ack=True)
    send(*bodies)
    assert consumer.wait(200) == bodies


def test_consumers_take_turns(consume, send):
    first, second = consume(auto_ack=True), consume(auto_ack=True)
    send(*(str(number).encode() for number in range(10)))
    assert [len(first.wait(5)), len(second.wait(5))] == [5, 5]


def test_prefetch_is_each_consumer_s_own(connect, consume, send):
    channel = connect().channel()
    channel.basic_qos(prefetch_count=2)
    first, second = consume(channel), consume(channel)
    send(*(str(number).encode() for number in range(10)))
    assert (len(first.wait(2)), len(second.wait(2))) == (2, 2)
    channel.basic_ack(first.tags()[0])
    first.wait(3)


def test_global_prefetch_is_the_channel_s(connect, consume, send):
    channel = connect().channel()
    channel.basic_qos(prefetch_count=3, global_qos=True)
    first, second = consume(channel), consume(channel)
    send(*(str(number).encode() for number in range(10)))
    end = time.monotonic() + TIMEOUT
    while len(first.got) + len(second.got) < 3 and time.monotonic() < end:
        channel.connection.process_data_events(0.05)
    first.settle_down()
    assert len(first.got) + len(second.got) == 3


def test_prefetch_counts_for_consumers_to_come(consume, send):
    consumer = consume()
    consumer.channel.basic_qos(prefetch_count=1)
    send(b"a", b"b", b"c")
    consumer.wait(3)


def test_automatic_acknowledgement_knows_no_prefetch(consume, send):
    consumer = consume(prefetch=1, auto_ack=True)
    send(b"a", b"b", b"c")
    consumer.wait(3)


def test_higher_priority_takes_first(consume, send):
    low = consume(prefetch=10, arguments={"x-priority": 1})
    high = consume(prefetch=2, arguments={"x-priority": 5})
    send(b"a", b"b", b"c")
    assert high.wait(2) == [b"a", b"b"]
    assert low.wait(1) == [b"c"]


def test_exclusive_consumer_is_alone(connect, consume, queue):
    consume(exclusive=True)
    with pytest.raises(ChannelClosedByBroker) as caught:
        connect().channel().basic_consume(queue, lambda *_: None)
    assert caught.value.reply_code == 403
    assert f"queue '{queue}' in vhost '/' in exclusive use" in caught.value.reply_text


def test_exclusive_consumer_does_not_come_second(connect, consume, queue):
    consume()
    with pytest.raises(ChannelClosedByBroker) as caught:
        connect().channel().basic_consume(queue, lambda *_: None, exclusive=True)
    assert caught.value.reply_code == 403


def test_tag_of_a_consumer_is_used_once(uri, queue):
    with Wire(uri) as wire:
        wire.start().open()
        wire.call(1, spec.Basic.Consume(queue=queue, consumer_tag="tag"))
        assert wire.read().consumer_tag == "tag"
        wire.call(1, spec.Basic.Consume(queue=queue, consumer_tag="tag"))
        close = wire.read()
        assert (type(close), close.reply_code) == (spec.Connection.Close, 530)
        assert close.reply_text == "NOT_ALLOWED - attempt to reuse consumer tag 'tag'"


def test_broker_makes_tags(uri, queue):
    with Wire(uri) as wire:
        wire.start().open()
        tags = set()
        for _ in range(2):
            wire.call(1, spec.Basic.Consume(queue=queue))
            tags.add(wire.read().consumer_tag)
        assert len(tags) == 2
        assert all(tags)


def test_cancelled_consumer_gets_no_more_and_may_still_settle(consume, send, channel, queue):
    consumer = consume()
    send(b"a")
    consumer.wait(1)
    tags = consumer.tags()
    consumer.channel.basic_cancel(consumer.tag)
    send(b"b")
    consumer.channel.basic_ack(tags[0])
    consumer.settle_down()
    assert channel.queue_declare(queue, passive=True).method.message_count == 1


def test_unknown_tag_is_cancelled_without_complaint(uri, queue):
    with Wire(uri) as wire:
        wire.start().open()
        wire.call(1, spec.Basic.Cancel(consumer_tag="nobody"))
        assert isinstance(wire.read(), spec.Basic.CancelOk)


def test_deleted_queue_cancels_its_consumers(uri, queue, channel):
    with Wire(uri) as wire:
        wire.start(capabilities={"consumer_cancel_notify": True}).open()
        wire.call(1, spec.Basic.Consume(queue=queue, consumer_tag="tag"))
        wire.read()
        channel.queue_delete(queue)
        cancel = wire.read()
        assert (type(cancel), cancel.consumer_tag) == (spec.Basic.Cancel, "tag")


def test_who_does_not_understand_a_cancel_is_told_nothing(uri, queue, channel):
    with Wire(uri) as wire:
        wire.start().open()
        wire.call(1, spec.Basic.Consume(queue=queue, consumer_tag="tag"))
        wire.read()
        channel.queue_delete(queue)
        wire.call(1, spec.Basic.Qos())
        assert isinstance(wire.read(), spec.Basic.QosOk)


# Settling


def settle(call, code=406, text="PRECONDITION_FAILED - unknown delivery tag"):
    with pytest.raises(ChannelClosedByBroker) as caught:
        call()
    assert caught.value.reply_code == code
    assert text in caught.value.reply_text


@pytest.mark.parametrize(
    "how",
    [
        lambda channel: channel.basic_ack(99),
        lambda channel: channel.basic_nack(99),
        lambda channel: channel.basic_reject(99),
        lambda channel: channel.basic_ack(99, multiple=True),
    ],
)
def test_unknown_delivery_tag(channel, queue, how):
    def call():
        how(channel)
        channel.queue_declare(queue, passive=True)

    settle(call)


def test_settling_twice(channel, queue, send):
    send(b"a")
    tag = channel.basic_get(queue)[0].delivery_tag
    channel.basic_ack(tag)

    def again():
        channel.basic_ack(tag)
        channel.queue_declare(queue, passive=True)

    settle(again)


def test_zero_stands_for_all(channel, queue, send):
    send(b"a", b"b", b"c")
    for _ in range(3):
        channel.basic_get(queue)
    channel.basic_ack(0, multiple=True)
    channel.basic_ack(0, multiple=True)  # nothing is left, and that is fine
    channel.basic_recover(requeue=True)
    assert channel.basic_get(queue) == (None, None, None)


def test_multiple_takes_all_up_to_it(channel, queue, send):
    send(b"a", b"b", b"c")
    tags = [channel.basic_get(queue)[0].delivery_tag for _ in range(3)]
    channel.basic_nack(tags[1], multiple=True, requeue=True)
    channel.basic_ack(tags[2])
    bodies = [channel.basic_get(queue, auto_ack=True)[2] for _ in range(3)]
    assert bodies == [b"a", b"b", None]


@pytest.mark.parametrize(
    "give_back",
    [
        lambda channel, tag: channel.basic_reject(tag, requeue=True),
        lambda channel, tag: channel.basic_nack(tag, requeue=True),
        lambda channel, tag: channel.basic_recover(requeue=True),
    ],
)
def test_requeued_message_is_first_again_and_marked(channel, queue, send, give_back):
    send(b"a", b"b")
    tag = channel.basic_get(queue)[0].delivery_tag
    give_back(channel, tag)
    method, _, body = channel.basic_get(queue, auto_ack=True)
    assert (body, method.redelivered) == (b"a", True)
    method, _, body = channel.basic_get(queue, auto_ack=True)
    assert (body, method.redelivered) == (b"b", False)


def test_requeued_messages_are_in_their_old_order(channel, queue, send):
    send(b"a", b"b", b"c", b"d")
    tags = [channel.basic_get(queue)[0].delivery_tag for _ in range(3)]
    for tag in (tags[2], tags[0], tags[1]):
        channel.basic_reject(tag, requeue=True)
    bodies = [channel.basic_get(queue, auto_ack=True)[2] for _ in range(4)]
    assert bodies == [b"a", b"b", b"c", b"d"]


@pytest.mark.parametrize("end", ["channel", "connection", "cut"])
def test_what_is_not_settled_goes_back(connect, queue, send, channel, end):
    send(b"a", b"b", b"c")
    connection = connect()
    other = connection.channel()
    tags = [other.basic_get(queue)[0].delivery_tag for _ in range(2)]
    other.basic_ack(tags[0])
    if end == "channel":
        other.close()
    elif end == "connection":
        connection.close()
    else:
        other.queue_declare(queue, passive=True)  # the acknowledgement has been seen
        connection._impl._transport._sock.shutdown(2)
    deadline = time.monotonic() + TIMEOUT
    while channel.queue_declare(queue, passive=True).method.message_count < 2:
        assert time.monotonic() < deadline
    consumer = Consumer(channel, queue, auto_ack=True)
    channel._test_queue = queue
    assert consumer.wait(2) == [b"b", b"c"]
    assert [method.redelivered for method, _, _ in consumer.got] == [True, False]


def test_requeued_message_may_go_to_another_consumer(consume, send):
    first = consume(prefetch=1)
    send(b"a")
    first.wait(1)
    second = consume(prefetch=1)
    first.channel.basic_cancel(first.tag)
    first.channel.basic_reject(first.tags()[0], requeue=True)
    first.settle_down()
    assert second.wait(1) == [b"a"]


def test_recover_without_requeue_is_not_implemented(channel, queue):
    with pytest.raises(ConnectionClosedByBroker) as caught:
        channel.basic_recover(requeue=False)
    assert caught.value.reply_code == 540


# Limits


def test_full_queue_drops_its_oldest(channel, name):
    channel.queue_declare(name, arguments={"x-max-length": 2})
    channel.confirm_delivery()
    for body in (b"a", b"b", b"c"):
        channel.basic_publish("", name, body)
    bodies = [channel.basic_get(name, auto_ack=True)[2] for _ in range(3)]
    assert bodies == [b"b", b"c", None]


def test_full_queue_counts_bytes_too(channel, name):
    channel.queue_declare(name, arguments={"x-max-length-bytes": 5})
    channel.confirm_delivery()
    for body in (b"aaa", b"bbb", b"cc"):
        channel.basic_publish("", name, body)
    bodies = [channel.basic_get(name, auto_ack=True)[2] for _ in range(3)]
    assert bodies == [b"bbb", b"cc", None]


def test_full_queue_may_refuse(channel, name):
    channel.queue_declare(name, arguments={"x-max-length": 2, "x-overflow": "reject-publish"})
    channel.confirm_delivery()
    for body in (b"a", b"b"):
        channel.basic_publish("", name, body)
    with pytest.raises(NackError):
        channel.basic_publish("", name, b"c")
    bodies = [channel.basic_get(name, auto_ack=True)[2] for _ in range(3)]
    assert bodies == [b"a", b"b", None]


def test_what_comes_back_to_a_full_queue_is_its_oldest(channel, name):
    channel.queue_declare(name, arguments={"x-max-length": 2})
    channel.confirm_delivery()
    channel.basic_publish("", name, b"a")
    method, *_ = channel.basic_get(name)
    for body in (b"b", b"c"):
        channel.basic_publish("", name, body)
    channel.basic_nack(method.delivery_tag, requeue=True)
    channel.queue_declare(name, passive=True)
    bodies = [channel.basic_get(name, auto_ack=True)[2] for _ in range(3)]
    assert bodies == [b"b", b"c", None]


def test_priorities(channel, name):
    channel.queue_declare(name, arguments={"x-max-priority": 5})
    channel.confirm_delivery()
    for body, priority in ((b"none", None), (b"1", 1), (b"9", 9), (b"5", 5), (b"1 too", 1)):
        channel.basic_publish("", name, body, pika.BasicProperties(priority=priority))
    bodies = [channel.basic_get(name, auto_ack=True)[2] for _ in range(5)]
    assert bodies == [b"9", b"5", b"1", b"1 too", b"none"]


def test_many_publish_at_once_and_nothing_is_lost(connect, consume, queue):
    connections = [connect() for _ in range(4)]
    barrier = threading.Barrier(4)

    def run(connection, first):
        channel = connection.channel()
        channel.confirm_delivery()
        barrier.wait(TIMEOUT)
        for number in range(first, first + 100):
            channel.basic_publish("", queue, str(number).encode(), mandatory=True)

    threads = [
        threading.Thread(target=run, args=(connection, 100 * n))
        for n, connection in enumerate(connections)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)
    consumer = consume(auto_ack=True)
    assert sorted(int(body) for body in consumer.wait(400)) == list(range(400))
