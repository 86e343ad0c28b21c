"""Configuration files and definitions on the command line."""

import traceback
from pathlib import Path

import pytest
import yaml

from threadko.configuration.loader import dump, load_file, parse_define, parse_value
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


BOMB = "\n".join(
    ["a0: &a0 [x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30))]
)

BAD_FILES = [
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
    (b"a: " + b"{b: " * 2000, "nested too deep"),
    (b"a: *b", "not valid YAML, line 1"),
    (b"a: !!python/object/apply:os.system [x]", "not valid YAML, line 1"),
    (BOMB.encode(), "aliases stand for more than 1000000 values"),
    (BOMB.encode("utf-16"), "aliases stand for more than 1000000 values"),
    (b"a: &a [*a]", "an alias stands for what it is part of"),
    (b"a: &a {b: *a}", "an alias stands for what it is part of"),
]


@pytest.mark.parametrize(("content", "message"), BAD_FILES)
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


@pytest.mark.parametrize(
    "value",
    [
        "!hunter2",
        "*hunter2",
        "[&hunter2 a, &hunter2 b]",
        "!!bool hunter2",
        "!!int hunter2",
        "!!float hunter2",
        "!!timestamp hunter2",
        "!s!hunter2 x",
        "[hunter2, hunter2]: hunter2: x",
        "${UNSET:hunter2",
        "${ hunter2 }",
        "!env_var {hunter2: ${SECRET}}",
        "${SECRET}",
        "!env_var 'x: ${SECRET}'",
        "[${SECRET}]",
    ],
)
@pytest.mark.parametrize(
    "variable", ["[hunter2", "*hunter2", "!hunter2 x", "!!int hunter2", "\x07hunter2"]
)
def test_no_error_shows_or_carries_a_value(path: Path, value: str, variable: str) -> None:
    path.write_text(f"first: 1\nkey: {value}\n")
    with pytest.raises(ConfigurationError, match="line 2") as caught:
        load_file(path, {"SECRET": variable})
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))
    assert "\n" not in str(caught.value)


GUEST_URI = "amqp://guest:guest@localhost:5672/"
ENVIRON = {
    "NUMBER": "5",
    "LIST": "[1, x]",
    "DICT": "{a: 1}",
    "TEXT": "text",
    "EMPTY": "",
    "AGAIN": "${NUMBER}",
    "TAGGED": "!env_var '${NUMBER}'",
    "COMMENT": "before #after",
    "HASH": "#x",
    "LINES": "-----BEGIN X-----\nabc\n-----END X-----\n",
}


SUBSTITUTIONS = [
    ("${NUMBER}", 5),
    ("${NUMBER}${NUMBER}", 55),
    ("x${NUMBER}", "x5"),
    ("${LIST}", [1, "x"]),
    ("${DICT}", {"a": 1}),
    ("${UNSET}", None),
    ("${UNSET:}", None),
    ("${EMPTY:x}", None),
    ("${UNSET:yes}", True),
    ("${UNSET:[1,2]}", [1, 2]),
    ("${UNSET:{'a':1}}", {"a": 1}),
    ("${UNSET:${OTHER:${NUMBER}}}", 5),
    ("amqp://${U:guest}:${P:guest}@${H:localhost}:${PORT:5672}/", GUEST_URI),
    ("'${NUMBER}'", "${NUMBER}"),
    ('"${NUMBER}"', "${NUMBER}"),
    ("!env_var '${NUMBER}'", 5),
    ('!env_var "${UNSET:{a: [1, {b: 2}]}}"', {"a": [1, {"b": 2}]}),
    ("!env_var '[${NUMBER}, ${TEXT}]'", [5, "text"]),
    ("[!env_var '${NUMBER}', 1]", [5, 1]),
    ("{a: {b: !env_var '${NUMBER}'}}", {"a": {"b": 5}}),
    ("!env_var '5'", "5"),
    ("!env_var 5", "5"),
    ("!raw_env_var ${NUMBER}", "5"),
    ("!raw_env_var '${NUMBER}'", "5"),
    ("!raw_env_var ${UNSET}", ""),
    ("!raw_env_var '${LIST}'", "[1, x]"),
    ("!raw_env_var ${TAGGED}", "!env_var '${NUMBER}'"),
    ("!!str ${NUMBER}", "${NUMBER}"),
    ("|\n  ${NUMBER}", "${NUMBER}\n"),
    ("!env_var |\n  a: ${NUMBER}\n  b: ${TEXT}", {"a": 5, "b": "text"}),
    ("two\n  lines ${NUMBER}", "two lines 5"),
    ("${AGAIN}", "${NUMBER}"),
    ("${UNSET:${AGAIN}}", "${NUMBER}"),
    ("!raw_env_var ${AGAIN}", "${NUMBER}"),
    ("${COMMENT}", "before #after"),
    ("${HASH}", "#x"),
    ("!raw_env_var ${LINES}", ENVIRON["LINES"]),
    ("${LINES}", ENVIRON["LINES"].strip()),
]


