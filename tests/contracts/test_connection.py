"""Opening a connection, and what ends one."""

import struct

import pytest
from pika import spec

from tests.contracts.wire import CLOSED, Wire


@pytest.fixture
def wire(uri):
    with Wire(uri) as made:
        yield made


def as_bytes(text):
    return text.encode() if isinstance(text, str) else text


def closed_with(wire, code, text=""):
    """Read up to the broker's connection.close, and return it."""
    method = wire.read()
    while not isinstance(method, spec.Connection.Close):
        assert method is not CLOSED, "closed without a word"
        method = wire.read()
    assert method.reply_code == code, method.reply_text
    assert text in method.reply_text
    return method


def test_broker_says_what_it_can(wire):
    start = wire.login()
    assert {b"PLAIN", b"AMQPLAIN"} <= set(as_bytes(start.mechanisms).split())
    assert b"en_US" in as_bytes(start.locales).split()
    for name in (
        "publisher_confirms",
        "basic.nack",
        "consumer_cancel_notify",
        "connection.blocked",
        "exchange_exchange_bindings",
        "authentication_failure_close",
        "per_consumer_qos",
    ):
        assert start.server_properties["capabilities"][name] is True
    assert isinstance(wire.read(), spec.Connection.Tune)


@pytest.mark.parametrize(
    "header", [b"AMQP\x00\x01\x00\x00", b"AMQP\x00\x00\x0a\x00", b"HTTP/1.1", b"GET / HT"]
)
def test_other_protocols_are_told_which_one_is_spoken(wire, header):
    wire.send(header)
    assert wire.read_raw() == (65, 0, b"AMQP\x00\x00\x09\x01")
    assert wire.read_raw() is CLOSED


def test_wrong_password_is_told_to_those_who_listen(wire):
    wire.login(response="\0guest\0wrong", capabilities={"authentication_failure_close": True})
    closed_with(
        wire, 403, "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN"
    )


def test_amqplain_is_understood(wire):
    def entry(name, value):
        return bytes((len(name),)) + name + b"S" + struct.pack(">I", len(value)) + value

    response = entry(b"LOGIN", wire.user.encode()) + entry(b"PASSWORD", wire.password.encode())
    wire.login(mechanism="AMQPLAIN", response=response.decode("latin-1"))
    assert isinstance(wire.read(), spec.Connection.Tune)


def test_unknown_vhost_is_refused(wire):
    wire.login()
    tune = wire.read()
    wire.call(0, spec.Connection.TuneOk(tune.channel_max, tune.frame_max, 0))
    wire.call(0, spec.Connection.Open(virtual_host="no such vhost"))
    closed_with(wire, 530, "NOT_ALLOWED - vhost no such vhost not found")


def test_frame_that_is_too_small_to_agree_on_is_refused(wire):
    wire.login()
    tune = wire.read()
    wire.call(0, spec.Connection.TuneOk(tune.channel_max, 100, 0))
    method = wire.read()
    if method is not CLOSED:  # RabbitMQ says it in its log only
        assert method.reply_code == 530
        assert "frame_max" in method.reply_text


def test_close_is_answered(wire):
    wire.start().open()
    wire.call(0, spec.Connection.Close(200, "bye", 0, 0))
    assert isinstance(wire.read(), spec.Connection.CloseOk)


@pytest.mark.parametrize("method", [spec.Queue.Declare(queue="q"), spec.Basic.Ack(1)])
def test_method_on_a_channel_that_is_not_open_ends_the_connection(wire, method):
    wire.start()
    wire.call(5, method)
    closed_with(wire, 504, "CHANNEL_ERROR - expected 'channel.open'")


def test_second_opening_of_a_channel_ends_the_connection(wire):
    wire.start().open()
    wire.call(1, spec.Channel.Open())
    closed_with(wire, 504, "CHANNEL_ERROR - second 'channel.open' seen")


def test_content_without_a_method_ends_the_connection(wire):
    wire.start().open()
    wire.frame(2, 1, struct.pack(">HHQH", 60, 0, 1, 0))
    closed_with(wire, 505, "UNEXPECTED_FRAME - expected method frame, got non method frame")


def test_method_in_the_middle_of_a_message_ends_the_connection(wire):
    wire.start().open()
    wire.call(1, spec.Basic.Publish(routing_key="nowhere"))
    wire.call(1, spec.Queue.Declare(queue="q"))
    closed_with(wire, 505, "UNEXPECTED_FRAME - expected content header for class 60")


def test_body_instead_of_a_header_ends_the_connection(wire):
    wire.start().open()
    wire.call(1, spec.Basic.Publish(routing_key="nowhere"))
    wire.frame(3, 1, b"x")
    closed_with(wire, 505, "UNEXPECTED_FRAME - expected content header for class 60")


