"""Messages as bytes: properties, deliveries, and the frames that carry them. No I/O.

Properties are encoded and sizes checked in the thread that publishes, and decoded in the worker
that handles the delivery, so that what cannot be sent or read costs its owner and nobody else. The
connection thread only cuts bytes: `publish_frames`, `ack_frame`, `reject_frame`, `parse_deliver`,
`parse_return`. All are pure functions; a `Delivery` belongs to one thread at a time.
"""

import functools
import operator
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from threadko.amqp.tables import decode_table, encode_shortstr, encode_table
from threadko.exceptions import ConfigurationError, EncodeError

__all__ = [
    "Delivery",
    "FRAME_OVERHEAD",
    "HEADER_OVERHEAD",
    "Properties",
    "ack_frame",
    "check_sendable",
    "decode_properties",
    "encode_properties",
    "encode_reply_properties",
    "find_correlation_id",
    "parse_deliver",
    "parse_return",
    "publish_frames",
    "read_delivery_mode",
    "reject_frame",
]

#: Milliseconds: RabbitMQ closes the channel over an expiration beyond it.
MAX_EXPIRATION = 0xFFFFFFFF

#: By kombu's words.
_DELIVERY_MODES = {"transient": 1, "persistent": 2}

#: What a frame adds to its payload: type, channel and size in front, the end octet behind.
FRAME_OVERHEAD = 8

#: What a header frame's payload holds before the properties: class, weight, size of the body.
HEADER_OVERHEAD = 12

_FRAME_END = b"\xce"
_UINT16 = struct.Struct(">H")
_UINT32 = struct.Struct(">I")
_UINT64 = struct.Struct(">Q")
_FRAME_START = struct.Struct(">BHI")
_PUBLISH_START = struct.Struct(">BHIHHH")  # frame, class 60, method 40, reserved ticket
_HEADER_START = struct.Struct(">BHIHHQ")  # frame, class 60, weight 0, size of the body
_SETTLE = struct.Struct(">BHIHHQBB")  # a whole basic.ack or basic.reject


@dataclass(slots=True)
class Properties:
    """The properties of a message, named as in AMQP; None where the message has none.

    They can be read as those of kombu are, too: as a dict of the ones that the message has, in
    which headers are `application_headers`; `copy()` makes a real one.
    `expiration` is text that counts milliseconds, `timestamp` whole seconds since 1970.
    """

    content_type: str | None = None
    content_encoding: str | None = None
    headers: dict[str, Any] | None = field(default=None, repr=False)  # they may hold secrets
    delivery_mode: int | None = None
    priority: int | None = None
    correlation_id: str | None = None
    reply_to: str | None = None
    expiration: str | None = None
    message_id: str | None = None
    timestamp: int | None = None
    type: str | None = None
    user_id: str | None = None
    app_id: str | None = None
    cluster_id: str | None = None

    def get(self, name: str, default: Any = None) -> Any:
        """Return a property, or `default` if the message does not have it."""
        attribute = _ATTRIBUTES.get(name)
        value = None if attribute is None else getattr(self, attribute)
        return default if value is None else value

    def keys(self) -> list[str]:
        """Return the names of those that the message has, in the order of AMQP."""
        return [name for name in _KEYS if name in self]

    def copy(self) -> dict[str, Any]:
        """Return those that the message has as a dict, for who sends the message on.

        Without `expiration`: it said how long the message might wait where it was taken from, and
        threadko's callers set it where nameko's do not.
        """
        return {name: self[name] for name in self if name != "expiration"}

    def __getitem__(self, name: str) -> Any:
        value = self.get(name)
        if value is None:
            raise KeyError(name)
        return value

    def __contains__(self, name: str) -> bool:
        return self.get(name) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())


def read_delivery_mode(value: Any) -> int:
    """Return a delivery mode, 1 or 2, for its number or its word.

    Raises:
        ConfigurationError: it is neither.
    """
    if isinstance(value, str) and value in _DELIVERY_MODES:
        return _DELIVERY_MODES[value]
    if isinstance(value, int) and not isinstance(value, bool) and value in (1, 2):
        return value
    raise ConfigurationError(
        f"delivery_mode must be 1 or 'transient', 2 or 'persistent', not {value!r}"
    )


