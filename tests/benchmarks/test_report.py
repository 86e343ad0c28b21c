"""The figures of the benchmarks: what is best, what a ratio is, and how the tables read."""

import pytest

from tests.benchmarks.report import (
    Goal,
    Sample,
    best,
    format_rates,
    format_ratios,
    median_ratio,
    ratio,
)


def test_the_rate_is_calls_by_seconds_when_time_has_passed() -> None:
    assert Sample(calls=300, elapsed=2.0).rate == 150


def test_the_rate_is_nothing_when_no_time_has_passed() -> None:
    assert Sample(calls=0, elapsed=0.0).rate == 0


def test_cpu_per_call_is_in_milliseconds_when_it_was_measured() -> None:
    assert Sample(calls=500, elapsed=1.0, cpu=0.25).cpu_ms_per_call == pytest.approx(0.5)


@pytest.mark.parametrize(
    "sample", [Sample(500, 1.0, None), Sample(0, 1.0, 0.25)], ids=["no /proc", "no calls"]
)
def test_cpu_per_call_is_unknown_when_a_part_of_it_is_missing(sample: Sample) -> None:
    assert sample.cpu_ms_per_call is None


def test_the_highest_rate_is_best_when_rounds_differ() -> None:
    fastest = Sample(90, 1.0)

    assert best([Sample(100, 2.0), fastest, Sample(80, 1.0)]) is fastest


def test_nothing_is_best_when_nothing_was_measured() -> None:
    assert best([]) is None


def test_the_ratio_compares_the_best_rounds_when_both_sides_were_measured() -> None:
    results = {
        ("echo", "threadko"): [Sample(100, 1.0), Sample(800, 1.0)],
        ("echo", "nameko"): [Sample(100, 1.0), Sample(50, 1.0)],
    }

    assert ratio(results, Goal("echo", "nameko", 4)) == 8


def test_the_ratio_takes_the_other_workload_when_the_goal_names_a_yardstick() -> None:
    results = {
        ("hop", "threadko"): [Sample(50, 1.0)],
        ("hop", "bare pika"): [Sample(1, 1.0)],
        ("echo", "bare pika"): [Sample(100, 1.0)],
    }

    assert ratio(results, Goal("hop", "bare pika", 0.75, "echo")) == 0.5


@pytest.mark.parametrize("missing", ["threadko", "nameko"])
def test_there_is_no_ratio_when_a_side_was_not_measured(missing: str) -> None:
    results = {("echo", side): [Sample(1, 1.0)] for side in ("threadko", "nameko")}
    del results["echo", missing]

    assert ratio(results, Goal("echo", "nameko", 4)) is None


def test_there_is_no_ratio_when_the_other_side_answered_nothing() -> None:
    results = {("echo", "threadko"): [Sample(1, 1.0)], ("echo", "nameko"): [Sample(0, 1.0)]}

    assert ratio(results, Goal("echo", "nameko", 4)) is None


def test_the_median_ratio_pairs_the_rounds_when_one_of_them_was_odd() -> None:
    results = {
        ("echo", "threadko"): [Sample(100, 1.0), Sample(200, 1.0), Sample(900, 1.0)],
        ("echo", "nameko"): [Sample(50, 1.0), Sample(40, 1.0), Sample(100, 1.0)],
    }

    assert median_ratio(results, Goal("echo", "nameko", 4)) == 5


def test_there_is_no_median_ratio_when_a_side_answered_nothing() -> None:
    results = {("echo", "threadko"): [Sample(1, 1.0)], ("echo", "nameko"): [Sample(0, 1.0)]}

    assert median_ratio(results, Goal("echo", "nameko", 4)) is None


def test_the_table_of_rates_shows_a_dash_where_nothing_was_measured() -> None:
    results = {
        ("echo", "nameko"): [Sample(100, 1.0, 0.5)],
        ("echo", "threadko"): [Sample(12_345, 1.0)],
        ("busy", "threadko"): [Sample(10, 1.0)],
    }

    table = format_rates(results, {"nameko": 64.25}, ["echo", "busy"], ["nameko", "threadko"])

    assert table.splitlines() == [
        "                      nameko  threadko",
        "echo          100/s  5.00 ms  12,345/s",
        "busy                       -      10/s",
        "idle service        64.2 MiB         -",
    ]


def test_the_table_of_goals_says_which_are_reached_and_which_are_missed() -> None:
    results = {
        ("echo", "nameko"): [Sample(100, 1.0)],
        ("echo", "threadko"): [Sample(500, 1.0)],
    }
    goals = [Goal("echo", "nameko", 4), Goal("echo", "nameko", 8), Goal("echo", "bare pika", 0.75)]

    table = format_ratios(results, {"threadko": 30.0, "nameko": 60.0}, goals)

    assert [line.split() for line in table.splitlines()] == [
        ["threadko", "against", "goal", "best", "median"],
        ["nameko", "echo", ">=", "4", "5.00", "5.00", "reached"],
        ["nameko", "echo", ">=", "8", "5.00", "5.00", "missed"],
        ["bare", "pika", "echo", ">=", "0.75", "-", "-"],
        ["nameko", "memory", "of", "the", "idle", "service", "<=", "1", "0.50", "reached"],
    ]


def test_memory_misses_its_goal_when_threadko_takes_more() -> None:
    table = format_ratios({}, {"threadko": 61.0, "nameko": 60.0}, [])

    assert table.splitlines()[-1].split()[-2:] == ["1.02", "missed"]
