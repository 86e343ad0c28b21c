"""`python -m tests.faults` runs every test that the table of faults names."""

import sys

import pytest

from tests.faults.rows import ROWS

__all__ = ["main"]


def main(arguments: list[str]) -> int:
    """Run them, with these further arguments of pytest; return pytest's exit code."""
    tests = dict.fromkeys(f"tests/{test}" for row in ROWS for test in row.tests)
    return int(pytest.main(["-p", "tests.faults.table", *arguments, *tests]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
