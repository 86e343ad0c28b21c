"""Compressed bodies, under the names that kombu has for them. Any thread may call all of it.

A small body can stand for an immense one, so nothing is unpacked beyond a given size.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any, Protocol

from threadko.exceptions import ConfigurationError, DecodeError, EncodeError

__all__ = ["COMPRESSION_HEADER", "check_compression", "compress", "decompress"]

#: The header of a compressed message; its value is the content type of the compression.
COMPRESSION_HEADER = "compression"

# What the largest preset (9) needs is 65 MiB, by the manual of xz; a header can claim gigabytes.
_LZMA_MEMORY = 80 * 1024 * 1024
_BIGGEST_WINDOW = 27  # its logarithm, as of the zstd command: 128 MiB


class _Unpacker(Protocol):
    """One stream that is unpacked, at most so many bytes of it."""

    @property
    def eof(self) -> bool:
        """Whether the stream has ended."""

    @property
    def unused_data(self) -> bytes:
        """What came after its end."""

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        """Return what `data` stands for, cut at `max_length` bytes."""


@dataclass(frozen=True)
class _Method:
    """One way to compress, and what must be installed for it."""

    content_type: str
    aliases: tuple[str, ...]
    modules: tuple[str, ...]
    make_unpacker: Callable[[Any], Any]
    to_install: str = ""

    def load(self) -> Any:
        """Return the library, with its `compress`; `ConfigurationError` if there is none."""
        for name in self.modules:
            library = _find_module(name)
            if library is not None:
                return library
        if self.to_install:
            hint = f"pip install '{self.to_install}'"
        else:
            hint = "this Python was built without it"
        raise ConfigurationError(f"{self.aliases[0]} compression is not available: {hint}")


class _BrotliUnpacker:
    """Gives brotli's decompressor the shape that the standard library's have."""

    unused_data = b""  # it raises where there is more

    def __init__(self, library: Any) -> None:
        self._decompressor = library.Decompressor()
        # Without a limit, which came with 1.2, a kilobyte may become a gigabyte in one call.
        if not hasattr(self._decompressor, "can_accept_more_data"):
            raise ConfigurationError("this brotli cannot be bounded: pip install 'brotli>=1.2'")

    @property
    def eof(self) -> bool:
        return bool(self._decompressor.is_finished())

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        parts = []
        while max_length > 0 and not self.eof:
            part: bytes = self._decompressor.process(data, output_buffer_limit=max_length)
            if not part:
                break
            parts.append(part)
            max_length -= len(part)
            data = b""
        return b"".join(parts)


def _unpack_zstd(library: Any) -> Any:
    limit = {library.DecompressionParameter.window_log_max: _BIGGEST_WINDOW}
    return library.ZstdDecompressor(options=limit)


_METHODS = (
    _Method(
        "application/x-gzip",
        ("gzip", "zlib"),
        ("zlib",),
        # The peers write a zlib stream under this name; others may take it at its word.
        lambda library: library.decompressobj(library.MAX_WBITS | 32),
    ),
    _Method(
        "application/x-bz2",
        ("bzip2", "bzip"),
        ("bz2",),
        lambda library: library.BZ2Decompressor(),
    ),
    _Method(
        "application/x-lzma",
        ("lzma", "xz"),
        ("lzma",),
        lambda library: library.LZMADecompressor(memlimit=_LZMA_MEMORY),
    ),
    _Method(
        "application/x-brotli",
        ("brotli",),
        ("brotli", "brotlicffi"),
        _BrotliUnpacker,
        to_install="brotli>=1.2",
    ),
    _Method(
        "application/zstd",
        ("zstd", "zstandard"),
        ("compression.zstd", "backports.zstd"),
        _unpack_zstd,
        to_install="backports.zstd",
    ),
)
_BY_NAME = {name: method for method in _METHODS for name in (method.content_type, *method.aliases)}


@cache
def _find_module(name: str) -> ModuleType | None:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def check_compression(name: str) -> None:
    """Raise `ConfigurationError` unless bodies can be compressed under that name."""
    _get(name).load()


def compress(name: str, body: bytes) -> tuple[str, bytes]:
    """Return the value of the header `compression`, and the compressed body.

    Args:
        name: such as `gzip`, `bzip2`, `lzma`, `brotli` or `zstd`, or the content type of one.

    Raises:
        ConfigurationError: there is no such compression, or its library is not installed.
    """
    method = _get(name)
    library = method.load()
    try:
        return method.content_type, library.compress(body)
    except Exception as error:
        raise EncodeError(f"cannot compress the body as {name}: {error}") from error


def decompress(name: object, body: bytes, max_size: int) -> bytes:
    """Return the body that a message with that `compression` header stands for.

    Raises:
        DecodeError: it is not compressed so, or is larger than `max_size` bytes, or this
            compression is unknown or not installed here.
    """
    method = _BY_NAME.get(name) if isinstance(name, str) else None
    if method is None:
        raise DecodeError(f"compression {str(name)[:50]!r} is not known, only: {_names()}")
    try:
        unpacker: _Unpacker = method.make_unpacker(method.load())
        # One byte more than allowed tells a body that is too large from one that just fits.
        unpacked = unpacker.decompress(body, max_size + 1)
    except ConfigurationError as error:
        raise DecodeError(str(error)) from error
    except Exception as error:  # each library has errors of its own
        raise DecodeError(f"cannot decompress the body as {name}: {error}") from error
    if len(unpacked) > max_size:
        raise DecodeError(
            f"the decompressed body is larger than MAX_MESSAGE_SIZE, {max_size} bytes"
        )
    if not unpacker.eof:
        raise DecodeError(f"cannot decompress the body as {name}: it ends before its end")
    if unpacker.unused_data:
        raise DecodeError(f"cannot decompress the body as {name}: there is more after its end")
    return unpacked


def _get(name: str) -> _Method:
    method = _BY_NAME.get(name)
    if method is None:
        raise ConfigurationError(f"no compression is named {name!r}, there are: {_names()}")
    return method


def _names() -> str:
    return ", ".join(method.aliases[0] for method in _METHODS)