def test_frame_without_its_end_ends_the_connection(wire):
    wire.start().open()
    wire.send(struct.pack(">BHI", 1, 1, 4) + b"\0\0\0\0" + b"X")
    closed_with(wire, 501, "FRAME_ERROR")


def test_frame_that_is_too_large_ends_the_connection(wire):
    wire.start(frame_max=4096).open()
    wire.frame(3, 1, b"x" * 8192)
    closed_with(wire, 501, "FRAME_ERROR")


def test_frames_on_the_way_after_a_channel_s_end_are_ignored(wire):
    wire.start().open()
    wire.call(1, spec.Queue.Declare(queue="surely not there", passive=True))
    for _ in range(3):
        wire.call(1, spec.Queue.Declare(queue="nor this", passive=True))
        wire.publish(1, "nowhere", b"x")
    close = wire.read()
    assert (type(close), close.reply_code) == (spec.Channel.Close, 404)
    assert (close.class_id, close.method_id) == (50, 10)
    wire.call(1, spec.Channel.CloseOk())
    wire.open()  # the number is free again


def test_channel_is_closed_and_opened_again(wire):
    wire.start().open()
    wire.call(1, spec.Channel.Close(200, "bye", 0, 0))
    assert isinstance(wire.read(), spec.Channel.CloseOk)
    wire.open()


def test_unknown_method_ends_the_connection(wire):
    wire.start().open()
    wire.frame(1, 1, struct.pack(">HH", 60, 999))
    method = wire.read()
    assert method is CLOSED or isinstance(method, spec.Connection.Close)


def method(class_id, method_id, arguments):
    return 1, 1, struct.pack(">HH", class_id, method_id) + arguments


def header(size, rest=b"\0\0", class_id=60, weight=0):
    return 2, 1, struct.pack(">HHQ", class_id, weight, size) + rest


PUBLISH = method(60, 40, b"\0\0\0\x01x\0")


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        pytest.param([(4, 1, b"abc")], 501, id="type of frame"),
        pytest.param([(8, 1, b"")], 505, id="heartbeat on a channel"),
        pytest.param([(8, 0, b"abc")], 501, id="heartbeat with content"),
        pytest.param([(1, 1, b"\0\x32")], 501, id="half a method"),
        pytest.param([method(50, 10, b"\0\0\xffabc")], 501, id="truncated method"),
        pytest.param([method(60, 20, b"\0\0\0\x02\xff\xfe\0\0\0\0\0")], 501, id="no text"),
        pytest.param([method(50, 11, b"\x01q" + b"\0" * 8)], 503, id="method of a server"),
        pytest.param([(1, 0, b"\0\x14\0\x0a\0")], 504, id="channel 0 opened"),
        pytest.param([(1, 0, b"\0\x0a\0\x28\x01/\0\0")], 504, id="connection opened again"),
        pytest.param([(3, 5, b"x")], 505, id="body on no channel"),
        pytest.param([PUBLISH, (2, 1, b"\0\x3c\0")], 501, id="half a header"),
        pytest.param([PUBLISH, header(1, class_id=50)], 505, id="header of another class"),
        pytest.param([PUBLISH, header(1, weight=7)], 505, id="weight"),
        pytest.param([PUBLISH, header(2), (3, 1, b"xxxx"), PUBLISH], 505, id="too much body"),
        pytest.param([PUBLISH, header(0), (3, 1, b"")], 505, id="body where none is due"),
        pytest.param([PUBLISH, header(0, b"\x80\0\xff")], 541, id="truncated property"),
        pytest.param([PUBLISH, header(0, b"\0\0\xff")], 541, id="more than properties"),
        pytest.param([PUBLISH, header(0, b"\x20\0\0\0\0\x03\x01a?")], 541, id="table"),
    ],
)
def test_frame_that_cannot_be_ends_the_connection(wire, frames, code):
    wire.start().open()
    for kind, channel, payload in frames:
        wire.frame(kind, channel, payload)
    close = wire.read()
    assert (type(close), close.reply_code) == (spec.Connection.Close, code)


def test_channels_are_counted_whatever_their_numbers(wire):
    wire.login()
    wire.read()
    wire.call(0, spec.Connection.TuneOk(2, 131072, 0))
    wire.call(0, spec.Connection.Open(wire.vhost))
    assert isinstance(wire.read(), spec.Connection.OpenOk)
    wire.open(65535).open(1)
    wire.call(2, spec.Channel.Open())
    closed_with(wire, 530, "NOT_ALLOWED - number of channels opened (2) has reached")