def encode_properties(properties: Properties) -> bytes:
    """Encode properties as flags and list: what follows the body's size in a content header.

    Raises:
        EncodeError: A value is of the wrong type, too long or out of range; the message names it.
    """
    flags = 0
    pieces = [b""]
    for value, (name, flag, encode, _) in zip(_get_values(properties), _FIELDS, strict=True):
        if value is not None:
            flags |= flag
            pieces.append(encode(value, name))
    pieces[0] = _UINT16.pack(flags)
    return b"".join(pieces)


def encode_reply_properties(
    content_type: str, content_encoding: str, correlation_id: str | None
) -> bytes:
    """Encode the properties of a persistent message without headers, as a reply has them.

    Raises:
        EncodeError: A value is of the wrong type or too long; the message names it.
    """
    # All but the id is the same for every reply to a method, or a fleet.
    start = _encode_reply_start(content_type, content_encoding)
    if correlation_id is None:
        return start
    return (
        _FLAGS_WITH_CORRELATION_ID + start[2:] + encode_shortstr(correlation_id, "correlation_id")
    )


def decode_properties(header: bytes) -> Properties:
    """Decode flags and list. Text that is not UTF-8 is kept by `surrogateescape`.

    Raises:
        ValueError: The bytes are no properties.
    """
    try:
        (flags,) = _UINT16.unpack_from(header)
        if flags & 0b11:
            # the lowest promises more flags, the other has no meaning: no such property exists
            raise ValueError(f"unknown property flags {flags:#06x}")
        at = 2
        values: dict[str, Any] = {}
        for name, decode in _plan_decoding(flags):
            values[name], at = decode(header, at)
    except (IndexError, struct.error) as exc:
        raise ValueError("the message's properties are cut off") from exc
    if at != len(header):
        raise ValueError("the message's properties do not end where their frame ends")
    return Properties(**values)


def find_correlation_id(header: bytes) -> str | None:
    """Return the correlation id in encoded properties, decoding nothing else.

    For connection threads: a table of headers is skipped, however hostile. None if there is no
    such id, or the bytes are no properties.
    """
    try:
        (flags,) = _UINT16.unpack_from(header)
        at = 2
        if flags & 1 << 15:
            at += 1 + header[at]
        if flags & 1 << 14:
            at += 1 + header[at]
        if flags & 1 << 13:
            at += 4 + _UINT32.unpack_from(header, at)[0]
        at += (flags >> 12 & 1) + (flags >> 11 & 1)
        if not flags & 1 << 10:
            return None
        return _decode_shortstr(header, at)[0]
    except (IndexError, struct.error, ValueError):
        return None


def _encode_headers(value: Any, name: str) -> bytes:
    if not isinstance(value, dict):
        raise EncodeError(f"{name} must be a dict, not {type(value).__name__}")
    return encode_table(value)


def _encode_octet(value: Any, name: str) -> bytes:
    if not isinstance(value, int) or not 0 <= value <= 255:
        raise EncodeError(f"{name} must be an integer from 0 to 255")
    return bytes((value,))


def _encode_timestamp(value: Any, name: str) -> bytes:
    if not isinstance(value, int) or not 0 <= value < 1 << 64:
        raise EncodeError(f"{name} must be whole seconds since 1970")
    return _UINT64.pack(value)


def _encode_expiration(value: Any, name: str) -> bytes:
    # the broker closes the channel over a bad one, and every publish on it would suffer
    digits = isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 10
    if not digits or int(value) > MAX_EXPIRATION:
        raise EncodeError(f"{name} must be text of milliseconds from '0' to '{MAX_EXPIRATION}'")
    return encode_shortstr(value, name)


def _decode_shortstr(raw: bytes, at: int) -> tuple[str, int]:
    start = at + 1
    end = start + raw[at]
    if end > len(raw):
        raise ValueError("a short string is longer than its frame")
    return raw[start:end].decode("utf-8", "surrogateescape"), end


