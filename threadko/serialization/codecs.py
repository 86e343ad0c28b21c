"""The codecs that come with threadko, and the registry that holds them.

JSON wraps what JSON has no form for in `{"__type__": ..., "__value__": ...}`, byte for byte as
kombu does, which the nameko next door reads and writes with.
"""

import base64
import json
import pickle
import uuid
from collections.abc import Callable
from datetime import date, datetime, time
from decimal import Decimal
from functools import cache
from typing import Any

from threadko.exceptions import DecodeError
from threadko.serialization.registry import Codec, Registry
from threadko.utils.imports import import_from_path

__all__ = [
    "JSON",
    "MSGPACK",
    "PICKLE",
    "YAML",
    "content_type_of",
    "is_known",
    "register",
    "registry",
]

_TYPE = "__type__"
_VALUE = "__value__"

# Every Python that threadko runs on and every peer on Python 3 reads it.
_PICKLE_PROTOCOL = 4


def _wrap(kind: str, value: Any) -> dict[str, Any]:
    return {_TYPE: kind, _VALUE: value}


def _to_json(value: Any) -> Any:
    """Return a form that JSON has for a value that it has none for, as `JSONEncoder` asks."""
    match value:
        case datetime():  # before date, which it is too
            return _wrap("datetime", value.isoformat())
        case date():
            return _wrap("date", value.isoformat())
        case time():
            return _wrap("time", value.isoformat())
        case Decimal():
            return _wrap("decimal", str(value))
        case uuid.UUID():
            return _wrap("uuid", {"hex": value.hex})
        case bytes():
            return _bytes_to_json(value)
    reduce = getattr(type(value), "__json__", None)
    if reduce is None:
        raise TypeError(f"{type(value).__name__} has no JSON form")
    return reduce(value)


def _bytes_to_json(value: bytes) -> dict[str, Any]:
    try:
        return _wrap("bytes", value.decode("utf-8"))
    except UnicodeDecodeError:
        return _wrap("base64", base64.b64encode(value).decode("ascii"))


def _read_datetime(value: str) -> datetime:
    # Python 3.10 does not know that Z is UTC.
    return datetime.fromisoformat(f"{value[:-1]}+00:00" if value.endswith("Z") else value)


def _read_time(value: str) -> time:
    return time.fromisoformat(f"{value[:-1]}+00:00" if value.endswith("Z") else value)


_READERS: dict[str, Callable[[Any], Any]] = {
    "datetime": _read_datetime,
    "date": lambda value: _read_datetime(value).date(),
    "time": _read_time,
    "decimal": Decimal,
    "uuid": lambda value: uuid.UUID(hex=value["hex"]),
    "bytes": lambda value: value.encode("utf-8"),
    "base64": lambda value: base64.b64decode(value, validate=True),
}


def _from_json(found: dict[str, Any]) -> Any:
    if len(found) != 2 or _TYPE not in found or _VALUE not in found:
        return found
    kind = found[_TYPE]
    reader = _READERS.get(kind) if isinstance(kind, str) else None
    if reader is None:
        raise DecodeError(f"unknown {_TYPE} {str(kind)[:50]!r}")
    return reader(found[_VALUE])


# Made once: `json.dumps` and `json.loads` make one per call when they are given such an option.
_encoder = json.JSONEncoder(default=_to_json)
_unicode_encoder = json.JSONEncoder(default=_to_json, ensure_ascii=False)
_decoder = json.JSONDecoder()
_wrapped_decoder = json.JSONDecoder(object_hook=_from_json)


def _encode_json(value: Any) -> str:
    text = _encoder.encode(value)
    # A lone surrogate has an escaped form here, but no form in UTF-8: strict parsers refuse it, and
    # so do databases. Whole pairs begin with the same letters, so only the real encoding tells.
    if "\\ud" in text:
        _unicode_encoder.encode(value).encode("utf-8")
    return text


def _decode_json(text: str) -> Any:
    # A hook in Python for each object costs several times the decoding, and most bodies need none.
    return (_wrapped_decoder if _TYPE in text else _decoder).decode(text)


def _load_lazily(path: str) -> Callable[[Any], Any]:
    """Return a function that is imported when it is first called: most processes never do."""

    @cache
    def load() -> Callable[[Any], Any]:
        function: Callable[[Any], Any] = import_from_path(path)
        return function

    return lambda value: load()(value)


def _encode_pickle(value: Any) -> bytes:
    return pickle.dumps(value, _PICKLE_PROTOCOL)


def _decode_pickle(body: bytes) -> Any:
    # Noise is refused here: pickle would run it, and some of it asks for gigabytes.
    if not (body.startswith(pickle.PROTO) and body.endswith(pickle.STOP)):
        raise DecodeError("the body is no pickle of protocol 2 or higher")
    return pickle.loads(body)


JSON = Codec("json", _encode_json, _decode_json, "application/json")

YAML = Codec(
    "yaml",
    _load_lazily("threadko.serialization.yaml_codec.dump"),
    _load_lazily("threadko.serialization.yaml_codec.load"),
    "application/x-yaml",
)

#: Reading it runs whatever code the sender likes, so it is read only where it is asked for.
PICKLE = Codec("pickle", _encode_pickle, _decode_pickle, "application/x-python-serialize", "binary")

MSGPACK = Codec(
    "msgpack",
    _load_lazily("threadko.serialization.msgpack_codec.dump"),
    _load_lazily("threadko.serialization.msgpack_codec.load"),
    "application/x-msgpack",
    "binary",
    requires="msgpack",
)

#: The codecs of this process.
registry = Registry([JSON, YAML, PICKLE, MSGPACK])

register = registry.register
is_known = registry.is_known
content_type_of = registry.content_type_of
