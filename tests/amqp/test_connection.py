"""Cutting bytes into frames, and gathering frames into few writes.

The connection is fed through the interface by which pika's transports feed it, so that each cut
of the stream of bytes can be tried. What needs a thread and a socket is in test_link.py.
"""

import logging
import socket
import ssl
import struct
from collections.abc import Iterator
from typing import Any

import pika
import pika.exceptions
import pytest
from pika import spec
from pika.frame import Body, Header, Heartbeat, Method

from threadko.amqp.connection import ChannelHandler, Connection
from threadko.amqp.loop import Loop
from threadko.amqp.message import ack_frame, decode_properties
from threadko.amqp.parameters import BrokerParameters


class Socket:
    """Takes what it is told to take of each send."""

    def __init__(self) -> None:
        self._sock, self._peer = socket.socketpair()
        self._sock.setblocking(False)
        self.sends: list[bytes] = []
        self.limits: list[int | OSError] = []

    def send(self, data: bytes) -> int:
        limit = self.limits.pop(0) if self.limits else len(data)
        if isinstance(limit, OSError):
            raise limit
        if limit:
            self.sends.append(data[:limit])
        return min(limit, len(data))

    def fileno(self) -> int:
        return self._sock.fileno()

    def recv(self, size: int) -> bytes:
        return self._sock.recv(size)

    def arrive(self, data: bytes) -> None:
        """Let the broker send ``data``; nothing is the end of what it sends."""
        if data:
            self._peer.sendall(data)
        else:
            self._peer.shutdown(socket.SHUT_WR)

    def free(self) -> None:
        self._sock.close()
        self._peer.close()

    def close(self) -> None:
        self.sends.append(b"closed")


class Transport:
    """What pika hands a connection when TCP stands; `written` had to wait for the socket."""

    def __init__(self, sock: Any = None) -> None:
        self._sock = sock or Socket()
        self.written: list[bytes] = []
        self.aborted = False
        self.left_to_pika: list[int] = []
        self.faults: list[BaseException] = []

    def on_event(self, fd: int, events: int) -> None:
        self.left_to_pika.append(events)

    def _initiate_abort(self, error: BaseException) -> None:
        self.faults.append(error)

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def get_write_buffer_size(self) -> int:
        return sum(len(data) for data in self.written)

    def abort(self) -> None:
        self.aborted = True


class Recorder(ChannelHandler):
    """Remembers all that came on its channel."""

    def __init__(self) -> None:
        self.seen: list[tuple[Any, ...]] = []

    def on_deliver(self, *arguments: Any) -> None:
        self.seen.append(("deliver", *arguments))

    def on_return(self, *arguments: Any) -> None:
        self.seen.append(("return", *arguments))

    def on_confirm(self, *arguments: Any) -> None:
        self.seen.append(("confirm", *arguments))


class Rig:
    """A connection that stands, with nothing behind it but this test."""

    def __init__(self, *, opened: bool = True, sock: Any = None) -> None:
        self.loop = Loop(lambda: None)
        self.ends: list[BaseException] = []
        self.opened = 0
        self.connection = Connection(
            BrokerParameters(host="localhost").to_pika(),
            self.loop,
            on_open=self._opened,
            on_end=self.ends.append,
        )
        self.transport = Transport(sock)
        if sock is None:
            self.loop.add_handler(self.transport._sock.fileno(), self.transport.on_event, Loop.READ)
        self.connection._proto_connection_made(self.transport)
        if opened:
            self.feed(START + TUNE + OPEN_OK)
            self.connection.flush()
            self.transport.written.clear()
            if sock is None:
                self.sends.clear()

    def _opened(self) -> None:
        self.opened += 1

    @property
    def sends(self) -> list[bytes]:
        return self.transport._sock.sends

    def feed(self, data: bytes) -> None:
        self.connection._proto_data_received(data)

    def arrive(self, data: bytes) -> None:
        """Let ``data`` come in through the socket, and the loop have one turn."""
        self.transport._sock.arrive(data)
        self.loop.call_later(0, self.loop.stop)
        self.loop.start()

    def close(self) -> None:
        self.loop.close()
        if isinstance(self.transport._sock, Socket):
            self.transport._sock.free()

    def open_channel(self, number: int) -> Recorder:
        handler = Recorder()
        self.connection.open_channel(
            number, handler, on_open=lambda _: None, on_close=lambda _, __: None
        )
        self.feed(Method(number, spec.Channel.OpenOk()).marshal())
        return handler