def _decode_octet(raw: bytes, at: int) -> tuple[int, int]:
    return raw[at], at + 1


def _decode_timestamp(raw: bytes, at: int) -> tuple[int, int]:
    return _UINT64.unpack_from(raw, at)[0], at + 8


_Encode = Callable[[Any, str], bytes]
_Decode = Callable[[bytes, int], tuple[Any, int]]

#: Name, flag and codec of each property, in the order in which they stand on the wire.
_FIELDS: tuple[tuple[str, int, _Encode, _Decode], ...] = (
    ("content_type", 1 << 15, encode_shortstr, _decode_shortstr),
    ("content_encoding", 1 << 14, encode_shortstr, _decode_shortstr),
    ("headers", 1 << 13, _encode_headers, decode_table),
    ("delivery_mode", 1 << 12, _encode_octet, _decode_octet),
    ("priority", 1 << 11, _encode_octet, _decode_octet),
    ("correlation_id", 1 << 10, encode_shortstr, _decode_shortstr),
    ("reply_to", 1 << 9, encode_shortstr, _decode_shortstr),
    ("expiration", 1 << 8, _encode_expiration, _decode_shortstr),
    ("message_id", 1 << 7, encode_shortstr, _decode_shortstr),
    ("timestamp", 1 << 6, _encode_timestamp, _decode_timestamp),
    ("type", 1 << 5, encode_shortstr, _decode_shortstr),
    ("user_id", 1 << 4, encode_shortstr, _decode_shortstr),
    ("app_id", 1 << 3, encode_shortstr, _decode_shortstr),
    ("cluster_id", 1 << 2, encode_shortstr, _decode_shortstr),
)

#: Where the value of each name is; kombu has one name of its own.
_ATTRIBUTES = {name: name for name, *_ in _FIELDS} | {"application_headers": "headers"}

_KEYS = [name.replace("headers", "application_headers") for name, *_ in _FIELDS]

_get_values = operator.attrgetter(*(name for name, *_ in _FIELDS))

_FLAGS_WITH_CORRELATION_ID = _UINT16.pack(0b1111_1100_0000_0000)


@functools.lru_cache(maxsize=64)
def _encode_reply_start(content_type: str, content_encoding: str) -> bytes:
    return encode_properties(
        Properties(
            content_type=content_type,
            content_encoding=content_encoding,
            headers={},
            delivery_mode=2,
            priority=0,
        )
    )


@functools.lru_cache(maxsize=64)  # a fleet's messages carry a handful of combinations
def _plan_decoding(flags: int) -> tuple[tuple[str, _Decode], ...]:
    return tuple((name, decode) for name, flag, _, decode in _FIELDS if flags & flag)


class Delivery:
    """One message as it was delivered, or returned: raw until someone asks for `properties`.

    `generation` counts the channels of a link, and says on which of them `tag` has a meaning.
    """

    __slots__ = (
        "_properties",
        "body",
        "exchange",
        "generation",
        "header",
        "redelivered",
        "routing_key",
        "tag",
    )

    def __init__(
        self,
        generation: int,
        tag: int,
        redelivered: bool,
        exchange: str,
        routing_key: str,
        header: bytes,
        body: bytes,
    ) -> None:
        self.generation = generation
        self.tag = tag
        self.redelivered = redelivered
        self.exchange = exchange
        self.routing_key = routing_key
        self.header = header
        self.body = body
        self._properties: Properties | None = None

    @property
    def properties(self) -> Properties:
        """The decoded properties; raises ValueError, each time, if they cannot be decoded."""
        if self._properties is None:
            self._properties = decode_properties(self.header)
        return self._properties

    @property
    def info(self) -> dict[str, Any]:
        """How it came, as kombu's `delivery_info` says it; a new dict each time."""
        return {
            "delivery_tag": self.tag,
            "redelivered": self.redelivered,
            "exchange": self.exchange,
            "routing_key": self.routing_key,
        }

    def __repr__(self) -> str:
        return f"<Delivery {self.generation}/{self.tag} {self.exchange!r} {self.routing_key!r}>"


