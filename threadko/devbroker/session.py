"""One connection, from its first byte to its last: bytes in, bytes out. No I/O.

Everything belongs to the broker's thread. Whoever owns the socket feeds `receive`, writes what
`take_output` returns, and closes the socket when `has_ended` says so and nothing is left to write.
"""

import struct
from collections.abc import Callable
from typing import Any, Protocol

import pika.data
from pika import spec

from threadko.devbroker.channel import Channel
from threadko.devbroker.frames import (
    HEARTBEAT,
    HEARTBEAT_FRAME,
    METHOD,
    MIN_FRAME_MAX,
    PROTOCOL_HEADER,
    FaultError,
    Parser,
    decode_method,
    method_frame,
)
from threadko.devbroker.vhost import VHost

__all__ = ["Broker", "Session"]

_FRAME_MAX = 131_072
_CHANNEL_MAX = 2047
_HEARTBEAT_SECONDS = 60
_METHOD_NUMBER = struct.Struct(">I")
_PUBLISH = 60 << 16 | 40  # what content belongs to

# Bytes that wait for a client that does not read: deliveries stop at the first; a client that
# brings about so many other answers is dropped at the second. Guessed.
_HIGH_WATER = 1 << 20
_LIMIT = 64 << 20

_CAPABILITIES = {
    "publisher_confirms": True,
    "exchange_exchange_bindings": True,
    "basic.nack": True,
    "consumer_cancel_notify": True,
    "connection.blocked": True,
    "consumer_priorities": True,
    "authentication_failure_close": True,
    "per_consumer_qos": True,
    "direct_reply_to": False,
}


class Broker(Protocol):
    """What a session needs of the broker."""

    vhosts: dict[str, VHost]

    def check_login(self, user: str, password: str) -> bool: ...
    def confirm_later(self, session: "Session", channel: Channel) -> None: ...
    def output_is_ready(self, session: "Session") -> None: ...
    def note_publisher(self, session: "Session") -> None: ...
    def count_bytes(self, size: int) -> None: ...