START = Method(
    0,
    spec.Connection.Start(
        server_properties={"capabilities": {}}, mechanisms="PLAIN", locales="en_US"
    ),
).marshal()
TUNE = Method(0, spec.Connection.Tune(2047, 131072, 20)).marshal()
OPEN_OK = Method(0, spec.Connection.OpenOk()).marshal()


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig()
    yield made
    made.close()


def deliver(
    body: bytes = b"body",
    *,
    channel: int = 1,
    tag: int = 1,
    step: int = 131064,
    properties: Any = None,
) -> bytes:
    """The frames of a delivery, its body cut into pieces of `step` bytes."""
    method = spec.Basic.Deliver("consumer", tag, False, "exchange", "key")
    frames = Method(channel, method).marshal()
    frames += Header(channel, len(body), properties or pika.BasicProperties()).marshal()
    for start in range(0, len(body), step):
        frames += Body(channel, body[start : start + step]).marshal()
    return frames


def bodies(handler: Recorder) -> list[bytes]:
    return [each[-1] for each in handler.seen]


def test_connection_opens_by_the_usual_handshake() -> None:
    rig = Rig(opened=False)
    rig.connection.flush()
    assert rig.sends == [b"AMQP\x00\x00\x09\x01"]
    rig.feed(START)
    rig.feed(TUNE + OPEN_OK)
    assert (rig.opened, rig.connection.is_open, rig.ends) == (1, True, [])
    assert rig.connection.frame_max == 131072
    rig.connection.flush()
    assert len(rig.sends) == 2  # all answers to it in one
    rig.close()


def test_smaller_frames_of_the_broker_are_agreed_to() -> None:
    rig = Rig(opened=False)
    rig.feed(START + Method(0, spec.Connection.Tune(2047, 8192, 20)).marshal() + OPEN_OK)
    assert rig.connection.frame_max == 8192
    rig.close()


def test_delivery_goes_to_the_handler_of_its_channel_with_its_header_raw(rig: Rig) -> None:
    first, second = rig.open_channel(1), rig.open_channel(2)
    properties = pika.BasicProperties(correlation_id="c", headers={"a": 1})
    method = spec.Basic.Deliver("consumer", 7, True, "exchange", "key")
    rig.feed(
        Method(2, method).marshal()
        + Header(2, 4, properties).marshal()
        + Body(2, b"body").marshal()
    )
    assert first.seen == []
    ((what, tag, redelivered, exchange, key, header, body),) = second.seen
    assert (what, tag, redelivered, exchange, key) == ("deliver", 7, True, "exchange", "key")
    assert body == b"body"
    assert isinstance(header, bytes)
    assert decode_properties(header).correlation_id == "c"
    assert decode_properties(header).headers == {"a": 1}


@pytest.mark.parametrize("step", [1, 3, 10])
def test_body_in_many_frames_is_put_together(rig: Rig, step: int) -> None:
    handler = rig.open_channel(1)
    rig.feed(deliver(b"0123456789", step=step))
    assert bodies(handler) == [b"0123456789"]


def test_message_without_a_body_is_complete_with_its_header(rig: Rig) -> None:
    handler = rig.open_channel(1)
    rig.feed(deliver(b""))
    rig.feed(deliver(b"", tag=2) + deliver(b"x", tag=3))
    assert [(each[1], each[-1]) for each in handler.seen] == [(1, b""), (2, b""), (3, b"x")]


def test_empty_body_frame_in_between_changes_nothing(rig: Rig) -> None:
    handler = rig.open_channel(1)
    start = deliver(b"")[: -len(Header(1, 0, pika.BasicProperties()).marshal())]
    rig.feed(start + Header(1, 2, pika.BasicProperties()).marshal())
    rig.feed(Body(1, b"").marshal() + Body(1, b"ab").marshal())
    assert bodies(handler) == [b"ab"]


STREAM = (
    deliver(b"first" * 3, step=5)
    + Heartbeat().marshal()
    + ack_frame(1, 9, True)
    + deliver(b"", tag=2)
    + deliver(b"\xce" * 9, tag=3)
)


def check_stream(handler: Recorder) -> None:
    assert [(each[0], each[1], each[-1]) for each in handler.seen] == [
        ("deliver", 1, b"first" * 3),
        ("confirm", 9, True),
        ("deliver", 2, b""),
        ("deliver", 3, b"\xce" * 9),
    ]


def test_stream_cut_in_two_anywhere_gives_the_same_messages(rig: Rig) -> None:
    handler = rig.open_channel(1)
    for cut in range(len(STREAM) + 1):
        for piece in (STREAM[:cut], STREAM[cut:]):
            if piece:
                rig.feed(piece)
        check_stream(handler)
        handler.seen.clear()