def check_sendable(
    header: bytes,
    body: bytes,
    frame_max: int,
    max_message_size: int,
    *,
    exchange: str = "",
    routing_key: str = "",
) -> None:
    """Refuse, in the publisher's thread, what would cost the channel or the whole connection.

    Args:
        header: Encoded properties; they must fit one frame.
        frame_max: As agreed with the broker, 0 for no limit.

    Raises:
        EncodeError: The header or the body is too large, or a name cannot be encoded.
    """
    if not isinstance(body, bytes):
        raise EncodeError(f"the body must be bytes, not {type(body).__name__}")
    if len(body) > max_message_size:
        raise EncodeError(
            f"the message's body has {len(body)} bytes, MAX_MESSAGE_SIZE allows {max_message_size}"
        )
    room = frame_max - FRAME_OVERHEAD - HEADER_OVERHEAD
    if frame_max and len(header) > room:
        raise EncodeError(
            f"the message's headers and properties have {len(header)} bytes, "
            f"the broker's frame_max of {frame_max} leaves room for {room}"
        )
    encode_shortstr(exchange, "the exchange's name")
    encode_shortstr(routing_key, "the routing key")


def publish_frames(
    channel: int,
    exchange: str,
    routing_key: str,
    mandatory: bool,
    header: bytes,
    body: bytes,
    frame_max: int,
) -> bytes:
    """Return the frames of one basic.publish: method, header, and the body cut to `frame_max`."""
    names = encode_shortstr(exchange, "the exchange's name")
    names += encode_shortstr(routing_key, "the routing key")
    pieces = [
        _PUBLISH_START.pack(1, channel, len(names) + 7, 60, 40, 0),
        names,
        b"\1\xce" if mandatory else b"\0\xce",
        _HEADER_START.pack(2, channel, len(header) + HEADER_OVERHEAD, 60, 0, len(body)),
        header,
        _FRAME_END,
    ]
    step = frame_max - FRAME_OVERHEAD if frame_max else len(body) or 1
    for start in range(0, len(body), step):
        part = body[start : start + step]
        pieces += (_FRAME_START.pack(3, channel, len(part)), part, _FRAME_END)
    return b"".join(pieces)


def ack_frame(channel: int, tag: int, multiple: bool) -> bytes:
    """Return the frame of one basic.ack."""
    return _SETTLE.pack(1, channel, 13, 60, 80, tag, multiple, 0xCE)


def reject_frame(channel: int, tag: int, requeue: bool) -> bytes:
    """Return the frame of one basic.reject."""
    return _SETTLE.pack(1, channel, 13, 60, 90, tag, requeue, 0xCE)


def parse_deliver(payload: bytes, offset: int) -> tuple[int, bool, str, str]:
    """Read the arguments of a basic.deliver, which begin at `offset`.

    Returns: delivery tag, redelivered, exchange, routing key.

    Raises:
        ValueError: The bytes are not those of a basic.deliver.
    """
    try:
        at = offset + 1 + payload[offset]  # behind the consumer's tag
        (tag,) = _UINT64.unpack_from(payload, at)
        redelivered = payload[at + 8] & 1 == 1
        exchange, at = _decode_shortstr(payload, at + 9)
        routing_key, _ = _decode_shortstr(payload, at)
    except (IndexError, struct.error) as exc:
        raise ValueError("a basic.deliver is cut off") from exc
    return tag, redelivered, exchange, routing_key


def parse_return(payload: bytes, offset: int) -> tuple[int, str, str, str]:
    """Read the arguments of a basic.return, which begin at `offset`.

    Returns: reply code, reply text, exchange, routing key.

    Raises:
        ValueError: The bytes are not those of a basic.return.
    """
    try:
        (code,) = _UINT16.unpack_from(payload, offset)
        text, at = _decode_shortstr(payload, offset + 2)
        exchange, at = _decode_shortstr(payload, at)
        routing_key, _ = _decode_shortstr(payload, at)
    except (IndexError, struct.error) as exc:
        raise ValueError("a basic.return is cut off") from exc
    return code, text, exchange, routing_key
