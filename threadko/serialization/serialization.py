"""How one configuration writes and reads messages: chosen and checked once, when it is set up."""

import logging
import threading
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from threadko.configuration import config as global_config
from threadko.configuration.settings import CodecSettings, SerializationSettings
from threadko.exceptions import ConfigurationError, DecodeError, EncodeError
from threadko.serialization.codecs import JSON, PICKLE, registry
from threadko.serialization.compression import decompress
from threadko.serialization.registry import RAW_CONTENT_TYPES, Codec, Encoded, Raw, Registry
from threadko.utils.imports import import_from_path

__all__ = ["Serialization", "SerializationConfig", "setup"]

_log = logging.getLogger(__name__)

_warned_lock = threading.Lock()
_warned: set[str] = set()  # content types; guarded by _warned_lock


class SerializationConfig(NamedTuple):
    """The names of the serializers that a configuration chooses."""

    serializer: str
    accept: list[str]


class Serialization:
    """What one configuration writes with and accepts. Never changed: any thread may use it.

    Args:
        codecs: those that can be named.
        serializer: the name of the one to write with.
        accept: the names of those that are read. Text and bytes always are.
        max_size: bytes that a compressed body may stand for.

    Raises:
        ConfigurationError: a name is not known, or its library not installed.
    """

    def __init__(
        self, codecs: Registry, *, serializer: str, accept: Sequence[str], max_size: int
    ) -> None:
        self.serializer = serializer
        self.accept = tuple(accept)
        self._codecs = codecs
        self._max_size = max_size
        self._codec = codecs.get(serializer)
        accepted = [codecs.get(name) for name in accept]
        # Of several with one content type, that which is named first has it.
        self._readers: dict[str, Codec | Raw] = {}
        for codec in (*accepted, *(Raw(content_type) for content_type in RAW_CONTENT_TYPES)):
            self._readers.setdefault(codec.content_type, codec)
        self._writers = dict(self._readers)
        for codec in (self._codec, *codecs):
            self._writers.setdefault(codec.content_type, codec)

    @classmethod
    def from_config(cls, config: Mapping[str, Any] | None = None) -> "Serialization":
        """Return what a configuration chooses, the global one if none is given.

        Raises:
            ConfigurationError: that cannot be.
        """
        settings = SerializationSettings.from_config(global_config if config is None else config)
        own = [_import_codec(codec) for codec in settings.serializers]
        chosen = cls(
            registry.extended_by(own),
            serializer=settings.serializer,
            accept=settings.accept,
            max_size=settings.max_message_size,
        )
        if PICKLE.content_type in chosen._readers:
            _warn_of_pickle()
        return chosen

    def using(self, serializer: str) -> "Serialization":
        """Return the same but for the serializer to write with, which is accepted as well."""
        accept = self.accept if serializer in self.accept else (*self.accept, serializer)
        return Serialization(
            self._codecs, serializer=serializer, accept=accept, max_size=self._max_size
        )

    def accepting(self, names: Sequence[str]) -> "Serialization":
        """Return the same but for the serializers that are read."""
        return Serialization(
            self._codecs, serializer=self.serializer, accept=names, max_size=self._max_size
        )

    def encode(self, value: Any) -> Encoded:
        """Return a value encoded by the chosen serializer; `EncodeError` if it cannot be."""
        return self._codec.encode(value)

    def encode_as(self, content_type: str | None, value: Any) -> Encoded:
        """Return a value encoded for a content type, as an answer must be; else `EncodeError`.

        Without a content type it is JSON.
        """
        codec = self._writers.get(content_type or JSON.content_type)
        if codec is None:
            raise EncodeError(f"no serializer is known for content type {content_type!r}")
        return codec.encode(value)

    def decode(
        self,
        body: bytes,
        content_type: str | None,
        content_encoding: str | None,
        compression: object = None,
    ) -> Any:
        """Return the value in a body; `DecodeError` if it cannot be read.

        Its content type must be exactly that of an accepted serializer, or that of text or bytes,
        which stand for a missing one.

        Args:
            compression: the value of the header of that name.
        """
        codec = self._readers.get(content_type or RAW_CONTENT_TYPES[0])
        if codec is None:
            raise DecodeError(
                f"content type {content_type!r} is not accepted, only {', '.join(self.accept)}"
            )
        if compression:
            body = decompress(compression, body, self._max_size)
        return codec.decode(body, content_encoding)


def setup(config: Mapping[str, Any] | None = None) -> SerializationConfig:
    """Return the serializers that a configuration chooses, the global one if none is given.

    Raises:
        ConfigurationError: one of them is not known, or an entry of `SERIALIZERS` is wrong.
    """
    chosen = Serialization.from_config(config)
    return SerializationConfig(chosen.serializer, list(chosen.accept))


def _import_codec(settings: CodecSettings) -> Codec:
    return Codec(
        settings.name,
        _import_function(settings.name, "encoder", settings.encoder),
        _import_function(settings.name, "decoder", settings.decoder),
        settings.content_type,
        settings.content_encoding,
    )


def _import_function(name: str, role: str, path: str) -> Any:
    try:
        function = import_from_path(path)
    except Exception as error:  # its module is the user's, and may fail at anything
        raise ConfigurationError(
            f"SERIALIZERS: the {role} of {name!r} cannot be imported: {error}"
        ) from error
    if not callable(function):
        raise ConfigurationError(f"SERIALIZERS: the {role} of {name!r}, {path}, is no function")
    return function


def _warn_of_pickle() -> None:
    with _warned_lock:
        is_first = PICKLE.content_type not in _warned
        _warned.add(PICKLE.content_type)
    if is_first:
        _log.warning(
            "pickle is accepted: whoever can send a message to this process can run code in it"
        )
