"""Which content type is encoded and decoded how. All of it may be called from any thread.

Encoders and decoders can be anybody's, so whatever exception they raise becomes an `EncodeError` or
a `DecodeError`: a message must never end the thread that handles it.
"""

import codecs
import importlib.util
import threading
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from threadko.exceptions import ConfigurationError, DecodeError, EncodeError

__all__ = ["BINARY_ENCODINGS", "Codec", "Encoded", "RAW_CONTENT_TYPES", "Raw", "Registry"]

#: Always accepted: plain text and bytes, in which nothing is interpreted.
RAW_CONTENT_TYPES = ("application/data", "application/text")

#: What stands in for the name of a character encoding where there are none.
BINARY_ENCODINGS = ("binary", "ascii-8bit")

# The time that they take grows with the square of the length: a large body would take hours.
_FOR_HOST_NAMES = ("idna", "punycode")


class Encoded(NamedTuple):
    """A body ready to be sent, and the properties that say how to read it."""

    content_type: str
    content_encoding: str
    body: bytes

    def __repr__(self) -> str:
        return f"<Encoded {self.content_type} of {len(self.body)} bytes>"  # it may hold secrets


@dataclass(frozen=True)
class Codec:
    """How values of one content type are written and read.

    The decoder is given text, or bytes if `content_encoding` is `binary`. `requires` names the
    library that it needs, if that is an optional one.
    """

    name: str
    encoder: Callable[[Any], str | bytes]
    decoder: Callable[[Any], Any]
    content_type: str
    content_encoding: str = "utf-8"
    requires: str | None = None
    is_binary: bool = field(init=False)

    def __post_init__(self) -> None:
        is_binary = self.content_encoding.lower() in BINARY_ENCODINGS
        object.__setattr__(self, "is_binary", is_binary)

    def encode(self, value: Any) -> Encoded:
        """Return a value as a body; `EncodeError` if it cannot be one."""
        try:
            body = self.encoder(value)
            if isinstance(body, str):
                body = body.encode("utf-8" if self.is_binary else self.content_encoding)
        except EncodeError:
            raise
        except Exception as exc:
            kind = type(value).__name__
            raise EncodeError(f"cannot encode {kind} as {self.name}: {_describe(exc)}") from exc
        return Encoded(self.content_type, self.content_encoding, body)

    def decode(self, body: bytes, content_encoding: str | None) -> Any:
        """Return the value in a body; `DecodeError` if there is none. An empty body is `""`."""
        if not body:
            return ""
        payload: str | bytes = body
        if not self.is_binary:
            # Some senders mark text as binary; it is read as what its type prescribes.
            is_text = content_encoding and content_encoding.lower() not in BINARY_ENCODINGS
            payload = _decode_text(body, content_encoding if is_text else self.content_encoding)
        try:
            return self.decoder(payload)
        except DecodeError:
            raise
        except Exception as exc:
            raise DecodeError(f"cannot decode {self.content_type}: {_describe(exc)}") from exc


@dataclass(frozen=True)
class Raw:
    """Text and bytes as they are: the codec of those who need none."""

    content_type: str
    name: str = "raw"
    requires: str | None = None

    def encode(self, value: Any) -> Encoded:
        """Return text or bytes as a body; `EncodeError` for anything else."""
        if isinstance(value, bytes):
            return Encoded(self.content_type, "binary", value)
        if not isinstance(value, str):
            kind = type(value).__name__
            raise EncodeError(f"cannot encode {kind} as {self.content_type}: only str and bytes")
        try:
            return Encoded(self.content_type, "utf-8", value.encode("utf-8"))
        except UnicodeEncodeError as exc:
            raise EncodeError(f"cannot encode str as {self.content_type}: {exc}") from exc

    def decode(self, body: bytes, content_encoding: str | None) -> Any:
        """Return the bytes if they are marked so, else the text; `DecodeError` if it is none."""
        encoding = (content_encoding or "utf-8").lower()
        return body if encoding in BINARY_ENCODINGS else _decode_text(body, encoding)


_RAW = tuple(Raw(content_type) for content_type in RAW_CONTENT_TYPES)


class Registry:
    """The codecs by name. Text and bytes need none, and are known as `raw`."""

    def __init__(self, codecs: Collection[Codec] = ()) -> None:
        # Serialises `register`; readers need it not, for the dict is replaced, never changed.
        self._write_lock = threading.Lock()
        self._codecs: dict[str, Codec | Raw] = {"raw": _RAW[0]}
        self._codecs.update((codec.name, codec) for codec in codecs)

    def __iter__(self) -> Iterator[Codec | Raw]:
        """Go through all codecs, the oldest first."""
        yield from _RAW
        yield from (codec for codec in self._codecs.values() if codec is not _RAW[0])

    def register(
        self,
        name: str,
        encoder: Callable[[Any], str | bytes],
        decoder: Callable[[Any], Any],
        content_type: str,
        content_encoding: str = "utf-8",
    ) -> None:
        """Add a codec, or replace the one of that name, for the whole process.

        What is set up already keeps the codecs that it has.
        """
        codec = Codec(name, encoder, decoder, content_type, content_encoding)
        with self._write_lock:
            self._codecs = {**self._codecs, name: codec}

    def extended_by(self, codecs: Collection[Codec]) -> "Registry":
        """Return a registry of its own with more codecs; of the same name they replace."""
        extended = Registry()
        extended._codecs = {**self._codecs, **{codec.name: codec for codec in codecs}}
        return extended

    def get(self, name: str) -> Codec | Raw:
        """Return a codec that can be used; `ConfigurationError` if there is none of that name."""
        codec = self._codecs.get(name)
        if codec is None:
            known = ", ".join(sorted(self._codecs))
            raise ConfigurationError(f"no serializer is named {name!r}, there are: {known}")
        if codec.requires is not None and importlib.util.find_spec(codec.requires) is None:
            raise ConfigurationError(f"the serializer {name} needs: pip install {codec.requires}")
        return codec

    def is_known(self, name: str) -> bool:
        """Whether there is a codec of that name."""
        return name in self._codecs

    def content_type_of(self, name: str) -> str:
        """Return the content type of a codec; `ConfigurationError` if there is none."""
        return self.get(name).content_type


def _decode_text(body: bytes, encoding: str | None) -> str:
    try:
        if encoding and encoding != "utf-8" and codecs.lookup(encoding).name in _FOR_HOST_NAMES:
            raise LookupError(f"{encoding} is no encoding for texts")
        return body.decode(encoding or "utf-8")
    except Exception as exc:  # any codec of Python's can be named, and some raise what they like
        raise DecodeError(f"cannot decode the body as text: {_describe(exc)}") from exc


def _describe(exc: Exception) -> str:
    try:
        return str(exc) or type(exc).__name__
    except Exception:  # a user's exception may fail even at that
        return type(exc).__name__
