"""`python -m tests.faults` runs every test that the table of faults and its figures name."""

import os
import sys
from typing import NoReturn

from tests.faults.rows import FIGURES, ROWS

__all__ = ["main"]


def main(arguments: list[str]) -> NoReturn:
    """Become a pytest that runs them, with these further arguments."""
    tests = dict.fromkeys(f"tests/{test}" for each in (*ROWS, *FIGURES) for test in each.tests)
    # A process that has imported `tests` already is no good for it: it wants to rewrite asserts.
    command = [sys.executable, "-m", "pytest", "-p", "tests.faults.table", *arguments, *tests]
    os.execv(sys.executable, command)


if __name__ == "__main__":
    main(sys.argv[1:])