@pytest.mark.parametrize("size", [1, 2, 7, 8, 9])
def test_stream_that_comes_in_small_pieces_gives_the_same_messages(rig: Rig, size: int) -> None:
    handler = rig.open_channel(1)
    for start in range(0, len(STREAM), size):
        rig.feed(STREAM[start : start + size])
    check_stream(handler)


def test_contents_of_two_channels_may_be_interleaved(rig: Rig) -> None:
    first, second = rig.open_channel(1), rig.open_channel(2)
    frames = []
    for channel in (1, 2):
        properties = pika.BasicProperties(app_id=str(channel))
        method = spec.Basic.Deliver("consumer", channel, False, "", "")
        frames.append(
            [
                Method(channel, method).marshal(),
                Header(channel, 2, properties).marshal(),
                Body(channel, b"%d" % channel).marshal(),
                Body(channel, b"!").marshal(),
            ]
        )
    rig.feed(b"".join(frame for pair in zip(*frames, strict=True) for frame in pair))
    assert (bodies(first), bodies(second)) == ([b"1!"], [b"2!"])
    assert decode_properties(second.seen[0][-2]).app_id == "2"


def test_heartbeat_in_the_middle_of_a_message_is_not_part_of_it(rig: Rig) -> None:
    handler = rig.open_channel(1)
    message = deliver(b"abcd", step=2)
    middle = len(message) - len(Body(1, b"cd").marshal())
    rig.feed(message[:middle] + Heartbeat().marshal() + message[middle:])
    assert bodies(handler) == [b"abcd"]


def test_returned_message_goes_to_the_handler(rig: Rig) -> None:
    handler = rig.open_channel(1)
    rig.feed(
        Method(1, spec.Basic.Return(312, "NO_ROUTE", "exchange", "key")).marshal()
        + Header(1, 1, pika.BasicProperties(message_id="m")).marshal()
        + Body(1, b"x").marshal()
    )
    ((what, code, text, header, body),) = handler.seen
    assert (what, code, text, body) == ("return", 312, "NO_ROUTE", b"x")
    assert decode_properties(header).message_id == "m"


@pytest.mark.parametrize("multiple", [True, False])
@pytest.mark.parametrize(("method", "accepted"), [(spec.Basic.Ack, True), (spec.Basic.Nack, False)])
def test_confirm_goes_to_the_handler(rig: Rig, method: Any, multiple: bool, accepted: bool) -> None:
    handler = rig.open_channel(1)
    rig.feed(Method(1, method(2**40, multiple=multiple)).marshal())
    assert handler.seen == [("confirm", 2**40, multiple, accepted)]


HOSTILE = [
    # a timestamp beyond the year 9999 in the properties
    struct.pack(">HQ", 1 << 6, 2**63),
    # the same in the headers
    struct.pack(">H", 1 << 13) + struct.pack(">I", 11) + b"\x01aT" + struct.pack(">Q", 2**40),
    # tables within tables, deeper than any stack
    struct.pack(">H", 1 << 13)
    + b"".join(struct.pack(">I", 7 * left + 3) + b"\x01aF" for left in range(3000, -1, -1)),
    # a table longer than its frame
    struct.pack(">HI", 1 << 13, 2**32 - 1),
    b"\xff\xff",
    b"",
]


@pytest.mark.parametrize("properties", HOSTILE)
def test_header_that_cannot_be_decoded_is_handed_on_as_it_is(rig: Rig, properties: bytes) -> None:
    handler = rig.open_channel(1)
    method = spec.Basic.Deliver("consumer", 1, False, "", "")
    header = struct.pack(">HHQ", 60, 0, 1) + properties
    rig.feed(
        Method(1, method).marshal()
        + struct.pack(">BHI", 2, 1, len(header))
        + header
        + b"\xce"
        + Body(1, b"x").marshal()
        + deliver(b"next", tag=2)
    )
    assert [(each[1], each[-1]) for each in handler.seen] == [(1, b"x"), (2, b"next")]
    assert handler.seen[0][-2] == properties


def test_message_on_a_channel_that_nobody_opened_is_passed_over(rig: Rig) -> None:
    handler = rig.open_channel(1)
    rig.feed(deliver(b"stray", channel=9) + ack_frame(9, 1, False) + deliver(b"ours"))
    assert bodies(handler) == [b"ours"]


