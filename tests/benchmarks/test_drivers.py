"""The figures of the drivers' benchmark, and what it says when something is missing."""

import pytest

from tests.benchmarks import drivers


def test_best_times_are_compared() -> None:
    text = drivers.format_times({"nameko": [5.6, 5.3], "threadko": [0.7, 0.53]})
    assert text.splitlines() == [
        "50 calls, each waiting 100 ms in MariaDB through mysqlclient, 10 workers:",
        "  nameko: 5.30 s",
        "  threadko: 0.53 s",
        "  10.0 times faster, goal 8",
    ]


def test_missing_server_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drivers, "MYSQL_URL", "mysql://root@127.0.0.1:1/test")
    text = drivers.describe_drivers("python", "amqp://", 1)
    assert text.startswith("drivers in C: not measured, no MariaDB at MYSQL_URL")
    assert "apt-get install mariadb-server" in text
