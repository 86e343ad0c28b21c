"""What one configuration writes with and accepts."""

import importlib.util
import logging
import zlib
from typing import Any

import pytest

from threadko import config
from threadko.containers import ServiceContainer
from threadko.exceptions import ConfigurationError, DecodeError, EncodeError
from threadko.serialization import Encoded, Serialization, SerializationConfig, setup

REVERSED = {
    "encoder": f"{__name__}.write_reversed",
    "decoder": f"{__name__}.read_reversed",
    "content_type": "text/x-reversed",
}


def write_reversed(value: Any) -> str:
    return str(value)[::-1]


def read_reversed(text: str) -> str:
    return text[::-1]


def write_upper(value: Any) -> str:
    return str(value).upper()


def choose(**entries: Any) -> Serialization:
    return Serialization.from_config(entries)


def test_json_is_written_and_read_if_nothing_is_configured() -> None:
    assert setup({}) == SerializationConfig(serializer="json", accept=["json"])
    chosen = choose()
    assert chosen.encode([1]) == Encoded("application/json", "utf-8", b"[1]")
    assert chosen.decode(b"[1]", "application/json", "utf-8") == [1]
    with pytest.raises(DecodeError, match="'application/x-yaml' is not accepted, only json"):
        chosen.decode(b"1", "application/x-yaml", "utf-8")


def test_global_configuration_is_read_if_none_is_given() -> None:
    with config.patch({"serializer": "yaml", "ACCEPT": ["json", "yaml"]}, clear=True):
        assert setup() == ("yaml", ["json", "yaml"])


def test_serializer_alone_is_accepted_unless_accept_says_more() -> None:
    assert choose(serializer="yaml").accept == ("yaml",)
    both = choose(serializer="yaml", ACCEPT=["json", "yaml"])
    assert both.decode(b"{a: 1}", "application/x-yaml", None) == {"a": 1}
    assert both.decode(b'{"a": 1}', "application/json", None) == {"a": 1}


def test_answer_is_written_in_the_type_that_was_asked_in() -> None:
    chosen = choose(ACCEPT=["json", "yaml"])
    assert chosen.encode_as("application/x-yaml", [1]).body == b"- 1\n"
    assert chosen.encode_as(None, [1]).body == b"[1]"
    with pytest.raises(EncodeError, match="text/nonsense"):
        chosen.encode_as("text/nonsense", 1)


def test_another_serializer_can_be_used_with_all_else_the_same() -> None:
    chosen = choose(ACCEPT=["json", "yaml"])
    assert chosen.using("yaml").encode([1]).content_type == "application/x-yaml"
    assert chosen.using("yaml").accept == chosen.accept
    with pytest.raises(ConfigurationError, match="'xml'"):
        chosen.using("xml")


def test_serializers_of_ones_own_are_known_by_name() -> None:
    chosen = choose(serializer="reversed", SERIALIZERS={"reversed": REVERSED})
    assert chosen.encode("abc") == Encoded("text/x-reversed", "utf-8", b"cba")
    assert chosen.decode(b"cba", "text/x-reversed", "utf-8") == "abc"


def test_two_configurations_may_mean_different_things_by_one_name() -> None:
    upper = {**REVERSED, "encoder": f"{__name__}.write_upper"}
    first = choose(serializer="own", SERIALIZERS={"own": REVERSED})
    second = choose(serializer="own", SERIALIZERS={"own": upper})
    assert (first.encode("abc").body, second.encode("abc").body) == (b"cba", b"ABC")
    with pytest.raises(ConfigurationError, match="no serializer is named 'own'"):
        choose(serializer="own")


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"serializer": "xml"}, "no serializer is named 'xml', there are: json, "),
        ({"ACCEPT": ["json", "xml"]}, "no serializer is named 'xml'"),
        ({"SERIALIZERS": {"own": {}}}, "SERIALIZERS: own: encoder"),
        ({"SERIALIZERS": {"own": {**REVERSED, "size": 1}}}, "SERIALIZERS: own has no size"),
        (
            {"SERIALIZERS": {"own": {**REVERSED, "encoder": "no_such_module.f"}}},
            "the encoder of 'own' cannot be imported",
        ),
        (
            {"SERIALIZERS": {"own": {**REVERSED, "decoder": f"{__name__}.REVERSED"}}},
            "the decoder of 'own', .* is no function",
        ),
        (
            {"SERIALIZERS": {"own": {**REVERSED, "content_encoding": "nonsense"}}},
            "SERIALIZERS: own: content_encoding",
        ),
    ],
)
def test_mistake_is_found_when_a_container_is_made(entries: dict[str, Any], words: str) -> None:
    class Service:
        name = "mistaken"

    with pytest.raises(ConfigurationError, match=words):
        setup(entries)
    with pytest.raises(ConfigurationError, match=words):
        ServiceContainer(Service, config=entries)


def test_library_that_is_missing_is_named_with_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(ConfigurationError, match="msgpack needs: pip install msgpack"):
        choose(serializer="msgpack")
    assert choose().serializer == "json"


def test_pickle_is_read_only_where_it_is_asked_for_and_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    body = choose(serializer="pickle").encode([1]).body
    with pytest.raises(DecodeError, match="is not accepted"):
        choose().decode(body, "application/x-python-serialize", "binary")
    caplog.clear()
    for _ in range(2):
        chosen = choose(ACCEPT=["json", "pickle"])
    assert chosen.decode(body, "application/x-python-serialize", "binary") == [1]
    warnings = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warnings) <= 1  # once in a process, and another test may have been the first


def test_compressed_body_is_unpacked_within_bounds() -> None:
    chosen = choose(MAX_MESSAGE_SIZE=1000)
    body = zlib.compress(b'"' + b"x" * 900 + b'"')
    assert chosen.decode(body, "application/json", "utf-8", "application/x-gzip") == "x" * 900
    bomb = zlib.compress(b'"' + b"x" * 1_000_000 + b'"')
    with pytest.raises(DecodeError, match="1000"):
        chosen.decode(bomb, "application/json", "utf-8", "application/x-gzip")
    for rubbish in ("nonsense", 5, ["application/x-gzip"], {"x": 1}):
        with pytest.raises(DecodeError):
            chosen.decode(body, "application/json", "utf-8", rubbish)