def test_half_a_message_is_forgotten_when_its_channel_is_opened_anew(rig: Rig) -> None:
    rig.open_channel(1)
    message = deliver(b"old message")
    rig.feed(message[: -len(Body(1, b"old message").marshal())])
    rig.feed(Method(1, spec.Channel.Close(406, "no", 0, 0)).marshal())
    handler = rig.open_channel(1)
    rig.feed(deliver(b"new"))
    assert bodies(handler) == [b"new"]


@pytest.mark.parametrize(
    ("frames", "error"),
    [
        (Heartbeat().marshal()[:-1] + b"\x00", pika.exceptions.InvalidFrameError),
        (deliver(b"ab")[:-1] + b"\x00", pika.exceptions.InvalidFrameError),
        (struct.pack(">BHI", 3, 1, 131_073) + b"x", pika.exceptions.InvalidFrameError),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", pika.exceptions.InvalidFrameError),
        (Body(1, b"x").marshal(), pika.exceptions.UnexpectedFrameError),
        (Header(1, 1, pika.BasicProperties()).marshal(), pika.exceptions.UnexpectedFrameError),
        (
            Method(1, spec.Basic.Deliver("c", 1, False, "", "")).marshal()
            + Body(1, b"x").marshal(),
            pika.exceptions.UnexpectedFrameError,
        ),
        (
            Method(1, spec.Basic.Deliver("c", 1, False, "", "")).marshal()
            + Header(1, 2, pika.BasicProperties()).marshal() * 2,
            pika.exceptions.UnexpectedFrameError,
        ),
        (
            Method(1, spec.Basic.Deliver("c", 1, False, "", "")).marshal()
            + Header(1, 1, pika.BasicProperties()).marshal()
            + Body(1, b"xy").marshal(),
            pika.exceptions.BodyTooLongError,
        ),
    ],
)
def test_frames_that_make_no_sense_are_an_error(
    rig: Rig, frames: bytes, error: type[Exception]
) -> None:
    handler = rig.open_channel(1)
    with pytest.raises(error):
        rig.feed(frames)
    assert handler.seen == []


def test_half_a_frame_counts_as_a_sign_of_life(rig: Rig) -> None:
    handler = rig.open_channel(1)
    before = rig.connection.bytes_received
    message = deliver(bytes(100_000))
    rig.feed(message[:50_000])
    assert rig.connection.bytes_received == before + 50_000
    rig.feed(message[50_000:])
    assert rig.connection.bytes_received == before + len(message)
    assert bodies(handler) == [bytes(100_000)]