@pytest.mark.parametrize(("value", "expected"), SUBSTITUTIONS)
def test_variables_in_a_file_are_replaced(path: Path, value: str, expected: object) -> None:
    path.write_text(f"key: {value}\n")
    result = load_file(path, ENVIRON)["key"]
    assert result == expected
    assert type(result) is type(expected)


def test_variables_are_those_of_the_process_by_default(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THREADKO_TEST_VARIABLE", "7")
    path.write_text("key: ${THREADKO_TEST_VARIABLE}")
    assert load_file(path) == {"key": 7}


@pytest.mark.parametrize(
    "text",
    [
        "!env_var '${A}'",
        "!raw_env_var '${A}'",
        "!!python/object/apply:os.system ['true']",
        "!!python/name:os.system",
        "[!env_var '${A}']",
        "!!js x",
    ],
)
def test_no_tag_comes_in_through_a_variable(path: Path, text: str) -> None:
    path.write_text("key: ${TEXT}")
    with pytest.raises(ConfigurationError, match=r"line 1: .* put !raw_env_var before it$"):
        load_file(path, {"TEXT": text, "A": "1"})


@pytest.mark.parametrize("value", ["[${NUMBER}]", "{a: ${NUMBER}}", "${UNSET:{a: 1}}"])
def test_a_variable_that_yaml_cannot_bear_is_an_error_with_a_hint(path: Path, value: str) -> None:
    path.write_text(f"a: 1\nkey: {value}\n")
    with pytest.raises(ConfigurationError, match=r"line 2: .* needs quotes, and !env_var before"):
        load_file(path, ENVIRON)


def test_a_variable_can_nest_no_deeper_than_the_stack(path: Path) -> None:
    path.write_text("key: " + "${A:" * 20_000 + "}" * 20_000)
    with pytest.raises(ConfigurationError, match="nested too deep"):
        load_file(path, {})


def test_reading_a_file_leaves_yaml_as_it_was(path: Path) -> None:
    path.write_text("key: ${NUMBER}")
    load_file(path, ENVIRON)
    assert yaml.safe_load("key: ${NUMBER}") == {"key": "${NUMBER}"}


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


@pytest.mark.parametrize(
    "text", ["=x", " =x", "", "KEY=[secret", "KEY=a: b: secret", "KEY=*secret"]
)
def test_a_bad_definition_is_an_error_without_its_value(text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_define(text)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", None),
        ("  ", None),
        ("null", None),
        ("5", 5),
        ("0.5", 0.5),
        ("true", True),
        ("text", "text"),
        (" text ", "text"),
        ("'5'", "5"),
        ("!!str 5", "5"),
        ("&a text", "text"),
        ("--- text", "text"),
        ("[1, {a: b}]", [1, {"a": "b"}]),
        ("a: 1\nb: 2", {"a": 1, "b": 2}),
        ("amqp://u:p #q@h/", "amqp://u:p #q@h/"),
        ("#text", "#text"),
        ("=", "="),
        ("<<", "<<"),
        ("two\n\nlines", "two\n\nlines"),
    ],
)
def test_a_value_is_yaml_and_a_string_is_taken_as_it_stands(text: str, expected: object) -> None:
    result = parse_value(text, "it")
    assert result == expected
    assert type(result) is type(expected)


@pytest.mark.parametrize(
    "text", ["[secret", "!secret", "*secret", "secret: [", "\x07secret", "&secret [*secret]"]
)
def test_a_bad_value_is_an_error_that_names_its_source(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^the variable X is not valid YAML") as caught:
        parse_value(text, "the variable X")
    assert "secret" not in str(caught.value)


def test_a_bad_value_of_several_lines_is_an_error_that_names_the_line() -> None:
    with pytest.raises(ConfigurationError, match=r"^it is not valid YAML: "):
        parse_value("[", "it")
    with pytest.raises(ConfigurationError, match=r"^it is not valid YAML, line 2: "):
        parse_value("a: 1\nb: c: d", "it")


def test_a_value_can_nest_no_deeper_than_the_stack() -> None:
    with pytest.raises(ConfigurationError, match=r"^it is nested too deep$"):
        parse_value("[" * 1500, "it")


def test_what_would_be_substituted_is_dumped_in_quotes() -> None:
    assert dump({"a": "${HOME}/x", "b": "$HOME"}) == "a: '${HOME}/x'\nb: $HOME\n"


def test_what_is_dumped_means_the_same_and_keeps_its_order():
    shared = ["a"]
    entries = {
        "z": ("b", 1.5),
        "a": {"x": None, "umlaut": "ü\n", "no": "yes"},
        "y": [shared, shared],
    }
    text = dump(entries)
    assert yaml.safe_load(text) == {**entries, "z": ["b", 1.5]}
    assert text.index("z:") < text.index("a:") < text.index("y:")
    assert "&" not in text
