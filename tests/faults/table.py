"""A pytest plugin: the table of faults as the run found it, and its figures as a file."""

import csv
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from tests.faults.rows import FIGURES, ROWS

__all__ = ["Table"]

TESTS = Path(__file__).parent.parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--figures", metavar="PATH", help="write the figures of this run there")


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):  # the process that hears of every test
        config.pluginmanager.register(Table(config.getoption("--figures")))


class Table:
    """Gathers the outcome of each test of the table; prints a line for each row at the end."""

    def __init__(self, path: str | None) -> None:
        self._path = path
        self._outcomes: dict[str, list[str]] = defaultdict(list)
        self._figures: dict[str, list[str]] = defaultdict(list)

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.when == "call" or report.outcome != "passed":
            function = report.nodeid.split("[", 1)[0]
            for name in (function, function.rsplit("::", 1)[0]):
                self._outcomes[name].append(report.outcome)
        if report.when == "call" and report.passed:
            for name, value in report.user_properties:
                if name == "figure":
                    key, seen = value
                    self._figures[key].append(seen)

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        terminalreporter.section("faults")
        for row in ROWS:
            outcomes = [o for test in row.tests for o in self._outcomes[f"tests/{test}"]]
            bad = [outcome for outcome in outcomes if outcome != "passed"]
            missing = [t for t in row.tests if not self._outcomes[f"tests/{t}"]] or not row.tests
            outcome = bad[0] if bad else "NOT RUN" if missing else "ok"
            terminalreporter.write_line(
                f"{row.number:3} {outcome:8} {len(outcomes):4} tests  {row.fault}"
            )
        terminalreporter.section("figures")
        lines = [(f.what, f.goal, "; ".join(self._figures[f.key]) or "not run") for f in FIGURES]
        for what, goal, seen in lines:
            terminalreporter.write_line(f"{what}: {seen} (goal: {goal})")
        if self._path:
            with Path(self._path).open("w", newline="", encoding="utf-8") as stream:
                csv.writer(stream, lineterminator="\n").writerows(
                    [("Fault", "Goal", "Seen"), *lines]
                )
