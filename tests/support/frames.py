"""Messages that no client library would write, as bytes, and a sender for them.

The encoders check nothing: text is given as bytes, headers as a whole table. A sender belongs to
the thread of its test.
"""

import struct
from types import TracebackType
from typing import Any

import pika
from pika.frame import Body

__all__ = [
    "RawSender",
    "array",
    "content",
    "deep_table",
    "entry",
    "properties",
    "shortstr",
    "table",
]

_FLAGS = {
    "content_type": 15,
    "content_encoding": 14,
    "headers": 13,
    "delivery_mode": 12,
    "priority": 11,
    "correlation_id": 10,
    "reply_to": 9,
    "expiration": 8,
    "message_id": 7,
    "timestamp": 6,
    "type": 5,
    "user_id": 4,
    "app_id": 3,
    "cluster_id": 2,
}
_NUMBERS = {"delivery_mode": ">B", "priority": ">B", "timestamp": ">Q"}
_BODY_STEP = 100_000  # below every frame_max that a broker is likely to ask for


def shortstr(text: bytes) -> bytes:
    """A short string: at most 255 bytes, of any kind."""
    return bytes([len(text)]) + text


def entry(key: bytes, kind: bytes, payload: bytes) -> bytes:
    """One field of a table; ``kind`` is its type's letter, ``payload`` what follows it."""
    return shortstr(key) + kind + payload


def table(*entries: bytes) -> bytes:
    """A field table of encoded entries."""
    content = b"".join(entries)
    return struct.pack(">I", len(content)) + content


def array(*values: bytes) -> bytes:
    """The payload of a field array; each value is its type's letter and its payload."""
    return table(*values)


def deep_table(depth: int) -> bytes:
    """A table in a table, and so on."""
    # Joined once: made from within, each level would copy all that it holds.
    opened = (struct.pack(">I", 7 * levels) + b"\x01aF" for levels in range(depth, 0, -1))
    return b"".join(opened) + table()


def properties(**values: Any) -> bytes:
    """Encoded properties: text as bytes, ``headers`` as a table; None means that it is missing."""
    flags, parts = 0, []
    for name, bit in _FLAGS.items():
        value = values.pop(name, None)
        if value is None:
            continue
        flags |= 1 << bit
        if name in _NUMBERS:
            parts.append(struct.pack(_NUMBERS[name], value))
        else:
            parts.append(value if name == "headers" else shortstr(value))
    assert not values, f"no such properties: {values}"
    return struct.pack(">H", flags) + b"".join(parts)


def content(channel: int, header: bytes, body: bytes, *, step: int = _BODY_STEP) -> bytes:
    """The header frame and the body frames of a message."""
    payload = struct.pack(">HHQ", 60, 0, len(body)) + header
    frames = struct.pack(">BHI", 2, channel, len(payload)) + payload + b"\xce"
    for start in range(0, len(body), step):
        frames += Body(channel, body[start : start + step]).marshal()
    return frames


class RawSender:
    """Publishes messages as they are, many over one connection; a context manager."""

    def __init__(self, uri: str) -> None:
        self._connection = pika.BlockingConnection(pika.URLParameters(uri))
        self._channel = self._connection.channel()

    def send(self, exchange: str, routing_key: bytes, header: bytes, body: bytes) -> None:
        """Publish one message, with encoded properties."""
        number = self._channel.channel_number
        # Class and method, the reserved ticket, exchange, routing key, no flags.
        arguments = struct.pack(">HHH", 60, 40, 0) + shortstr(exchange.encode())
        arguments += shortstr(routing_key) + b"\x00"
        method = struct.pack(">BHI", 1, number, len(arguments)) + arguments + b"\xce"
        self._connection._impl._output_marshaled_frames([method, content(number, header, body)])

    def flush(self) -> None:
        """Return when the broker has taken all that was sent; pika's error if it closed on us."""
        self._channel.basic_qos(prefetch_count=1)

    def __enter__(self) -> "RawSender":
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._connection.is_open:
            self._connection.close()
