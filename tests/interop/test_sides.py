"""The frameworks that the interoperability tests start: what is said when one is not there."""

import sys

import pytest

from tests.interop.sides import THREADKO, Framework

OTHER = Framework("other", "nameko", "nameko 9.9", "THREADKO_TEST_OTHER_PYTHON")


def test_the_test_is_skipped_with_what_to_run_when_a_python_is_not_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(OTHER.variable, raising=False)

    with pytest.raises(pytest.skip.Exception) as caught:
        assert OTHER.python

    assert str(caught.value) == (
        "THREADKO_TEST_OTHER_PYTHON names no Python with nameko 9.9: run `make interop`"
    )


def test_the_named_python_is_used_when_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(OTHER.variable, "/there/python")

    assert OTHER.python == "/there/python"
    assert THREADKO.python == sys.executable
