"""The codec of AMQP field tables, which carry headers and arguments.

Our own, and not pika's, for two reasons. A hostile table must cost one message, not the connection:
decoding raises ValueError and nothing else, and no content is refused that is merely odd. And
values must survive: pika reads the double 1.5 as the integer 1.

The type letters are those that RabbitMQ speaks, which differ from the specification's; ``L`` and
``U`` are what other clients send for ``l`` and ``s``. Pure functions, callable from any thread.
"""

import calendar
import datetime
import decimal
import math
import struct
from collections.abc import Callable
from typing import Any

from threadko.exceptions import EncodeError

__all__ = ["decode_table", "encode_shortstr", "encode_table"]

#: Tables within tables, lists included. Guessed: nobody nests so deep on purpose, and a frame of
#: the interpreter's stack goes with every level.
MAX_DEPTH = 100

#: Bytes of one encoded table. Far above what fits a frame (128 KiB by default); it bounds what a
#: structure that holds the same list again and again can grow to.
MAX_SIZE = 1 << 20
_TOO_LARGE = f"the headers are larger than {MAX_SIZE} bytes"

_LONE_SURROGATE = "it holds a lone surrogate and has no UTF-8 form"

_UINT32 = struct.Struct(">I")
_LONG = struct.Struct(">cI")
_DOUBLE = struct.Struct(">cd")
_INT32 = struct.Struct(">ci")
_INT64 = struct.Struct(">cq")
_DECIMAL = struct.Struct(">cBi")
_TIMESTAMP = struct.Struct(">cQ")
_SCALED = struct.Struct(">Bi")
_UINT64 = struct.Struct(">Q")

#: Letters whose value is a number of fixed size.
_NUMBERS = {
    ord(letter): struct.Struct(layout)
    for letter, layout in {
        "b": ">b",
        "B": ">B",
        "s": ">h",
        "U": ">h",
        "u": ">H",
        "I": ">i",
        "i": ">I",
        "l": ">q",
        "L": ">q",
        "f": ">f",
        "d": ">d",
    }.items()
}

_EMPTY_TABLE = b"\0\0\0\0"
_OCTETS = tuple(bytes((value,)) for value in range(256))
_UTC = datetime.timezone.utc

_BYTES, _STRING, _TABLE, _ARRAY, _BOOLEAN, _VOID, _WHEN, _FIXED_POINT = b"xSFAtVTD"


