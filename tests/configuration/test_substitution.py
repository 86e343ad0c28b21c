"""Variables in a text."""

import pytest

from threadko.configuration.substitution import substitute
from threadko.exceptions import ConfigurationError

ENVIRON = {
    "A": "1",
    "B": "b}",
    "EMPTY": "",
    "AGAIN": "${A}",
    "HALF": "${",
    "a.b-c": "odd",
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("no variable", "no variable"),
        ("$A $ {A} {A} }", "$A $ {A} {A} }"),
        ("${A}", "1"),
        ("<${A}>", "<1>"),
        ("${A}${A}-${B}", "11-b}"),
        ("${a.b-c}", "odd"),
        ("${UNSET}", ""),
        ("${UNSET:}", ""),
        ("${UNSET:x}", "x"),
        ("${UNSET: x y }", " x y "),
        ("${UNSET:a:b}", "a:b"),
        ("${UNSET:{a: [1, {b: 2}]}}", "{a: [1, {b: 2}]}"),
        ("${UNSET:{}}{", "{}{"),
        ("${A:x}", "1"),
        ("${A:${B}}", "1"),
        ("${EMPTY:x}", ""),
        ("${UNSET:${A}}", "1"),
        ("${UNSET:${OTHER:x}}", "x"),
        ("${UNSET:${OTHER:${THIRD:x}y}z}", "xyz"),
        ("${UNSET:{a: ${A}, b: ${OTHER:{}}}}", "{a: 1, b: {}}"),
        ("${UNSET:two\nlines}", "two\nlines"),
    ],
)
def test_variables_are_replaced(text, expected):
    assert substitute(text, ENVIRON) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("${AGAIN}", "${A}"),
        ("${UNSET:${AGAIN}}", "${A}"),
        ("${HALF}A}", "${A}"),
        ("${UNSET:${HALF}}A}", "${A}"),
        ("${UNSET:$}{A}", "${A}"),
    ],
)
def test_what_was_put_in_is_not_looked_through_again(text, expected):
    assert substitute(text, ENVIRON) == expected


@pytest.mark.parametrize(
    "text", ["${", "${A", "${UNSET:", "${UNSET:x", "${UNSET:{}", "${UNSET:${A}", "x ${A:${B}"]
)
def test_missing_brace_is_an_error(text):
    with pytest.raises(ConfigurationError, match=r"^a \$\{ has no \} to close it$"):
        substitute(text, ENVIRON)


@pytest.mark.parametrize("text", ["${}", "${ A}", "${A }", "${:x}", "${{A}}", "${${A}}"])
def test_what_is_no_name_is_an_error(text):
    with pytest.raises(ConfigurationError, match=r"^a \$\{ begins no"):
        substitute(text, ENVIRON)
