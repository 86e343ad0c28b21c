"""Content types: which are accepted, how each is read, and what is refused."""

from collections.abc import Sequence
from typing import Any

import pytest

from threadko.exceptions import ConfigurationError, DecodeError, EncodeError
from threadko.serialization import Encoded, Registry, Serialization, registry


class Kit:
    """What a configuration does with the codecs of a registry, which may grow meanwhile."""

    def __init__(self, codecs: Registry) -> None:
        self.codecs = codecs

    def chosen(self, serializer: str = "json", accept: Sequence[str] = ()) -> Serialization:
        return Serialization(self.codecs, serializer=serializer, accept=accept, max_size=1000)

    def encode(self, name: str, value: Any) -> Encoded:
        return self.codecs.get(name).encode(value)

    def encode_as(self, content_type: str | None, value: Any) -> Encoded:
        return self.chosen("raw").encode_as(content_type, value)

    def decode(
        self, body: bytes, content_type: str | None, encoding: str | None, accept: Sequence[str]
    ) -> Any:
        return self.chosen("raw", accept).decode(body, content_type, encoding)


standard = Kit(registry)


class UnspeakableError(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


def fail(value: Any) -> Any:
    raise ValueError("secret plan failed")


def fail_badly(value: Any) -> Any:
    raise UnspeakableError


@pytest.fixture
def own() -> Kit:
    own = Registry()
    own.register("upper", str.upper, str.lower, "text/x-upper")
    own.register("flip", lambda value: value[::-1], lambda value: value[::-1], "x/flip", "binary")
    own.register("failing", fail, fail, "x/failing")
    own.register("silent", fail_badly, fail_badly, "x/silent")
    return Kit(own)


def test_json_and_raw_are_known() -> None:
    assert registry.is_known("json")
    assert registry.is_known("raw")
    assert not registry.is_known("xml")
    assert registry.content_type_of("json") == "application/json"
    assert registry.content_type_of("raw") == "application/data"


def test_json_is_utf8_with_its_content_type() -> None:
    assert standard.encode("json", {"a": 1}) == Encoded("application/json", "utf-8", b'{"a": 1}')
    assert standard.encode_as("application/json", [1]).body == b"[1]"


@pytest.mark.parametrize(
    ("value", "encoding", "body"),
    [("ü", "utf-8", b"\xc3\xbc"), (b"\xff", "binary", b"\xff"), ("", "utf-8", b"")],
)
def test_text_and_bytes_travel_as_they_are(value: object, encoding: str, body: bytes) -> None:
    assert standard.encode("raw", value) == Encoded("application/data", encoding, body)
    encoded = standard.encode_as("application/text", value)
    assert encoded == Encoded("application/text", encoding, body)
    assert standard.decode(body, encoded.content_type, encoded.content_encoding, []) == value


@pytest.mark.parametrize("value", [1, None, {"a": 1}, "\ud800"])
def test_what_is_neither_text_nor_bytes_cannot_be_raw(value: object) -> None:
    with pytest.raises(EncodeError, match="application/data"):
        standard.encode("raw", value)


def test_an_unknown_name_is_a_configuration_error_that_names_those_there_are() -> None:
    with pytest.raises(
        ConfigurationError, match="'xml', there are: json, msgpack, pickle, raw, yaml"
    ):
        standard.encode("xml", 1)
    with pytest.raises(ConfigurationError):
        registry.content_type_of("xml")


def test_an_unknown_content_type_cannot_be_encoded_for() -> None:
    with pytest.raises(EncodeError, match="text/nonsense"):
        standard.encode_as("text/nonsense", 1)


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
    assert standard.decode(body, content_type, encoding, ["json"]) == expected


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
        standard.decode(body, content_type, encoding, ["json"])


@pytest.mark.parametrize(
    ("content_type", "accept"),
    [
        ("application/json; charset=utf-8", ["json"]),
        ("Application/JSON", ["json"]),
        ("text/plain", ["json"]),
        ("application/x-yaml", ["json", "pickle"]),
        ("application/json", []),
        ("application/json", ["raw"]),
    ],
)
def test_a_content_type_must_be_accepted_by_its_exact_name(
    content_type: str, accept: list[str]
) -> None:
    with pytest.raises(DecodeError, match="is not accepted"):
        standard.decode(b"1", content_type, "utf-8", accept)


def test_a_text_codec_is_given_text(own: Kit) -> None:
    assert own.encode("upper", "aé") == Encoded("text/x-upper", "utf-8", "AÉ".encode())
    assert own.decode("AÉ".encode(), "text/x-upper", "utf-8", ["upper"]) == "aé"


@pytest.mark.parametrize("encoding", ["binary", "utf-8", None])
def test_a_binary_codec_is_given_bytes(own: Kit, encoding: str | None) -> None:
    assert own.encode("flip", b"ab\xff") == Encoded("x/flip", "binary", b"\xffba")
    assert own.decode(b"\xffba", "x/flip", encoding, ["flip"]) == b"ab\xff"


def test_text_from_a_binary_codec_is_written_as_utf8(own: Kit) -> None:
    assert own.encode("flip", "aé").body == "éa".encode()


@pytest.mark.parametrize(
    ("name", "text"), [("failing", "secret plan failed"), ("silent", "UnspeakableError")]
)
def test_whatever_a_codec_raises_becomes_one_of_our_errors(own: Kit, name: str, text: str) -> None:
    with pytest.raises(EncodeError, match=text) as encoding:
        own.encode(name, 1)
    with pytest.raises(DecodeError, match=text) as decoding:
        own.decode(b"1", own.codecs.content_type_of(name), "utf-8", [name])
    assert encoding.value.__cause__ is not None
    assert decoding.value.__cause__ is not None


def test_errors_of_our_own_pass_a_codec_as_they_are(own: Kit) -> None:
    encode_error, decode_error = EncodeError("e"), DecodeError("d")

    def encoder(value: Any) -> str:
        raise encode_error

    def decoder(body: Any) -> Any:
        raise decode_error

    own.codecs.register("own", encoder, decoder, "x/own")
    with pytest.raises(EncodeError) as encoding:
        own.encode("own", 1)
    with pytest.raises(DecodeError) as decoding:
        own.decode(b"1", "x/own", "utf-8", ["own"])
    assert (encoding.value, decoding.value) == (encode_error, decode_error)


def test_a_codec_of_the_same_name_is_replaced(own: Kit) -> None:
    own.codecs.register("upper", str.title, str.lower, "text/x-upper")
    assert own.encode("upper", "ab").body == b"Ab"


def test_of_two_codecs_for_one_content_type_the_accepted_one_reads(own: Kit) -> None:
    own.codecs.register("shout", lambda value: f"{value}!", lambda text: text[:-1], "text/x-upper")
    assert own.decode(b"HI!", "text/x-upper", "utf-8", ["shout"]) == "HI"
    assert own.decode(b"HI!", "text/x-upper", "utf-8", ["upper"]) == "hi!"
    assert own.encode_as("text/x-upper", "a").body == b"A"


@pytest.mark.parametrize("encoding", ["punycode", "PunyCode", "idna", "rot13", "zlib", "a\0b"])
@pytest.mark.parametrize("content_type", ["application/json", "application/text"])
def test_body_is_refused_when_its_encoding_is_none_for_texts(
    content_type: str, encoding: str
) -> None:
    body = b"a" * 1_000_000 + b"-" + b"a" * 100_000
    with pytest.raises(DecodeError, match="as text"):
        standard.decode(body, content_type, encoding, ["json"])
