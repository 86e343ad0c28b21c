"""Bytes to frames and back, for a server. No I/O, no state but the bytes of an unfinished frame.

Methods are those of `pika.spec`; the headers and bodies of messages are passed through as they
came. Everything that arrives was written by anybody: what is wrong with it raises `FaultError`,
with the reply code that RabbitMQ has for it.
"""

import struct
from collections.abc import Iterator, Mapping
from typing import Any

import pika.data
import pika.frame
import pika.spec

__all__ = [
    "BODY",
    "FaultError",
    "HEADER",
    "HEARTBEAT",
    "METHOD",
    "MIN_FRAME_MAX",
    "PROTOCOL_HEADER",
    "Parser",
    "ack_frame",
    "check_properties",
    "content_frames",
    "decode_method",
    "deliver_method",
    "find_headers",
    "get_ok_method",
    "iter_table",
    "method_frame",
    "parse_publish",
    "read_properties",
    "return_method",
    "splice_header",
]

METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8
PROTOCOL_HEADER = b"AMQP\x00\x00\x09\x01"
MIN_FRAME_MAX = 4096
HEARTBEAT_FRAME = b"\x08\x00\x00\x00\x00\x00\x00\xce"

_START = struct.Struct(">BHI")
_CONTENT = struct.Struct(">HHQ")
_UINT16 = struct.Struct(">H")
_UINT32 = struct.Struct(">I")
_UINT64 = struct.Struct(">Q")
_ACK = struct.Struct(">BHIHHQBB")
_FRAME_END = 0xCE


class FaultError(Exception):
    """Something that the broker answers by closing a channel, or the connection.

    Args:
        code: the reply code, such as 404.
        text: what follows its name.
        closes: `channel` or `connection`.
    """

    def __init__(self, code: int, text: str, closes: str = "channel") -> None:
        super().__init__(code, text)
        self.code = code
        self.text = f"{_NAMES.get(code, 'INTERNAL_ERROR')} - {text}"
        self.closes = closes


_NAMES = {
    311: "CONTENT_TOO_LARGE",
    312: "NO_ROUTE",
    320: "CONNECTION_FORCED",
    402: "INVALID_PATH",
    403: "ACCESS_REFUSED",
    404: "NOT_FOUND",
    405: "RESOURCE_LOCKED",
    406: "PRECONDITION_FAILED",
    501: "FRAME_ERROR",
    502: "SYNTAX_ERROR",
    503: "COMMAND_INVALID",
    504: "CHANNEL_ERROR",
    505: "UNEXPECTED_FRAME",
    506: "RESOURCE_ERROR",
    530: "NOT_ALLOWED",
    540: "NOT_IMPLEMENTED",
    541: "INTERNAL_ERROR",
}


class Parser:
    """Cuts a stream of bytes into frames.

    Args:
        frame_max: bytes that a frame may have, its eight of overhead among them; it changes when
            both sides have agreed.
    """

    def __init__(self, frame_max: int) -> None:
        self.frame_max = frame_max
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[tuple[int, int, bytes]]:
        """Yield type, channel and payload of each frame that is whole now."""
        data = self._rest + data if self._rest else data
        at, size = 0, len(data)
        try:
            while size - at >= 7:
                kind, channel, length = _START.unpack_from(data, at)
                if length > self.frame_max - 8:
                    raise FaultError(
                        501,
                        f"type {kind}, all octets = <<>>: "
                        f"{{frame_too_large,{length},{self.frame_max - 8}}}",
                        "connection",
                    )
                start = at + 7
                end = start + length
                if end >= size:
                    break
                if data[end] != _FRAME_END:
                    raise FaultError(501, f"type {kind}, bad frame end marker", "connection")
                at = end + 1
                yield kind, channel, data[start:end]
        finally:
            self._rest = data[at:]


#: Arguments of methods that may be any bytes.
_LONG_STRINGS = ("challenge", "channel_id", "locales", "mechanisms", "new_secret", "response")