class Session:
    """One client's connection."""

    def __init__(self, broker: Broker, version: str = "0") -> None:
        self.vhost: VHost
        self.user = ""
        self.frame_max = _FRAME_MAX
        self.heartbeat = 0  # seconds; 0 until it is agreed, or if the client wants none
        self.has_ended = False
        self.is_blocked = False  # the client was told to publish no more
        self.is_publisher = False
        self.capabilities: dict[str, Any] = {}
        self.client_name = ""
        self._broker = broker
        self._version = version
        self._parser = Parser(_FRAME_MAX)
        self._greeting: bytes | None = (
            b""  # what came of the protocol header; None once it is whole
        )
        self._state: Callable[[Any], None] | None = self._start_ok
        self._is_open = False
        self._is_closing = False  # we have sent connection.close
        self._channels: dict[int, Channel] = {}
        self._channel_max = _CHANNEL_MAX
        self._out: list[bytes] = []
        self._out_size = 0
        self._unwritten = 0  # that the owner of the socket still has

    # The owner of the socket

    def receive(self, data: bytes) -> None:
        """Take what has arrived."""
        if self.has_ended:
            return
        if self._greeting is not None:
            data = self._greet(data)
        if data:
            self._take_frames(data)

    def _take_frames(self, data: bytes) -> None:
        try:
            for kind, number, payload in self._parser.feed(data):
                self._take_frame(kind, number, payload)
                if self.has_ended:
                    break
        except FaultError as fault:
            self._close(fault, 0, 0)

    def take_output(self) -> bytes:
        """Return what is to be written."""
        data = b"".join(self._out)
        self._out.clear()
        self._unwritten += len(data)
        self._out_size = 0
        return data

    def note_written(self, size: int) -> None:
        """So many bytes have left; deliveries go on if they had stopped."""
        was_full = not self.is_writable
        self._unwritten -= size
        self._broker.count_bytes(-size)
        if was_full and self.is_writable:
            for channel in list(self._channels.values()):
                channel.pump()

    def end(self) -> None:
        """The connection is gone: all that was not settled goes back."""
        self.has_ended = True
        channels, self._channels = self._channels, {}
        for channel in channels.values():
            channel.end()
        if self._is_open:
            self._is_open = False
            self.vhost.disown(self)
        self._broker.count_bytes(-self._out_size - self._unwritten)
        self._out_size = self._unwritten = 0
        self._out.clear()

    def send_heartbeat(self) -> None:
        """Give a sign of life."""
        if self._is_open and not self.has_ended:
            self.send(HEARTBEAT_FRAME)

    def block(self, reason: str) -> None:
        """Tell the client not to publish."""
        if self._is_open and not self.is_blocked:
            self.is_blocked = True
            if self.capabilities.get("connection.blocked"):
                self._answer(0, spec.Connection.Blocked(reason=reason))

    def unblock(self) -> None:
        """Tell the client to go on."""
        if self.is_blocked:
            self.is_blocked = False
            if self.capabilities.get("connection.blocked"):
                self._answer(0, spec.Connection.Unblocked())

    def close(self, code: int, text: str) -> None:
        """Close the connection from our side."""
        if self._is_open and not self._is_closing:
            self._close(FaultError(code, text, "connection"), 0, 0)
        else:
            self.has_ended = True

    # Channels

    def send(self, data: bytes) -> None:
        """Put whole frames into the buffer."""
        if not self._out:
            self._broker.output_is_ready(self)
        self._out.append(data)
        self._out_size += len(data)
        self._broker.count_bytes(len(data))
        if self._out_size + self._unwritten > _LIMIT:
            self.has_ended = True

    @property
    def is_writable(self) -> bool:
        """Whether the client reads what it is sent."""
        return self._out_size + self._unwritten < _HIGH_WATER and not self.has_ended

    @property
    def is_closing(self) -> bool:
        """Whether the client was told that it is over, and is to confirm it."""
        return self._is_closing

    @property
    def wants_cancel(self) -> bool:
        """Whether the client understands a cancel of ours."""
        return bool(self.capabilities.get("consumer_cancel_notify"))

    def confirm_later(self, channel: Channel) -> None:
        """Have a channel's confirms written at the end of the turn."""
        self._broker.confirm_later(self, channel)

    def note_publisher(self) -> None:
        """This client publishes."""
        if not self.is_publisher:
            self.is_publisher = True
            self._broker.note_publisher(self)

    # Frames

    def _greet(self, data: bytes) -> bytes:
        data = (self._greeting or b"") + data
        if not PROTOCOL_HEADER.startswith(data[:8]):
            # The answer says what would be understood.
            self.send(PROTOCOL_HEADER)
            self.has_ended = True
            return b""
        if len(data) < 8:
            self._greeting = data
            return b""
        self._greeting = None
        self._answer(
            0,
            spec.Connection.Start(
                server_properties={
                    "product": "threadko development broker",
                    "version": self._version,
                    "platform": "Python",
                    "information": "for development and tests only",
                    "capabilities": _CAPABILITIES,
                },
                mechanisms="PLAIN AMQPLAIN",
                locales="en_US",
            ),
        )
        return data[8:]

    def _take_frame(self, kind: int, number: int, payload: bytes) -> None:
        if kind == HEARTBEAT:
            _check_heartbeat(number, payload)
            return
        if kind not in (1, 2, 3):
            raise FaultError(501, f"unknown frame type {kind}", "connection")
        if number == 0:
            self._take_connection_frame(kind, payload)
            return
        if self._is_closing:
            return
        if not self._is_open:
            raise FaultError(
                504, f"channel {number} is used before the connection is open", "connection"
            )
        number_of_method = 0
        try:
            if kind == METHOD:
                if len(payload) < 4:
                    raise FaultError(501, "a method frame is too short", "connection")
                (number_of_method,) = _METHOD_NUMBER.unpack_from(payload)
            self._take_channel_frame(kind, number, number_of_method, payload)
        except FaultError as fault:
            class_id, method_id = number_of_method >> 16, number_of_method & 0xFFFF
            if kind != METHOD:
                class_id, method_id = 60, 40
            if fault.closes == "channel":
                self._close_channel(number, fault, class_id, method_id)
            else:
                self._close(fault, class_id, method_id)

    def _take_connection_frame(self, kind: int, payload: bytes) -> None:
        if kind != METHOD:
            raise FaultError(
                505, "expected method frame, got non method frame instead", "connection"
            )
        method = decode_method(payload)
        if isinstance(method, spec.Connection.CloseOk):
            self.has_ended = True
        elif isinstance(method, spec.Connection.Close):
            self._answer(0, spec.Connection.CloseOk())
            self.has_ended = True
        elif self._is_closing:
            return
        elif self._state is not None:
            self._state(method)
        elif isinstance(method, spec.Connection.UpdateSecret):
            raise FaultError(540, "Connection.UpdateSecret is not done here", "connection")
        else:
            raise FaultError(504, "unexpected method in connection state running", "connection")

    def _take_channel_frame(
        self, kind: int, number: int, number_of_method: int, payload: bytes
    ) -> None:
        channel = self._channels.get(number)
        if channel is None:
            if kind != METHOD:
                what = "expected method frame, got non method frame instead"
                raise FaultError(505, what, "connection")
            self._take_method_of_no_channel(number, number_of_method, payload)
            return
        if channel.is_closing:
            if number_of_method == spec.Channel.Close.INDEX:
                self._answer(number, spec.Channel.CloseOk())
                del self._channels[number]
            elif number_of_method == spec.Channel.CloseOk.INDEX:
                del self._channels[number]
            return
        if kind != METHOD:
            channel.take_frame(kind, payload)
        elif number_of_method == spec.Channel.Open.INDEX:
            raise FaultError(504, "second 'channel.open' seen", "connection")
        elif number_of_method == spec.Channel.Close.INDEX:
            decode_method(payload)
            channel.write_confirms()
            channel.end()
            del self._channels[number]
            self._answer(number, spec.Channel.CloseOk())
        elif number_of_method == spec.Channel.CloseOk.INDEX:
            raise FaultError(503, "Channel.CloseOk was not asked for", "connection")
        else:
            channel.take_method(number_of_method, payload, decode_method)

    def _take_method_of_no_channel(self, number: int, method: int, payload: bytes) -> None:
        if method == spec.Channel.Open.INDEX:
            # How many there are counts, as in RabbitMQ, and not their numbers.
            if len(self._channels) >= self._channel_max:
                raise FaultError(
                    530,
                    f"number of channels opened ({len(self._channels)}) has reached the negotiated"
                    f" channel_max ({self._channel_max})",
                    "connection",
                )
            decode_method(payload)
            self._channels[number] = Channel(self, number)
            self._answer(number, spec.Channel.OpenOk())
        elif method == spec.Channel.Close.INDEX:
            self._answer(number, spec.Channel.CloseOk())
        elif method != spec.Channel.CloseOk.INDEX:
            raise FaultError(504, "expected 'channel.open'", "connection")

    def _answer(self, number: int, method: Any) -> None:
        self.send(method_frame(number, method))

    def _close_channel(self, number: int, fault: FaultError, class_id: int, method_id: int) -> None:
        channel = self._channels[number]
        channel.write_confirms()
        channel.end()
        self._answer(
            number,
            spec.Channel.Close(
                reply_code=fault.code,
                reply_text=_short(fault.text),
                class_id=class_id,
                method_id=method_id,
            ),
        )

    def _close(self, fault: FaultError, class_id: int, method_id: int) -> None:
        if self._is_closing or self._greeting is not None:
            self.has_ended = True
            return
        self._is_closing = True
        channels, self._channels = self._channels, {}
        for channel in channels.values():
            channel.end()
        self._answer(
            0,
            spec.Connection.Close(
                reply_code=fault.code,
                reply_text=_short(fault.text),
                class_id=class_id,
                method_id=method_id,
            ),
        )
        if fault.code in (501, 502) or not self._is_open:
            self.has_ended = True  # what follows cannot be trusted to be frames

    # Opening

    def _start_ok(self, method: Any) -> None:
        if not isinstance(method, spec.Connection.StartOk):
            raise FaultError(
                503, f"expected 'connection.start_ok', not {method.NAME}", "connection"
            )
        properties = method.client_properties or {}
        capabilities = properties.get("capabilities")
        self.capabilities = capabilities if isinstance(capabilities, dict) else {}
        self.client_name = str(properties.get("connection_name", ""))
        user, password = _read_login(method.mechanism, method.response)
        if not self._broker.check_login(user, password):
            fault = FaultError(
                403,
                f"Login was refused using authentication mechanism {method.mechanism}. For details"
                " see the broker logfile.",
                "connection",
            )
            if self.capabilities.get("authentication_failure_close"):
                self._close(fault, 0, 0)
            self.has_ended = True
            return
        self.user = user
        self._state = self._tune_ok
        self._answer(
            0,
            spec.Connection.Tune(
                channel_max=_CHANNEL_MAX, frame_max=_FRAME_MAX, heartbeat=_HEARTBEAT_SECONDS
            ),
        )

    def _tune_ok(self, method: Any) -> None:
        if not isinstance(method, spec.Connection.TuneOk):
            raise FaultError(503, f"expected 'connection.tune_ok', not {method.NAME}", "connection")
        # 0 would be "no limit", which is more than was offered.
        if not MIN_FRAME_MAX <= method.frame_max <= _FRAME_MAX:
            raise FaultError(
                530,
                f"negotiated frame_max = {method.frame_max} is not from {MIN_FRAME_MAX} to"
                f" {_FRAME_MAX}",
                "connection",
            )
        if not 0 < method.channel_max <= _CHANNEL_MAX:
            raise FaultError(
                530,
                f"negotiated channel_max = {method.channel_max} is higher than the maximum allowed"
                f" value ({_CHANNEL_MAX})",
                "connection",
            )
        self.frame_max = self._parser.frame_max = method.frame_max
        self._channel_max = method.channel_max
        self.heartbeat = method.heartbeat
        self._state = self._open

    def _open(self, method: Any) -> None:
        if not isinstance(method, spec.Connection.Open):
            raise FaultError(503, f"expected 'connection.open', not {method.NAME}", "connection")
        vhost = self._broker.vhosts.get(method.virtual_host)
        if vhost is None:
            raise FaultError(530, f"vhost {method.virtual_host} not found", "connection")
        self.vhost = vhost
        self._state = None
        self._is_open = True
        self._answer(0, spec.Connection.OpenOk())

    @property
    def is_open(self) -> bool:
        """Whether the client has been let in."""
        return self._is_open


def _check_heartbeat(number: int, payload: bytes) -> None:
    if number:
        raise FaultError(505, "a heartbeat belongs to channel 0", "connection")
    if payload:
        raise FaultError(501, "a heartbeat has no content", "connection")


def _short(text: str) -> str:
    """Return a text that fits into a short string."""
    raw = text.encode()
    return text if len(raw) <= 255 else raw[:252].decode("utf-8", "ignore") + "..."


def _read_login(mechanism: str, response: Any) -> tuple[str, str]:
    raw = response.encode("utf-8", "surrogateescape") if isinstance(response, str) else response
    try:
        if mechanism == "PLAIN":
            _, user, password = raw.split(b"\0")
            return user.decode(), password.decode()
        if mechanism == "AMQPLAIN":
            table, _ = pika.data.decode_table(struct.pack(">I", len(raw)) + raw, 0)
            return str(table["LOGIN"]), str(table["PASSWORD"])
    except Exception:  # whatever is wrong with it, it is no login
        return "", ""
    raise FaultError(504, f"unknown authentication mechanism '{mechanism}'", "connection")
