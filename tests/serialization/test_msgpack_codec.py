"""MessagePack bodies, with text and bytes kept apart."""

from typing import Any

import pytest

from threadko.exceptions import DecodeError, EncodeError
from threadko.serialization.codecs import MSGPACK


@pytest.mark.parametrize(
    "value",
    [None, True, -1, 2**64 - 1, 2.5, "grüß dich", b"\xff", [1, [2]], {"args": ["x"], "kwargs": {}}],
)
def test_values_come_back_as_they_went(value: Any) -> None:
    encoded = MSGPACK.encode(value)
    assert (encoded.content_type, encoded.content_encoding) == ("application/x-msgpack", "binary")
    assert MSGPACK.decode(encoded.body, "binary") == value


@pytest.mark.parametrize("value", [2**64, {1}, object(), 1j])
def test_what_it_has_no_form_for_is_an_encode_error(value: Any) -> None:
    with pytest.raises(EncodeError, match="as msgpack"):
        MSGPACK.encode(value)


@pytest.mark.parametrize(
    "body", [b"\xc1", b"\x91", b"\xa5ab", b"\x01\x01", b"\xa1\xff", b"\x91" * 5000]
)
def test_noise_is_a_decode_error(body: bytes) -> None:
    with pytest.raises(DecodeError):
        MSGPACK.decode(body, "binary")