class _UnencodableError(Exception):
    """Why a value cannot be encoded; the path to it grows while the error travels outwards."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.path: list[str] = []


def encode_shortstr(text: str, name: str) -> bytes:
    """Encode a short string with its length octet.

    Bytes that another client's text held and that are not UTF-8 (they were decoded with
    `surrogateescape`) go out as they came in, so that a correlation id is echoed exactly.

    Args:
        name: What the text is, for the error's message.

    Raises:
        EncodeError: It is not a str, has no UTF-8 form, or is longer than 255 bytes.
    """
    if not isinstance(text, str):
        raise EncodeError(f"{name} must be a str, not {type(text).__name__}")
    try:
        raw = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as exc:
        raise EncodeError(f"{name} holds a lone surrogate and has no UTF-8 form") from exc
    if len(raw) > 255:
        raise EncodeError(f"{name} is {len(raw)} bytes long, AMQP allows 255: {text[:40]!r}...")
    return _OCTETS[len(raw)] + raw


def encode_table(table: dict[str, Any]) -> bytes:
    """Encode a dict as a field table, its length in front.

    Integers take 32 bits if they fit, else 64; floats are doubles; a datetime without a zone is
    taken as UTC, and loses its fraction of a second.

    Raises:
        EncodeError: The table holds what AMQP cannot carry; the message names the key.
    """
    if not table:
        return _EMPTY_TABLE
    out = bytearray()
    try:
        _write_table(out, table, 0)
    except _UnencodableError as exc:
        where = "".join(reversed(exc.path))
        raise EncodeError(f"header {where.removeprefix('.')!r}: {exc}") from None
    return bytes(out)


def _write_table(out: bytearray, table: dict[str, Any], depth: int) -> None:
    start = len(out)
    out += _EMPTY_TABLE
    # a copy, because another thread may still change what the user put into the context
    for key, value in list(table.items()):
        try:
            _write_key(out, key)
            _write_value(out, value, depth)
        except _UnencodableError as exc:
            exc.path.append(f".{key[:40]}" if isinstance(key, str) else f".<{type(key).__name__}>")
            raise
    _UINT32.pack_into(out, start, len(out) - start - 4)


def _write_key(out: bytearray, key: Any) -> None:
    if not isinstance(key, str):
        raise _UnencodableError(f"keys must be str, not {type(key).__name__}")
    try:
        raw = key.encode()
    except UnicodeEncodeError:
        raise _UnencodableError(_LONE_SURROGATE) from None
    if len(raw) > 255:
        raise _UnencodableError(f"the key is {len(raw)} bytes long, AMQP allows 255")
    out.append(len(raw))
    out += raw


def _write_value(out: bytearray, value: Any, depth: int) -> None:
    write = _WRITERS.get(type(value)) or _find_writer(type(value))
    write(out, value, depth)
    if len(out) > MAX_SIZE:
        raise _UnencodableError(_TOO_LARGE)


def _find_writer(kind: type) -> "_Write":
    for base in kind.__mro__:
        if base in _WRITERS:
            return _WRITERS[base]
    raise _UnencodableError(f"AMQP headers cannot carry a {kind.__name__}")


def _write_str(out: bytearray, value: str, depth: int) -> None:
    try:
        raw = value.encode()
    except UnicodeEncodeError:
        raise _UnencodableError(_LONE_SURROGATE) from None
    _write_long(out, b"S", raw)


def _write_bytes(out: bytearray, value: bytes, depth: int) -> None:
    _write_long(out, b"x", value)


def _write_long(out: bytearray, letter: bytes, raw: bytes) -> None:
    if len(raw) > MAX_SIZE:  # before it is copied, and before its length overflows the field
        raise _UnencodableError(_TOO_LARGE)
    out += _LONG.pack(letter, len(raw))
    out += raw


def _write_none(out: bytearray, value: None, depth: int) -> None:
    out += b"V"


def _write_bool(out: bytearray, value: bool, depth: int) -> None:
    out += b"t\1" if value else b"t\0"


def _write_int(out: bytearray, value: int, depth: int) -> None:
    if -0x80000000 <= value <= 0x7FFFFFFF:
        out += _INT32.pack(b"I", value)
    elif -(1 << 63) <= value < 1 << 63:
        out += _INT64.pack(b"l", value)
    else:
        # its size and not its digits: Python refuses to print a very long one
        raise _UnencodableError(f"an integer of {value.bit_length()} bits does not fit 64 bits")


def _write_float(out: bytearray, value: float, depth: int) -> None:
    # Erlang has no such number: RabbitMQ closes the whole connection, with 541, at the sight of it.
    if not math.isfinite(value):
        raise _UnencodableError(f"RabbitMQ has no form for the float {value}")
    out += _DOUBLE.pack(b"d", value)


def _write_dict(out: bytearray, value: dict[str, Any], depth: int) -> None:
    _check_depth(depth + 1)
    out += b"F"
    _write_table(out, value, depth + 1)


def _write_list(out: bytearray, value: list[Any] | tuple[Any, ...], depth: int) -> None:
    _check_depth(depth + 1)
    out += b"A"
    start = len(out)
    out += _EMPTY_TABLE
    for index, item in enumerate(tuple(value)):
        try:
            _write_value(out, item, depth + 1)
        except _UnencodableError as exc:
            exc.path.append(f"[{index}]")
            raise
    _UINT32.pack_into(out, start, len(out) - start - 4)


def _check_depth(depth: int) -> None:
    if depth > MAX_DEPTH:  # a structure that holds itself ends here too
        raise _UnencodableError(f"nested deeper than {MAX_DEPTH} levels, or in a circle")


def _write_datetime(out: bytearray, value: datetime.datetime, depth: int) -> None:
    try:
        seconds = calendar.timegm(value.utctimetuple())
    except OverflowError:  # its zone moves it before year 1 or past year 9999
        raise _UnencodableError("the datetime is out of range in UTC") from None
    if seconds < 0:
        raise _UnencodableError(f"AMQP timestamps begin in 1970, not {value.year}")
    out += _TIMESTAMP.pack(b"T", seconds)


def _write_decimal(out: bytearray, value: decimal.Decimal, depth: int) -> None:
    sign, digits, exponent = value.as_tuple()
    if not isinstance(exponent, int):
        raise _UnencodableError(f"AMQP headers cannot carry the decimal {value}")
    # the exponent is looked at first: 10 ** 999999 would take a while
    if -255 <= exponent <= 9 and len(digits) <= 10:
        scaled = int("".join(map(str, digits))) * 10 ** max(exponent, 0)
        if scaled <= 0x7FFFFFFF:
            out += _DECIMAL.pack(b"D", max(-exponent, 0), -scaled if sign else scaled)
            return
    raise _UnencodableError("the decimal does not fit AMQP's 32 bits and 255 decimal places")


_Write = Callable[[bytearray, Any, int], None]

_WRITERS: dict[type, _Write] = {
    str: _write_str,
    list: _write_list,
    dict: _write_dict,
    int: _write_int,
    bool: _write_bool,
    float: _write_float,
    type(None): _write_none,
    bytes: _write_bytes,
    bytearray: _write_bytes,
    tuple: _write_list,
    datetime.datetime: _write_datetime,
    decimal.Decimal: _write_decimal,
}


def decode_table(raw: bytes, offset: int = 0) -> tuple[dict[str, Any], int]:
    """Decode the field table that begins at `offset`; return it, and where it ends.

    Keys are str always (bytes that are not UTF-8 by `surrogateescape`); a string value that is not
    UTF-8 comes back as bytes. Timestamps are aware datetimes in UTC, or the raw number of seconds
    where no datetime can hold them.

    Raises:
        ValueError: The bytes are no table, or nest too deep.
    """
    try:
        return _read_table(raw, offset, len(raw), 0)
    except (IndexError, struct.error) as exc:
        raise ValueError("the field table is cut off") from exc


def _read_table(raw: bytes, at: int, limit: int, depth: int) -> tuple[dict[str, Any], int]:
    at, end = _read_extent(raw, at, limit)
    table: dict[str, Any] = {}
    while at < end:
        start = at + 1
        at = start + raw[at]
        key = raw[start:at].decode("utf-8", "surrogateescape")
        table[key], at = _read_value(raw, at, end, depth)
    if at > end:
        raise ValueError("a field runs past the end of its table")
    return table, end


def _read_extent(raw: bytes, at: int, limit: int) -> tuple[int, int]:
    """Read a length; return where what it measures begins and ends."""
    begin = at + 4
    end = begin + int(_UINT32.unpack_from(raw, at)[0])
    if end > limit:
        raise ValueError("a field is longer than what holds it")
    return begin, end


def _read_value(raw: bytes, at: int, limit: int, depth: int) -> tuple[Any, int]:
    letter = raw[at]
    at += 1
    if letter == _STRING:
        at, end = _read_extent(raw, at, limit)
        text = raw[at:end]
        try:
            return text.decode(), end
        except UnicodeDecodeError:
            return text, end
    number = _NUMBERS.get(letter)
    if number is not None:
        return number.unpack_from(raw, at)[0], at + number.size
    if letter == _BOOLEAN:
        return raw[at] != 0, at + 1
    if letter == _VOID:
        return None, at
    if letter == _BYTES:
        at, end = _read_extent(raw, at, limit)
        return raw[at:end], end
    if letter == _WHEN:
        return _to_datetime(_UINT64.unpack_from(raw, at)[0]), at + 8
    if letter == _FIXED_POINT:
        return _to_decimal(*_SCALED.unpack_from(raw, at)), at + 5
    return _read_nested(raw, at, limit, depth + 1, letter)


def _read_nested(raw: bytes, at: int, limit: int, depth: int, letter: int) -> tuple[Any, int]:
    if depth > MAX_DEPTH:
        raise ValueError(f"the field table nests deeper than {MAX_DEPTH} levels")
    if letter == _TABLE:
        return _read_table(raw, at, limit, depth)
    if letter != _ARRAY:
        raise ValueError(f"unknown field type {letter:#04x}")
    at, end = _read_extent(raw, at, limit)
    items: list[Any] = []
    while at < end:
        item, at = _read_value(raw, at, end, depth)
        items.append(item)
    if at > end:
        raise ValueError("an item runs past the end of its array")
    return items, end


def _to_datetime(seconds: int) -> datetime.datetime | int:
    try:
        return datetime.datetime.fromtimestamp(seconds, _UTC)
    except (ValueError, OverflowError, OSError):
        # legal on the wire, and RabbitMQ passes it on: past year 9999
        return seconds


def _to_decimal(scale: int, unscaled: int) -> decimal.Decimal:
    # from digits and not by arithmetic, which the host's decimal context would round
    digits = tuple(map(int, str(abs(unscaled))))
    return decimal.Decimal((int(unscaled < 0), digits, -scale))
