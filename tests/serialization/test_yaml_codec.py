"""YAML bodies: plain values both ways, and nothing that runs code or takes a machine down."""

import datetime
import time
from typing import Any

import pytest

from tests.support.timing import TIMEOUT
from threadko.exceptions import DecodeError, EncodeError
from threadko.serialization.codecs import YAML


def read(text: str) -> Any:
    return YAML.decode(text.encode(), "utf-8")


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        1,
        2.5,
        "grüß dich",
        "",
        b"\xff\x00",
        [1, [2, []]],
        {"args": ["x"], "kwargs": {"a": None}},
        datetime.date(2020, 1, 2),
        datetime.datetime(2020, 1, 2, 3, 4, 5),
        {1, 2},
    ],
)
def test_plain_values_come_back_as_they_went(value: Any) -> None:
    encoded = YAML.encode(value)
    assert (encoded.content_type, encoded.content_encoding) == ("application/x-yaml", "utf-8")
    assert YAML.decode(encoded.body, "utf-8") == value


@pytest.mark.parametrize("value", [object(), lambda: None, 1j, type("Own", (dict,), {})()])
def test_what_yaml_has_no_plain_form_for_is_an_encode_error(value: Any) -> None:
    with pytest.raises(EncodeError, match="as yaml"):
        YAML.encode(value)


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.system ['true']",
        "!!python/name:os.system",
        "!!python/tuple [1]",
        "!own x",
        "[1, 2",
        "a: b: c",
        "{? [1] : 2}",
        "--- 1\n--- 2",
        "&a [*a]",
        "&a {x: *a}",
        "a: &a {x: 1}\nb: {<<: *a}",
        "1" * 5000,
        "2020-99-99",
        "\x00",
    ],
)
def test_what_runs_code_or_is_no_value_is_refused(text: str) -> None:
    with pytest.raises(DecodeError):
        read(text)


def test_alias_stands_for_its_value() -> None:
    assert read("a: &a [1]\nb: *a") == {"a": [1], "b": [1]}
    assert read("- '*'\n- a * b") == ["*", "a * b"]


def test_few_lines_that_stand_for_an_immense_value_are_refused_at_once() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    began = time.monotonic()
    with pytest.raises(DecodeError, match="more than"):
        read("\n".join(lines))
    assert time.monotonic() - began < TIMEOUT


@pytest.mark.parametrize("text", ["[" * 100_000, "{a: " * 100_000, "- " * 100_000])
def test_deep_nesting_is_refused_and_does_not_end_the_process(text: str) -> None:
    with pytest.raises(DecodeError):
        read(text)
