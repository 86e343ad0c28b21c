"""Configuration files and definitions on the command line."""

from pathlib import Path

import pytest

from threadko.configuration.loader import load_file, parse_define
from threadko.exceptions import ConfigurationError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "config.yaml"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("# nothing\n", {}),
        ("{}", {}),
        ("a: 1\nb: [x, y]\nc: {d: null}\n", {"a": 1, "b": ["x", "y"], "c": {"d": None}}),
        ("AMQP_URI: amqp://u:p@h:1/\n", {"AMQP_URI": "amqp://u:p@h:1/"}),
        ("name: Grüße\n", {"name": "Grüße"}),
    ],
)
def test_a_file_gives_its_mapping(path: Path, text: str, expected: object) -> None:
    path.write_text(text, encoding="utf-8")
    assert load_file(path) == load_file(str(path)) == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: 1\nb: 2\nc: ]\n", "not valid YAML, line 3"),
        (b"a: b: c\n", "not valid YAML, line 1"),
        (b"a: !!python/object:os.system x\n", "not valid YAML, line 1"),
        (b"a: 2026-02-30\n", "not valid YAML"),
        (b"\xff\xfe\xfa", "not valid YAML"),
        (b"a: \x00", "not valid YAML"),
        (b"a: 1\n---\nb: 2\n", "not valid YAML, line"),
        (b"- 1\n- 2\n", "must hold a mapping of keys to values, not a list"),
        (b"just text", "must hold a mapping of keys to values, not a str"),
        (b"8000: x\n", "the key 8000 must be a string"),
        (b"a: " + b"[" * 2000, "nested too deep"),
    ],
)
def test_a_bad_file_is_an_error_that_names_the_file_and_the_fault(
    path: Path, content: bytes, message: str
) -> None:
    path.write_bytes(content)
    with pytest.raises(ConfigurationError) as caught:
        load_file(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_bad_file_shows_no_values(path: Path) -> None:
    path.write_text("password: secret\nuri: 'amqp://u:secret@h\n")
    with pytest.raises(ConfigurationError) as caught:
        load_file(path)
    assert "secret" not in str(caught.value)


def test_a_missing_file_is_an_error_that_names_it(path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"config\.yaml.*No such file"):
        load_file(path)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="directory"):
        load_file(tmp_path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("KEY=value", ("KEY", "value")),
        ("KEY=5", ("KEY", 5)),
        ("KEY=[a, 1]", ("KEY", ["a", 1])),
        ("KEY={a: 1}", ("KEY", {"a": 1})),
        ("KEY=a=b", ("KEY", "a=b")),
        (" KEY =x", ("KEY", "x")),
        ("KEY=", ("KEY", None)),
        ("KEY", ("KEY", True)),
        ("KEY=false", ("KEY", False)),
        ("KEY='5'", ("KEY", "5")),
        ("AMQP_URI=amqp://u:p@h:5672/v", ("AMQP_URI", "amqp://u:p@h:5672/v")),
    ],
)
def test_a_definition_gives_key_and_value(text: str, expected: object) -> None:
    assert parse_define(text) == expected


@pytest.mark.parametrize("text", ["=x", " =x", "", "KEY=[secret", "KEY=a: b: secret"])
def test_a_bad_definition_is_an_error_without_its_value(text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_define(text)
    assert "secret" not in str(caught.value)
