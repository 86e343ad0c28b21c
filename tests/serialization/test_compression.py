"""Compressed bodies: their names, both ways, and what is refused without harm."""

import contextlib
import gzip
import lzma
import random
import tracemalloc
import zlib
from collections.abc import Callable

import pytest

from threadko.exceptions import ConfigurationError, DecodeError
from threadko.serialization import check_compression, compress, decompress

NAMES = {
    "gzip": "application/x-gzip",
    "zlib": "application/x-gzip",
    "bzip2": "application/x-bz2",
    "bzip": "application/x-bz2",
    "lzma": "application/x-lzma",
    "xz": "application/x-lzma",
    "brotli": "application/x-brotli",
    "zstd": "application/zstd",
    "zstandard": "application/zstd",
}
LIMIT = 100_000
TEXT = b'{"args": [1, "abc"], "kwargs": {}}' * 100
MIB = 1024 * 1024


def is_installed(name: str) -> bool:
    try:
        check_compression(name)
    except ConfigurationError:
        return False
    return True


HERE = [name for name in NAMES if is_installed(name)]


@pytest.mark.parametrize("name", HERE)
@pytest.mark.parametrize("body", [b"", b"x", TEXT, b"a" * LIMIT, bytes(range(256)) * 8])
def test_a_body_comes_back_under_every_name_of_its_compression(name: str, body: bytes) -> None:
    header, packed = compress(name, body)
    assert header == NAMES[name]
    assert decompress(header, packed, LIMIT) == body
    assert decompress(name, packed, LIMIT) == body
    assert compress(header, body)[0] == header


def test_the_standard_library_compresses_everywhere() -> None:
    assert {"gzip", "bzip2", "lzma"} <= set(HERE)


def test_gzip_is_a_zlib_stream_as_the_peers_write_it() -> None:
    assert compress("gzip", TEXT) == ("application/x-gzip", zlib.compress(TEXT))


@pytest.mark.parametrize(
    ("header", "packed"),
    [
        ("application/x-gzip", gzip.compress(TEXT, mtime=0)),
        ("application/x-lzma", lzma.compress(TEXT, lzma.FORMAT_ALONE)),
        ("application/x-lzma", lzma.compress(TEXT, preset=9)),
    ],
)
def test_what_other_senders_put_under_these_names_is_read_too(header: str, packed: bytes) -> None:
    assert decompress(header, packed, LIMIT) == TEXT


@pytest.mark.parametrize("name", HERE)
def test_a_body_may_have_exactly_the_largest_size(name: str) -> None:
    header, packed = compress(name, TEXT)
    assert decompress(header, packed, len(TEXT)) == TEXT
    with pytest.raises(DecodeError, match=f"larger than MAX_MESSAGE_SIZE, {len(TEXT) - 1} bytes"):
        decompress(header, packed, len(TEXT) - 1)


@pytest.mark.parametrize("name", HERE)
def test_a_bomb_takes_no_more_memory_than_a_body_may_have(name: str) -> None:
    header, bomb = compress(name, bytes(64 * MIB))
    tracemalloc.start()
    try:
        with pytest.raises(DecodeError, match="larger than MAX_MESSAGE_SIZE"):
            decompress(header, bomb, MIB)
        assert tracemalloc.get_traced_memory()[1] < 16 * MIB
    finally:
        tracemalloc.stop()


def test_a_header_that_claims_gigabytes_of_memory_is_refused() -> None:
    packed = bytearray(lzma.compress(TEXT, lzma.FORMAT_ALONE))
    packed[1:5] = (0xFFFFFFFF).to_bytes(4, "little")
    with pytest.raises(DecodeError, match="as application/x-lzma"):
        decompress("application/x-lzma", bytes(packed), LIMIT)


@pytest.mark.parametrize("name", HERE)
@pytest.mark.parametrize("damage", [lambda b: b"", lambda b: b[:-1], lambda b: b + b"x"])
def test_a_stream_must_be_whole_and_alone(name: str, damage: Callable[[bytes], bytes]) -> None:
    header, packed = compress(name, TEXT)
    with pytest.raises(DecodeError, match="cannot decompress the body"):
        decompress(header, damage(packed), LIMIT)


@pytest.mark.parametrize("name", HERE)
def test_random_bytes_are_a_decode_error_or_nothing(name: str) -> None:
    source = random.Random(1)
    header, packed = compress(name, TEXT)
    for _ in range(300):
        noise = source.randbytes(source.randrange(200))
        damaged = bytearray(packed)
        damaged[source.randrange(len(damaged))] ^= 1 << source.randrange(8)
        for body in (noise, packed[: source.randrange(len(packed))] + noise, bytes(damaged)):
            with contextlib.suppress(DecodeError):
                decompress(header, body, LIMIT)


@pytest.mark.parametrize("header", ["", "application/gzip", "GZIP", "x" * 1000, 5, b"gzip", ["a"]])
def test_an_unknown_compression_cannot_be_read(header: object) -> None:
    with pytest.raises(DecodeError, match="is not known, only: gzip, bzip2") as caught:
        decompress(header, b"x", LIMIT)
    assert len(str(caught.value)) < 200


def test_an_unknown_compression_cannot_be_asked_for() -> None:
    for ask in (check_compression, lambda name: compress(name, b"x")):
        with pytest.raises(ConfigurationError, match="'rar', there are: gzip, bzip2, lzma"):
            ask("rar")


@pytest.mark.parametrize("name", [name for name in NAMES if name not in HERE])
def test_a_compression_that_is_not_installed_says_how_to_get_it(name: str) -> None:
    with pytest.raises(ConfigurationError, match="not available: pip install"):
        check_compression(name)
    with pytest.raises(DecodeError, match="not available: pip install"):
        decompress(name, b"x", LIMIT)