def decode_method(payload: bytes) -> Any:
    """Return the method in a frame's payload; `FaultError` if it is none, or cut off."""
    try:
        (number,) = _UINT32.unpack_from(payload)
    except struct.error:
        raise FaultError(501, "a method frame is too short", "connection") from None
    cls = pika.spec.methods.get(number)
    if cls is None:
        raise FaultError(503, f"unknown method {number >> 16}.{number & 0xFFFF}", "connection")
    method = cls()
    try:
        method.decode(payload, 4)
    except Exception as error:  # whatever the driver's decoder does with rubbish
        raise FaultError(501, f"{cls.NAME} cannot be read", "connection") from error
    for name, value in vars(method).items():
        # The driver leaves what is no text as bytes, which no short string may be.
        is_name = isinstance(value, bytes) and name not in _LONG_STRINGS
        if is_name or (isinstance(value, dict) and any(isinstance(key, bytes) for key in value)):
            raise FaultError(501, f"{name} of {cls.NAME} is no UTF-8", "connection")
    return method


def parse_publish(payload: bytes) -> tuple[str, str, bool, bool]:
    """Return exchange, routing key, mandatory and immediate of a basic.publish."""
    try:
        at = 7 + payload[6]
        # Names are bytes to a broker; those that are no text come out as they came in.
        exchange = payload[7:at].decode("utf-8", "surrogateescape")
        end = at + 1 + payload[at]
        key = payload[at + 1 : end].decode("utf-8", "surrogateescape")
        bits = payload[end]
    except IndexError as error:
        raise FaultError(501, "Basic.Publish cannot be read", "connection") from error
    return exchange, key, bool(bits & 1), bool(bits & 2)


def method_frame(channel: int, method: Any) -> bytes:
    """Return the frame of one method."""
    frame: bytes = pika.frame.Method(channel, method).marshal()
    return frame


def ack_frame(channel: int, tag: int, multiple: bool, accepted: bool = True) -> bytes:
    """Return the frame of a confirm."""
    return _ACK.pack(1, channel, 13, 60, 80 if accepted else 120, tag, multiple, _FRAME_END)


def _shortstr(text: str) -> bytes:
    raw = text.encode("utf-8", "surrogateescape")
    return bytes((len(raw),)) + raw


def _frame(channel: int, *pieces: bytes) -> bytes:
    payload = b"".join(pieces)
    return b"".join((_START.pack(1, channel, len(payload)), payload, b"\xce"))


def return_method(channel: int, code: int, text: str, exchange: str, routing_key: str) -> bytes:
    """Return the frame of a basic.return."""
    return _frame(
        channel,
        b"\x00\x3c\x00\x32",
        _UINT16.pack(code),
        _shortstr(text),
        _shortstr(exchange),
        _shortstr(routing_key),
    )


def get_ok_method(
    channel: int, number: int, redelivered: bool, exchange: str, routing_key: str, left: int
) -> bytes:
    """Return the frame of a basic.get-ok; `left` messages are still ready."""
    return _frame(
        channel,
        b"\x00\x3c\x00\x47",
        _UINT64.pack(number),
        b"\x01" if redelivered else b"\x00",
        _shortstr(exchange),
        _shortstr(routing_key),
        _UINT32.pack(left),
    )


def deliver_method(
    channel: int, tag: bytes, number: int, redelivered: bool, exchange: str, routing_key: str
) -> bytes:
    """Return the frame of a basic.deliver; `tag` is the consumer's as a short string."""
    return _frame(
        channel,
        b"\x00\x3c\x00\x3c",
        tag,
        _UINT64.pack(number),
        b"\x01" if redelivered else b"\x00",
        _shortstr(exchange),
        _shortstr(routing_key),
    )


def content_frames(channel: int, header: bytes, body: bytes, frame_max: int) -> bytes:
    """Return a message's header and body frames; `header` are the flags and the properties."""
    pieces = [
        _START.pack(2, channel, len(header) + 12),
        _CONTENT.pack(60, 0, len(body)),
        header,
        b"\xce",
    ]
    step = frame_max - 8
    for start in range(0, len(body), step):
        part = body[start : start + step]
        pieces += (_START.pack(3, channel, len(part)), part, b"\xce")
    return b"".join(pieces)


# Properties. Only what a feature needs is decoded, and what is changed is spliced in.

_FLAG_HEADERS, _FLAG_EXPIRATION = 1 << 13, 1 << 8

