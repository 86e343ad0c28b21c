"""Content types: which are accepted, how each is read, and what is refused."""

from typing import Any

import pytest

from threadko.exceptions import ConfigurationError, DecodeError, EncodeError
from threadko.serialization import Encoded, Registry, registry


class UnspeakableError(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


def fail(value: Any) -> Any:
    raise ValueError("secret plan failed")


def fail_badly(value: Any) -> Any:
    raise UnspeakableError


@pytest.fixture
def own() -> Registry:
    own = Registry()
    own.register("upper", str.upper, str.lower, "text/x-upper")
    own.register("flip", lambda value: value[::-1], lambda value: value[::-1], "x/flip", "binary")
    own.register("failing", fail, fail, "x/failing")
    own.register("silent", fail_badly, fail_badly, "x/silent")
    return own


def test_json_and_raw_are_known() -> None:
    assert registry.is_known("json")
    assert registry.is_known("raw")
    assert not registry.is_known("yaml")
    assert registry.content_type_of("json") == "application/json"
    assert registry.content_type_of("raw") == "application/data"


def test_json_is_utf8_with_its_content_type() -> None:
    assert registry.encode("json", {"a": 1}) == Encoded("application/json", "utf-8", b'{"a": 1}')
    assert registry.encode_as("application/json", [1]).body == b"[1]"


@pytest.mark.parametrize(
    ("value", "encoding", "body"),
    [("ü", "utf-8", b"\xc3\xbc"), (b"\xff", "binary", b"\xff"), ("", "utf-8", b"")],
)
def test_text_and_bytes_travel_as_they_are(value: object, encoding: str, body: bytes) -> None:
    assert registry.encode("raw", value) == Encoded("application/data", encoding, body)
    encoded = registry.encode_as("application/text", value)
    assert encoded == Encoded("application/text", encoding, body)
    assert registry.decode(body, encoded.content_type, encoded.content_encoding, []) == value


@pytest.mark.parametrize("value", [1, None, {"a": 1}, "\ud800"])
def test_what_is_neither_text_nor_bytes_cannot_be_raw(value: object) -> None:
    with pytest.raises(EncodeError, match="application/data"):
        registry.encode("raw", value)


def test_an_unknown_name_is_a_configuration_error_that_names_those_there_are() -> None:
    with pytest.raises(ConfigurationError, match="'yaml', there are: json, raw"):
        registry.encode("yaml", 1)
    with pytest.raises(ConfigurationError):
        registry.content_type_of("yaml")


def test_an_unknown_content_type_cannot_be_encoded_for() -> None:
    with pytest.raises(EncodeError, match="text/nonsense"):
        registry.encode_as("text/nonsense", 1)


@pytest.mark.parametrize(
    ("body", "content_type", "encoding", "expected"),
    [
        (b"[1]", "application/json", "utf-8", [1]),
        (b"[1]", "application/json", "UTF-8", [1]),
        (b"[1]", "application/json", None, [1]),
        (b"[1]", "application/json", "", [1]),
        (b"[1]", "application/json", "binary", [1]),
        (b'"\xfc"', "application/json", "latin-1", "ü"),
        (b"", "application/json", "utf-8", ""),
        (b"[1]", None, None, "[1]"),
        (b"[1]", "", "utf-8", "[1]"),
        (b"x", "application/data", "utf-8", "x"),
        (b"\xff", "application/data", "BINARY", b"\xff"),
        (b"\xff", "application/text", "ascii-8bit", b"\xff"),
        (b"", "application/data", "binary", b""),
        (b"", None, None, ""),
    ],
)
def test_a_body_is_read_by_its_content_type_and_encoding(
    body: bytes, content_type: str | None, encoding: str | None, expected: object
) -> None:
    assert registry.decode(body, content_type, encoding, ["json"]) == expected


@pytest.mark.parametrize(
    ("body", "content_type", "encoding"),
    [
        (b'"\xff"', "application/json", "utf-8"),
        (b'"\xed\xa0\x80"', "application/json", "utf-8"),
        (b"1", "application/json", "nonsense"),
        (b"1", "application/json", "zlib"),
        (b"1", "application/json", "a\0b"),
        (b"\xff", "application/data", "utf-8"),
        (b"\xff", None, None),
        (b"x", "application/text", "nonsense"),
    ],
)
def test_bytes_that_are_not_of_their_encoding_are_a_decode_error(
    body: bytes, content_type: str | None, encoding: str | None
) -> None:
    with pytest.raises(DecodeError):
        registry.decode(body, content_type, encoding, ["json"])


@pytest.mark.parametrize(
    ("content_type", "accept"),
    [
        ("application/json; charset=utf-8", ["json"]),
        ("Application/JSON", ["json"]),
        ("text/plain", ["json"]),
        ("application/x-yaml", ["json", "yaml"]),
        ("application/json", []),
        ("application/json", ["raw"]),
    ],
)
def test_a_content_type_must_be_accepted_by_its_exact_name(
    content_type: str, accept: list[str]
) -> None:
    with pytest.raises(DecodeError, match="is not accepted"):
        registry.decode(b"1", content_type, "utf-8", accept)


def test_a_text_codec_is_given_text(own: Registry) -> None:
    assert own.encode("upper", "aé") == Encoded("text/x-upper", "utf-8", "AÉ".encode())
    assert own.decode("AÉ".encode(), "text/x-upper", "utf-8", ["upper"]) == "aé"


@pytest.mark.parametrize("encoding", ["binary", "utf-8", None])
def test_a_binary_codec_is_given_bytes(own: Registry, encoding: str | None) -> None:
    assert own.encode("flip", b"ab\xff") == Encoded("x/flip", "binary", b"\xffba")
    assert own.decode(b"\xffba", "x/flip", encoding, ["flip"]) == b"ab\xff"


def test_text_from_a_binary_codec_is_written_as_utf8(own: Registry) -> None:
    assert own.encode("flip", "aé").body == "éa".encode()


@pytest.mark.parametrize(
    ("name", "text"), [("failing", "secret plan failed"), ("silent", "UnspeakableError")]
)
def test_whatever_a_codec_raises_becomes_one_of_our_errors(
    own: Registry, name: str, text: str
) -> None:
    with pytest.raises(EncodeError, match=text) as encoding:
        own.encode(name, 1)
    with pytest.raises(DecodeError, match=text) as decoding:
        own.decode(b"1", own.content_type_of(name), "utf-8", [name])
    assert encoding.value.__cause__ is not None
    assert decoding.value.__cause__ is not None


def test_errors_of_our_own_pass_a_codec_as_they_are(own: Registry) -> None:
    encode_error, decode_error = EncodeError("e"), DecodeError("d")

    def encoder(value: Any) -> str:
        raise encode_error

    def decoder(body: Any) -> Any:
        raise decode_error

    own.register("own", encoder, decoder, "x/own")
    with pytest.raises(EncodeError) as encoding:
        own.encode("own", 1)
    with pytest.raises(DecodeError) as decoding:
        own.decode(b"1", "x/own", "utf-8", ["own"])
    assert (encoding.value, decoding.value) == (encode_error, decode_error)


def test_a_codec_of_the_same_name_is_replaced(own: Registry) -> None:
    own.register("upper", str.title, str.lower, "text/x-upper")
    assert own.encode("upper", "ab").body == b"Ab"


def test_of_two_codecs_for_one_content_type_the_accepted_one_reads(own: Registry) -> None:
    own.register("shout", lambda value: f"{value}!", lambda text: text[:-1], "text/x-upper")
    assert own.decode(b"HI!", "text/x-upper", "utf-8", ["shout"]) == "HI"
    assert own.decode(b"HI!", "text/x-upper", "utf-8", ["upper"]) == "hi!"
    assert own.encode_as("text/x-upper", "a").body == b"A"
