"""pika's connection, made to do little: few system calls, few calls into pika, raw headers.

Everything here belongs to one thread, the one that runs the ``Loop``; no method may be called
from another, save ``Loop.add_callback_threadsafe``. This is the one room that reaches below
pika's public surface, so that a later pika can be had by changing it alone.

What differs from pika's own ``SelectConnection``:

* all frames that are written in one turn of the loop leave in one ``send`` before its next wait;
* what arrives is read in pieces of 64 KiB, one per turn, and cut into frames without copying;
* deliveries, returns and confirms go straight to the handler of their channel, with the header
  frame as raw bytes: a header that cannot be decoded must not cost the connection, and with it
  every consumer that the broker sends it to next.
"""

import logging
import ssl
import struct
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pika
import pika.exceptions
import pika.frame
import pika.spec
from pika.channel import Channel

from threadko.amqp.loop import Loop
from threadko.amqp.message import parse_deliver, parse_return

__all__ = ["Channel", "ChannelHandler", "Connection"]

_log = logging.getLogger(__name__)

_RECEIVE_BYTES = 64 * 1024

_FRAME = struct.Struct(">BHI")  # type, channel, payload size; a frame end octet follows the payload
_METHOD = struct.Struct(">I")
_CONFIRM = struct.Struct(">QB")
_BODY_SIZE = struct.Struct(">Q")
_FRAME_END = pika.spec.FRAME_END
_DELIVER = pika.spec.Basic.Deliver.INDEX
_RETURN = pika.spec.Basic.Return.INDEX
_ACK = pika.spec.Basic.Ack.INDEX
_NACK = pika.spec.Basic.Nack.INDEX


def _is_ours(record: logging.LogRecord) -> bool:
    """Whether a record of pika's comes from a thread of the host's own, not from one of ours.

    pika logs each failed attempt in several ERROR lines with tracebacks; our connection threads
    say the same in one line of their own.
    """
    if record.funcName == "_resolve":
        # pika looks names up on a thread of its own, which inherits this flag from ours.
        return not threading.current_thread().daemon
    return not (record.threadName or "").startswith("threadko-")


def _quieten(logger_names: Sequence[str]) -> None:
    # A filter counts only for the logger it is put on, so each module's logger gets it.
    for name in logger_names:
        logging.getLogger(name).addFilter(_is_ours)


_quieten([n for n in logging.root.manager.loggerDict if n == "pika" or n.startswith("pika.")])


class ChannelHandler:
    """Takes what the broker sends on one channel. Called on the connection's thread."""

    def on_deliver(
        self,
        tag: int,
        redelivered: bool,
        exchange: str,
        routing_key: str,
        header: bytes,
        body: bytes,
    ) -> None:
        """Take a message for a consumer of this channel."""

    def on_return(self, code: int, text: str, header: bytes, body: bytes) -> None:
        """Take back a mandatory message that no queue would have; its confirm follows."""

    def on_confirm(self, tag: int, multiple: bool, accepted: bool) -> None:
        """Learn that the broker took (or refused) one message, or all up to ``tag``."""

    def on_unblocked(self) -> None:
        """Learn that the broker takes messages again."""


class _Content:
    """A message that is arriving: its method is here, its header and body are not yet."""

    __slots__ = ("header", "method", "parts", "payload", "received", "size")

    def __init__(self, method: int, payload: bytes) -> None:
        self.method = method
        self.payload = payload
        self.header: bytes | None = None
        self.size = 0
        self.received = 0
        self.parts: list[bytes] = []