#: Flag and kind of each property, in the order of the wire: short string, table, octet, long.
_PROPERTIES = (
    ("content_type", 1 << 15, "s"),
    ("content_encoding", 1 << 14, "s"),
    ("headers", 1 << 13, "t"),
    ("delivery_mode", 1 << 12, "o"),
    ("priority", 1 << 11, "o"),
    ("correlation_id", 1 << 10, "s"),
    ("reply_to", 1 << 9, "s"),
    ("expiration", 1 << 8, "s"),
    ("message_id", 1 << 7, "s"),
    ("timestamp", 1 << 6, "l"),
    ("type", 1 << 5, "s"),
    ("user_id", 1 << 4, "s"),
    ("app_id", 1 << 3, "s"),
    ("cluster_id", 1 << 2, "s"),
)


def read_properties(header: bytes) -> dict[str, bytes]:
    """Return the raw bytes of each property that is there, without lengths in front.

    Raises:
        FaultError: the header is no list of properties.
    """
    found: dict[str, bytes] = {}
    try:
        (flags,) = _UINT16.unpack_from(header)
        if flags & 0b11:
            raise FaultError(541, "unknown property flags", "connection")
        at = 2
        for name, flag, kind in _PROPERTIES:
            if not flags & flag:
                continue
            if kind == "s":
                size, at = header[at], at + 1
            elif kind == "t":
                size, at = _UINT32.unpack_from(header, at)[0], at + 4
            else:
                size = 1 if kind == "o" else 8
            if at + size > len(header):
                raise IndexError
            found[name] = header[at : at + size]
            at += size
        if at != len(header):
            raise IndexError
    except (IndexError, struct.error) as error:
        raise FaultError(541, "a content header cannot be read", "connection") from error
    return found


def check_properties(header: bytes) -> dict[str, bytes]:
    """Return what `read_properties` does, if the table of headers can be cut into entries too.

    Raises:
        FaultError: as RabbitMQ, which fails in itself; whoever reads them later need not.
    """
    found = read_properties(header)
    if "headers" in found:
        for _ in iter_table(found["headers"]):
            pass
    return found


def splice_header(
    header: bytes,
    headers: Mapping[str, Any],
    remove: tuple[str, ...] = (),
    drop_expiration: bool = False,
) -> bytes:
    """Return properties with entries added to the table of headers, all others as they were."""
    found = read_properties(header)
    kept = [
        raw
        for name, raw in iter_table(found.get("headers", b""))
        if name not in headers and name not in remove
    ]
    added: list[bytes] = []
    for name, value in headers.items():
        added.append(_shortstr(name))
        pika.data.encode_value(added, value)
    # As RabbitMQ does, the new ones stand in front.
    found["headers"] = b"".join((*added, *kept))
    if drop_expiration:
        found.pop("expiration", None)
    flags = 0
    pieces = [b""]
    for name, flag, kind in _PROPERTIES:
        if name not in found:
            continue
        flags |= flag
        raw = found[name]
        if kind == "s":
            pieces.append(bytes((len(raw),)))
        elif kind == "t":
            pieces.append(_UINT32.pack(len(raw)))
        pieces.append(raw)
    pieces[0] = _UINT16.pack(flags)
    return b"".join(pieces)


_FIXED = {
    "t": 1, "b": 1, "B": 1, "s": 2, "u": 2, "U": 2, "I": 4, "i": 4, "L": 8, "l": 8,
    "f": 4, "d": 8, "D": 5, "T": 8, "V": 0,
}  # fmt: skip


def iter_table(raw: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the bytes of each entry of a table, decoding nothing else."""
    at = 0
    try:
        while at < len(raw):
            start = at
            at += 1 + raw[at]
            name = raw[start + 1 : at].decode("utf-8", "surrogateescape")
            kind, at = chr(raw[at]), at + 1
            if kind in ("S", "x", "A", "F"):
                at += 4 + _UINT32.unpack_from(raw, at)[0]
            else:
                at += _FIXED[kind]
            if at > len(raw):
                raise IndexError
            yield name, raw[start:at]
    except (IndexError, KeyError, struct.error) as error:
        raise FaultError(541, "a table cannot be read", "connection") from error


def find_headers(header: bytes, *names: str) -> dict[str, Any]:
    """Return the headers of those names, or all; those that cannot be decoded are left out.

    Args:
        header: flags and properties.
    """
    found: dict[str, Any] = {}
    for name, raw in iter_table(read_properties(header).get("headers", b"")):
        if names and name not in names:
            continue
        try:
            found[name], _ = pika.data.decode_value(raw, 1 + raw[0])
        except Exception:  # whatever the driver does with it: nobody can be told
            continue
    return found
