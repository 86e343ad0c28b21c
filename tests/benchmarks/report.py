"""From samples to what is printed: pure functions, no clock and no process.

A side is ``nameko``, ``bare pika`` or ``threadko``; a workload is one line of the table.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

__all__ = [
    "BARE_GOAL",
    "GOALS",
    "Goal",
    "Sample",
    "best",
    "format_rates",
    "format_ratios",
    "median_ratio",
    "ratio",
]


@dataclass(frozen=True)
class Sample:
    """One measurement: how many calls in how many seconds, and the processor time they took."""

    calls: float
    elapsed: float
    cpu: float | None = None

    @property
    def rate(self) -> float:
        """Calls per second."""
        return self.calls / self.elapsed if self.elapsed else 0.0

    @property
    def cpu_ms_per_call(self) -> float | None:
        """Milliseconds of processor time, client and services together, per call."""
        if self.cpu is None or not self.calls:
            return None
        return 1_000 * self.cpu / self.calls


@dataclass(frozen=True)
class Goal:
    """threadko's rate shall be at least ``least`` times that of ``other`` in ``workload``.

    ``yardstick`` is the workload that ``other`` is measured in, if it is not the same one.
    """

    workload: str
    other: str
    least: float
    yardstick: str | None = None


#: The share of a bare pika loop's rate that threadko shall reach in every workload.
BARE_GOAL = 0.75

#: The goals of the project. Bare pika has no services that call each other: its plain client
#: does the same work over the same number of connections, so it is the yardstick there.
GOALS: Sequence[Goal] = (
    Goal("sequential", "nameko", 8),
    Goal("in flight", "nameko", 10),
    Goal("service to service", "nameko", 3.5),
    Goal("service to service, in flight", "nameko", 8),
    Goal("events", "nameko", 2),
    Goal("events, 8 threads", "nameko", 4, "events"),
    Goal("sequential", "bare pika", BARE_GOAL),
    Goal("in flight", "bare pika", BARE_GOAL),
    Goal("events", "bare pika", BARE_GOAL),
    Goal("service to service", "bare pika", BARE_GOAL, "sequential"),
    Goal("service to service, in flight", "bare pika", BARE_GOAL, "in flight"),
    Goal("in flight, computing", "bare pika", 15),
)

Results = Mapping[tuple[str, str], Sequence[Sample]]


def best(samples: Iterable[Sample]) -> Sample | None:
    """Return the sample with the highest rate, or None if there is none."""
    return max(samples, key=lambda sample: sample.rate, default=None)


def ratio(results: Results, goal: Goal) -> float | None:
    """Return threadko's best rate by the other's best; None where one of them is missing."""
    ours = best(results.get((goal.workload, "threadko"), ()))
    theirs = best(results.get((goal.yardstick or goal.workload, goal.other), ()))
    if ours is None or theirs is None or not theirs.rate:
        return None
    return ours.rate / theirs.rate


def median_ratio(results: Results, goal: Goal) -> float | None:
    """Return the median of the rounds' own ratios, which one lucky round does not move."""
    ours = results.get((goal.workload, "threadko"), ())
    theirs = results.get((goal.yardstick or goal.workload, goal.other), ())
    ratios = [a.rate / b.rate for a, b in zip(ours, theirs, strict=False) if b.rate]
    return median(ratios) if ratios else None


def format_rates(
    results: Results,
    memory: Mapping[str, float | None],
    workloads: Sequence[str],
    sides: Sequence[str],
) -> str:
    """Return the table of rates: a line per workload, a column per side; memory comes last."""
    rows = [["", *sides]]
    for workload in workloads:
        rows.append([workload, *(_rate(best(results.get((workload, s), ()))) for s in sides)])
    rows.append(["idle service", *(_memory(memory.get(side)) for side in sides)])
    return _align(rows, 1)


def format_ratios(
    results: Results, memory: Mapping[str, float | None], goals: Sequence[Goal] = GOALS
) -> str:
    """Return the table of goals: what is asked, and whether the best rounds reach it."""
    rows = [["threadko against", "", "goal", "best", "median", ""]]
    for goal in goals:
        measured = ratio(results, goal)
        reached = None if measured is None else measured >= goal.least
        rows.append(
            [
                goal.other,
                goal.workload,
                f">= {goal.least:g}",
                _number(measured),
                _number(median_ratio(results, goal)),
                _mark(reached),
            ]
        )
    ours, theirs = memory.get("threadko"), memory.get("nameko")
    share = ours / theirs if ours and theirs else None
    reached = None if share is None else share <= 1
    rows.append(
        ["nameko", "memory of the idle service", "<= 1", _number(share), "", _mark(reached)]
    )
    return _align(rows, 2)


def _rate(sample: Sample | None) -> str:
    if sample is None:
        return "-"
    cpu = sample.cpu_ms_per_call
    return f"{sample.rate:,.0f}/s" + ("" if cpu is None else f"  {cpu:.2f} ms")


def _memory(mib: float | None) -> str:
    return "-" if mib is None else f"{mib:.1f} MiB"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _mark(reached: bool | None) -> str:
    return "" if reached is None else "reached" if reached else "missed"


def _align(rows: Sequence[Sequence[str]], text_columns: int) -> str:
    """Pad columns to one width each: the first ``text_columns`` to the left, figures right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if column < text_columns else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
