"""Calls without a pause, in spite of everything: none is lost, and nothing grows."""

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from tests.faults.soak import PARTS, Record, Soak, main
from tests.support.held import Held
from tests.support.timing import TIMEOUT


@pytest.mark.long
@pytest.mark.timeout(60 * TIMEOUT)
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_nothing_is_lost_and_nothing_grows(broker_uri, tmp_path, figure):
    record = Soak(broker_uri, tmp_path, 20_000, click.echo).run()
    assert record.faults() == []
    assert record.cuts > PARTS
    assert record.terms >= 2
    assert record.kills >= 2
    growth = ", ".join(f"{who} {record.growth(who):+.1f} %" for who in record.held)
    figure(
        "soak",
        f"{record.calls:,} calls, {record.cuts} cuts, {record.terms} SIGTERM,"
        f" {record.kills} SIGKILL;"
        f" {record.lost} lost, {record.failed} failed, {record.again} run again; memory of the"
        f" {growth}; threads and descriptors equal",
    )


def record_with(*held, **counts):
    return Record(1_000, seconds=2.0, held={"callers": list(held)}, **counts)


@pytest.mark.parametrize(
    ("record", "fault"),
    [
        (
            record_with(Held(1000, 5, 9), Held(1051, 5, 9)),
            "memory of the callers: 1000 to 1051 KiB",
        ),
        (record_with(Held(1000, 5, 9), Held(1000, 6, 9)), "threads=6"),
        (record_with(Held(1000, 5, 9), Held(1000, 5, 8)), "descriptors=8"),
        (record_with(Held(1000, 5, 9), Held(1000, 5, 9), lost=1), "lost: 1"),
        (record_with(Held(1000, 5, 9), Held(1000, 5, 9), failed=2), "failed: 2"),
        (record_with(Held(1000, 5, 9), Held(1000, 5, 9), left=3), "left: 3"),
        (record_with(Held(1000, 5, 9), Held(1000, 5, 9), pending=4), "pending: 4"),
    ],
)
def test_fault_ends_the_command_with_one(record, fault, monkeypatch, tmp_path):
    monkeypatch.setattr(Soak, "run", lambda self: record)
    monkeypatch.setenv("AMQP_URI", "amqp://nobody")
    path = tmp_path / "soak.csv"
    result = CliRunner().invoke(main, ["--calls", "1000", "--figures", str(path)])
    assert result.exit_code == 1
    assert f"fault: {fault}" in result.output or fault in result.output.split("fault: ")[1]
    assert path.read_text().startswith('Soak,Seen\ncalls,"1,000"\n')


def test_up_to_five_percent_of_memory_is_no_fault():
    first, last = Held(1000, 5, 9), Held(1050, 5, 9)
    assert record_with(first, Held(2000, 9, 12), last, again=5).faults() == []
