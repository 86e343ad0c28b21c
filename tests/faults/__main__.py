"""`python -m tests.faults` runs every test that the table of faults and its figures name."""

import sys

import pytest

from tests.faults.rows import FIGURES, ROWS

__all__ = ["main"]


def main(arguments: list[str]) -> int:
    """Run them, with these further arguments of pytest; return pytest's exit code."""
    tests = dict.fromkeys(f"tests/{test}" for each in (*ROWS, *FIGURES) for test in each.tests)
    return int(pytest.main(["-p", "tests.faults.table", *arguments, *tests]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
