"""Which content type is encoded and decoded how. All of it may be called from any thread.

Encoders and decoders can be anybody's, so whatever exception they raise becomes an `EncodeError` or
a `DecodeError`: a message must never end the thread that handles it.
"""

import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, NamedTuple

from threadko.exceptions import ConfigurationError, DecodeError, EncodeError

__all__ = ["Codec", "Encoded", "RAW_CONTENT_TYPES", "Registry"]

#: Always accepted: plain text and bytes, in which nothing is interpreted.
RAW_CONTENT_TYPES = ("application/data", "application/text")

_RAW_NAME = "raw"
_BINARY_ENCODINGS = ("binary", "ascii-8bit")


class Encoded(NamedTuple):
    """A body ready to be sent, and the properties that say how to read it."""

    content_type: str
    content_encoding: str
    body: bytes


@dataclass(frozen=True)
class Codec:
    """How values of one content type are written and read.

    The decoder is given text, or bytes if `content_encoding` is `binary`.
    """

    name: str
    encoder: Callable[[Any], str | bytes]
    decoder: Callable[[Any], Any]
    content_type: str
    content_encoding: str = "utf-8"

    @property
    def is_binary(self) -> bool:
        """Whether bodies are bytes without a character encoding."""
        return self.content_encoding.lower() in _BINARY_ENCODINGS


class Registry:
    """The codecs by name. Text and bytes need none, and are known as `raw`."""

    def __init__(self, codecs: Collection[Codec] = ()) -> None:
        # Serialises `register`; readers need it not, for the dict is replaced, never changed.
        self._write_lock = threading.Lock()
        self._codecs: dict[str, Codec] = {codec.name: codec for codec in codecs}

    def register(
        self,
        name: str,
        encoder: Callable[[Any], str | bytes],
        decoder: Callable[[Any], Any],
        content_type: str,
        content_encoding: str = "utf-8",
    ) -> None:
        """Add a codec, or replace the one of that name."""
        codec = Codec(name, encoder, decoder, content_type, content_encoding)
        with self._write_lock:
            self._codecs = {**self._codecs, name: codec}

    def is_known(self, name: str) -> bool:
        """Whether there is a codec of that name."""
        return name == _RAW_NAME or name in self._codecs

    def content_type_of(self, name: str) -> str:
        """Return the content type of a codec; `ConfigurationError` if there is none."""
        return RAW_CONTENT_TYPES[0] if name == _RAW_NAME else self._get(name).content_type

    def encode(self, name: str, value: Any) -> Encoded:
        """Return `value` encoded by the codec of that name; `EncodeError` if it cannot be."""
        if name == _RAW_NAME:
            return _encode_raw(RAW_CONTENT_TYPES[0], value)
        return _encode(self._get(name), value)

    def encode_as(self, content_type: str, value: Any) -> Encoded:
        """Return `value` encoded for a content type, as an answer must be; else `EncodeError`."""
        if content_type in RAW_CONTENT_TYPES:
            return _encode_raw(content_type, value)
        # Of two codecs with one content type the older answers, so that a custom one beside json
        # does not change what everybody else receives.
        for codec in self._codecs.values():
            if codec.content_type == content_type:
                return _encode(codec, value)
        raise EncodeError(f"no serializer is known for content type {content_type!r}")

    def decode(
        self,
        body: bytes,
        content_type: str | None,
        content_encoding: str | None,
        accept: Collection[str],
    ) -> Any:
        """Return the value in a body; `DecodeError` if it cannot be read.

        Its content type must be exactly that of one of the codecs that `accept` names. Text and
        bytes are always accepted, and stand for a missing content type. An empty body is `""`.
        """
        content_type = content_type or RAW_CONTENT_TYPES[0]
        encoding = (content_encoding or "utf-8").lower()
        if content_type in RAW_CONTENT_TYPES:
            return body if encoding in _BINARY_ENCODINGS else _decode_text(body, encoding)
        codec = self._find_accepted(content_type, accept)
        if not body:
            return ""
        payload: str | bytes = body
        if not codec.is_binary:
            # Some senders mark text as binary; it is read as what its type prescribes.
            is_text = encoding not in _BINARY_ENCODINGS
            payload = _decode_text(body, encoding if is_text else codec.content_encoding)
        try:
            return codec.decoder(payload)
        except DecodeError:
            raise
        except Exception as exc:
            raise DecodeError(f"cannot decode {content_type}: {_describe(exc)}") from exc

    def _get(self, name: str) -> Codec:
        codec = self._codecs.get(name)
        if codec is None:
            known = ", ".join(sorted([*self._codecs, _RAW_NAME]))
            raise ConfigurationError(f"no serializer is named {name!r}, there are: {known}")
        return codec

    def _find_accepted(self, content_type: str, accept: Collection[str]) -> Codec:
        for name in accept:
            codec = self._codecs.get(name)
            if codec is not None and codec.content_type == content_type:
                return codec
        raise DecodeError(
            f"content type {content_type!r} is not accepted, only {', '.join(accept) or 'none'}"
        )


def _encode(codec: Codec, value: Any) -> Encoded:
    try:
        body = codec.encoder(value)
        if isinstance(body, str):
            body = body.encode("utf-8" if codec.is_binary else codec.content_encoding)
    except EncodeError:
        raise
    except Exception as exc:
        kind = type(value).__name__
        raise EncodeError(f"cannot encode {kind} as {codec.name}: {_describe(exc)}") from exc
    return Encoded(codec.content_type, codec.content_encoding, body)


def _encode_raw(content_type: str, value: Any) -> Encoded:
    if isinstance(value, bytes):
        return Encoded(content_type, "binary", value)
    if not isinstance(value, str):
        kind = type(value).__name__
        raise EncodeError(f"cannot encode {kind} as {content_type}: only str and bytes")
    try:
        return Encoded(content_type, "utf-8", value.encode("utf-8"))
    except UnicodeEncodeError as exc:
        raise EncodeError(f"cannot encode str as {content_type}: {exc}") from exc


def _decode_text(body: bytes, encoding: str) -> str:
    try:
        return body.decode(encoding)
    except (LookupError, ValueError) as exc:  # no such encoding; not of that encoding
        raise DecodeError(f"cannot decode the body as text: {_describe(exc)}") from exc


def _describe(exc: Exception) -> str:
    try:
        return str(exc) or type(exc).__name__
    except Exception:  # a user's exception may fail even at that
        return type(exc).__name__
