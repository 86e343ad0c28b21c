"""The table of faults is whole, and names tests that there are."""

import ast
from pathlib import Path

import pytest

from tests.faults.rows import FIGURES, ROWS

TESTS = Path(__file__).parent.parent
NAMED = {str(row.number): row.tests for row in ROWS} | {each.key: each.tests for each in FIGURES}


def functions(path):
    """The tests of a file as pytest names them: functions, classes, and methods."""
    found = set()
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.ClassDef):
            found.add(node.name)
            found.update(
                f"{node.name}::{inner.name}"
                for inner in node.body
                if isinstance(inner, ast.FunctionDef)
            )
    return found


def test_rows_are_numbered_from_one_to_seventy_six():
    assert [row.number for row in ROWS] == list(range(1, 77))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: str(row.number))
def test_row_names_tests(row):
    assert row.tests


@pytest.mark.parametrize("tests", NAMED.values(), ids=NAMED)
def test_named_tests_are_there(tests):
    for test in tests:
        file, _, name = test.partition("::")
        assert name in functions(TESTS / file), test


def test_figures_are_known_by_one_key_each():
    assert len({figure.key for figure in FIGURES}) == len(FIGURES)


def test_no_fault_test_sleeps():
    for path in Path(__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call):
                called = getattr(node.func, "attr", getattr(node.func, "id", ""))
                assert called != "sleep", f"{path.name}:{node.lineno}"