class Connection(pika.SelectConnection):
    """One connection to a broker, from its first byte to its last; never used again after that."""

    def __init__(
        self,
        parameters: pika.connection.Parameters,
        loop: Loop,
        *,
        on_open: Callable[[], None],
        on_end: Callable[[BaseException], None],
    ) -> None:
        """Begin to connect. One of two things follows: ``on_open`` and later ``on_end``, or
        ``on_end`` alone, with the reason."""
        self.handlers: dict[int, ChannelHandler] = {}
        self.blocked = False
        self._out: list[bytes] = []
        self._rest = b""
        self._contents: dict[int, _Content] = {}
        self._loop = loop
        self._plain_socket: Any = None
        self._pika_handler: Callable[[int, int], object] = lambda fd, events: None
        self._dropped = False
        super().__init__(
            parameters,
            on_open_callback=lambda _: on_open(),
            on_open_error_callback=lambda _, error: on_end(error),
            on_close_callback=lambda _, error: on_end(error),
            custom_ioloop=loop,
        )
        self.add_on_connection_blocked_callback(self._on_blocked)
        self.add_on_connection_unblocked_callback(self._on_unblocked)

    @property
    def has_output(self) -> bool:
        """Whether something leaves at the end of this turn."""
        return bool(self._out)

    @property
    def frame_max(self) -> int:
        """The largest frame that both sides agreed on, in bytes."""
        return int(self.params.frame_max)

    def open_channel(
        self,
        number: int,
        handler: ChannelHandler,
        *,
        on_open: Callable[[Channel], None],
        on_close: Callable[[Channel, BaseException], None],
    ) -> Channel:
        """Open channel ``number``; what arrives on it goes to ``handler``."""
        self.handlers[number] = handler
        self._contents.pop(number, None)
        channel = self.channel(number, on_open_callback=on_open)
        channel.add_on_close_callback(on_close)
        return channel

    def forget_channel(self, number: int) -> None:
        """Wait for a channel no more, not even when the connection is closed.

        pika would not close it before the answer to what was asked on it.
        """
        self.handlers.pop(number, None)
        self._channels.pop(number, None)

    def write(self, frames: bytes) -> None:
        """Send whole frames at the end of this turn of the loop."""
        self._out.append(frames)

    def flush(self) -> None:
        """Hand everything written to the socket, in one call if it takes it."""
        out = self._out
        if not out:
            return
        data = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        transport = self._transport
        # Lost or dropped in this very turn: a late acknowledgement must not slip out.
        if transport is None or self._dropped:
            return
        if self._plain_socket is not None and not transport.get_write_buffer_size():
            # pika would ask the poller whether the socket is writable, send, and tell the poller
            # to stop asking: three system calls more for a socket that nearly always is.
            try:
                sent = self._plain_socket.send(data)
            except OSError:
                sent = 0  # would block, or is broken: pika's own write finds out which
            if sent == len(data):
                return
            data = data[sent:]
        transport.write(data)

    def drop(self, error: Exception) -> None:
        """End the connection without a word to the broker; ``on_end`` gets ``error`` soon after."""
        if self._dropped or self.is_closed:
            return
        self._dropped = True
        self._out.clear()
        self._terminate_stream(error)

    def close_socket(self) -> None:
        """Close the socket by hand, if pika has left it open."""
        sock = getattr(self._transport, "_sock", None)
        if sock is not None:
            sock.close()

    def _on_blocked(self, _connection: object, _frame: object) -> None:
        self.blocked = True

    def _on_unblocked(self, _connection: object, _frame: object) -> None:
        self.blocked = False
        for handler in list(self.handlers.values()):
            handler.on_unblocked()

    def _proto_connection_made(self, transport: Any) -> None:
        # Instance attributes over pika's class constants: one receive per turn, of a useful size.
        transport._MAX_RECV_BYTES = _RECEIVE_BYTES
        transport._MAX_CONSUME_BYTES = 1
        sock = transport._sock
        if not isinstance(sock, ssl.SSLSocket):
            self._plain_socket = sock
            self._pika_handler = self._loop.divert(sock.fileno(), self._on_socket_event)
        super()._proto_connection_made(transport)

    def _on_socket_event(self, fd: int, events: int) -> None:
        """Receive from a plain socket; all but the usual is left to pika, which looks again."""
        data = b""
        try:
            if events == Loop.READ:
                data = self._plain_socket.recv(_RECEIVE_BYTES)
        except OSError:
            pass
        if not data:
            self._pika_handler(fd, events)
            return
        try:
            self._proto_data_received(data)
        except Exception as error:
            self._transport._initiate_abort(error)

    def _proto_connection_lost(self, error: BaseException | None) -> None:
        self._plain_socket = None
        super()._proto_connection_lost(error)

    def _proto_data_received(self, data: bytes) -> None:
        try:
            self._on_data_available(data)
        except pika.exceptions.AMQPError:
            raise  # the broker's fault, told by whoever learns why the connection ended
        except Exception:
            # pika ends the connection over it, and would log it where nobody sees it.
            _log.exception("a fault while taking what the broker sent")
            raise

    def _output_marshaled_frames(self, marshaled_frames: Sequence[bytes]) -> None:
        self._out.extend(marshaled_frames)

    def _on_data_available(self, data_in: bytes) -> None:
        # Bytes count for the heartbeat when they arrive, not when their frame is whole: a large
        # message on a slow line is not silence.
        self.bytes_received += len(data_in)
        data = self._rest + data_in if self._rest else data_in
        size = len(data)
        position = 0
        while size - position >= 8:
            kind, number, length = _FRAME.unpack_from(data, position)
            start = position + 7
            end = start + length
            if kind == 65 and data[position : position + 4] == b"AMQP":
                self._process_other(data[position:])
                return
            if end >= size:
                if 0 < self.params.frame_max < length:
                    # Nobody sends that; to wait for it all would be to wait for ever.
                    raise pika.exceptions.InvalidFrameError(f"a frame of {length} bytes")
                break
            if data[end] != _FRAME_END:
                raise pika.exceptions.InvalidFrameError("a frame does not end where it should")
            self._on_frame(kind, number, data, start, end)
            position = end + 1
        self._rest = data[position:] if position else data

    def _on_frame(self, kind: int, number: int, data: bytes, start: int, end: int) -> None:
        """Take one frame, whose payload is ``data[start:end]``."""
        if kind == 1:
            (method,) = _METHOD.unpack_from(data, start)
            if method in (_DELIVER, _RETURN):
                self._contents[number] = _Content(method, data[start + 4 : end])
            elif method in (_ACK, _NACK):
                tag, flags = _CONFIRM.unpack_from(data, start + 4)
                handler = self.handlers.get(number)
                if handler is not None:
                    handler.on_confirm(tag, bool(flags & 1), method == _ACK)
            else:
                self._process_other(data[start - 7 : end + 1])
            return
        content = self._contents.get(number)
        if content is None:
            if kind != 8:
                raise pika.exceptions.UnexpectedFrameError(f"type {kind} on channel {number}")
            self._process_other(data[start - 7 : end + 1])
        elif kind == 2 and content.header is None:
            (content.size,) = _BODY_SIZE.unpack_from(data, start + 4)
            content.header = data[start + 12 : end]
            if content.size == 0:
                self._on_content(number, content, content.header, b"")
        elif kind == 3 and content.header is not None:
            fragment = data[start:end]
            content.received += len(fragment)
            if content.received < content.size:
                content.parts.append(fragment)
            elif content.received > content.size:
                raise pika.exceptions.BodyTooLongError(content.received, content.size)
            else:
                body = b"".join((*content.parts, fragment)) if content.parts else fragment
                self._on_content(number, content, content.header, body)
        else:
            raise pika.exceptions.UnexpectedFrameError(f"type {kind} on channel {number}")

    def _on_content(self, number: int, content: _Content, header: bytes, body: bytes) -> None:
        del self._contents[number]
        handler = self.handlers.get(number)
        if handler is None:
            return
        if content.method == _DELIVER:
            tag, redelivered, exchange, routing_key = parse_deliver(content.payload, 0)
            handler.on_deliver(tag, redelivered, exchange, routing_key, header, body)
        else:
            code, text, _, _ = parse_return(content.payload, 0)
            handler.on_return(code, text, header, body)

    def _process_other(self, frame: bytes) -> None:
        """Let pika decode and process one frame."""
        _, value = pika.frame.decode_frame(frame)
        if value is not None:
            self._process_frame(value)
