"""`python -m tests.faults`: the fault suite, this folder and what its table names elsewhere."""

import os
import sys
from typing import NoReturn

from tests.faults.rows import FIGURES, ROWS

__all__ = ["main"]


def main(arguments: list[str]) -> NoReturn:
    """Become a pytest that runs them, with these further arguments."""
    named = dict.fromkeys(f"tests/{test}" for each in (*ROWS, *FIGURES) for test in each.tests)
    elsewhere = [test for test in named if not test.startswith("tests/faults/")]
    # A process that has imported `tests` already is no good for it: it wants to rewrite asserts.
    command = [sys.executable, "-m", "pytest", "-p", "tests.faults.table"]
    os.execv(sys.executable, [*command, *arguments, "tests/faults", *elsewhere])


if __name__ == "__main__":
    main(sys.argv[1:])