def test_fault_of_a_handler_is_logged_with_its_traceback(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    class Faulty(ChannelHandler):
        def on_deliver(self, *_: Any) -> None:
            raise LookupError("ours")

    rig.open_channel(1)
    rig.connection.handlers[1] = Faulty()
    with pytest.raises(LookupError):
        rig.feed(deliver())
    (record,) = [each for each in caplog.records if each.name.startswith("threadko")]
    assert (record.levelno, record.exc_info and record.exc_info[0]) == (logging.ERROR, LookupError)


def test_broker_of_another_protocol_version_ends_the_connection() -> None:
    rig = Rig(opened=False)
    rig.feed(b"AMQP\x00\x00\x09\x02")
    rig.connection._proto_connection_lost(OSError("closed"))
    (error,) = rig.ends
    assert isinstance(error, pika.exceptions.IncompatibleProtocolError)
    rig.close()


def test_much_is_received_at_once_and_once_in_a_turn(rig: Rig) -> None:
    # Each further call would be a chance to lose the interpreter's lock for 5 ms.
    assert vars(rig.transport)["_MAX_RECV_BYTES"] == 64 * 1024
    assert vars(rig.transport)["_MAX_CONSUME_BYTES"] == 1
    recorder = rig.open_channel(1)
    rig.arrive(deliver() + deliver())
    assert [kind for kind, *_ in recorder.seen] == ["deliver"] * 2
    assert rig.transport.left_to_pika == []


def test_end_of_what_arrives_is_left_to_pika(rig: Rig) -> None:
    rig.arrive(b"")
    assert rig.transport.left_to_pika
    assert rig.transport.faults == []


def test_fault_in_what_arrives_ends_the_connection(rig: Rig) -> None:
    rig.arrive(Method(1, spec.Channel.OpenOk()).marshal()[:-1] + b"x")
    (fault,) = rig.transport.faults
    assert isinstance(fault, pika.exceptions.InvalidFrameError)


# Writing


def test_all_that_is_written_in_a_turn_leaves_in_one_send(rig: Rig) -> None:
    rig.open_channel(1)
    rig.connection.flush()
    rig.sends.clear()
    rig.connection.write(b"one")
    rig.connection.channel(2)
    rig.connection.write(b"three")
    assert rig.sends == []
    rig.connection.flush()
    assert rig.sends == [b"one" + Method(2, spec.Channel.Open()).marshal() + b"three"]
    rig.connection.flush()
    assert len(rig.sends) == 1


@pytest.mark.parametrize("limit", [0, 1, 5, BlockingIOError(), ConnectionResetError()])
def test_rest_that_the_socket_does_not_take_waits_in_order(rig: Rig, limit: int | OSError) -> None:
    rig.transport._sock.limits = [limit]
    rig.connection.write(b"first ")
    rig.connection.write(b"second ")
    rig.connection.flush()
    rig.connection.write(b"third")
    rig.connection.flush()
    taken = limit if isinstance(limit, int) else 0
    whole = b"first second "
    assert b"".join(rig.sends) == whole[:taken]
    # The third waits behind the rest, though the socket would take it.
    assert rig.transport.written == [whole[taken:], b"third"]


def test_encrypted_socket_is_written_by_its_transport() -> None:
    rig = Rig(sock=ssl.SSLSocket.__new__(ssl.SSLSocket))  # refuses every send: it is none
    rig.connection.write(b"secret")
    rig.connection.flush()
    assert rig.transport.written == [b"secret"]
    rig.close()


def test_what_is_written_after_the_connection_was_lost_goes_nowhere(rig: Rig) -> None:
    rig.connection._proto_connection_lost(OSError("gone"))
    rig.connection.write(b"late")
    rig.connection.flush()
    assert (rig.sends, rig.transport.written, len(rig.ends)) == ([], [], 1)


def test_nothing_is_sent_any_more_once_the_connection_is_dropped(rig: Rig) -> None:
    rig.connection.write(b"before")
    rig.connection.drop(OSError("enough"))
    rig.connection.write(b"after")
    rig.connection.flush()
    # An acknowledgement among it would settle a message that the broker is to take back.
    assert (rig.sends, rig.transport.written) == ([], [])
    assert rig.transport.aborted


def test_dropped_connection_ends_with_the_reason_given(rig: Rig) -> None:
    reason, later = OSError("enough"), OSError("more than enough")
    rig.connection.drop(reason)
    rig.connection.drop(later)
    rig.connection._proto_connection_lost(None)
    assert rig.ends == [reason]
    rig.connection.drop(later)
    assert rig.ends == [reason]


def test_broker_that_blocks_publishers_is_remembered(rig: Rig) -> None:
    assert not rig.connection.blocked
    rig.feed(Method(0, spec.Connection.Blocked("low on memory")).marshal())
    assert rig.connection.blocked
    rig.feed(Method(0, spec.Connection.Unblocked()).marshal())
    assert not rig.connection.blocked


@pytest.mark.parametrize("forgotten", [True, False])
def test_connection_is_closed_without_waiting_for_a_channel_that_is_forgotten(
    rig: Rig, forgotten: bool
) -> None:
    channel = rig.connection.open_channel(
        3, ChannelHandler(), on_open=lambda _: None, on_close=lambda _, __: None
    )
    rig.feed(Method(3, spec.Channel.OpenOk()).marshal())
    channel.queue_declare("q", passive=True, callback=lambda _: None)  # and no answer comes
    rig.connection.flush()
    rig.sends.clear()
    if forgotten:
        rig.connection.forget_channel(3)
        rig.feed(Method(3, spec.Queue.DeclareOk("q", 0, 0)).marshal())  # passed over
    rig.connection.close()
    rig.connection.flush()
    close = Method(0, spec.Connection.Close(200, "Normal shutdown", 0, 0)).marshal()
    assert rig.sends == ([close] if forgotten else [])


def test_socket_can_be_closed_by_hand_at_any_time(rig: Rig) -> None:
    rig.connection.close_socket()
    assert rig.sends == [b"closed"]
    rig.connection._proto_connection_lost(OSError("gone"))
    rig.connection.close_socket()
    assert rig.sends == [b"closed"]


def test_drivers_log_is_quiet_for_our_threads_and_loud_for_the_host(
    caplog: pytest.LogCaptureFixture,
) -> None:
    logger = logging.getLogger("pika.connection")
    for thread, kept in (("MainThread", True), ("threadko-shop-rpc-1", False)):
        caplog.clear()
        record = logger.makeRecord(logger.name, logging.ERROR, "", 0, "x", (), None)
        record.threadName = thread
        logger.handle(record)
        assert bool(caplog.records) is kept
