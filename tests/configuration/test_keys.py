"""The table of keys, and what looks like one of them."""

import logging

import pytest

from threadko import constants
from threadko.configuration.keys import KEYS, find_key, warn_near_misses


@pytest.mark.parametrize("name", sorted(KEYS))
def test_each_key_says_what_it_means(name: str) -> None:
    assert KEYS[name].name == name
    assert KEYS[name].doc


def test_a_near_miss_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        warn_near_misses({"MAX_WORKRES": 5, "MY_OWN": 1, 5: 6})  # type: ignore[dict-item]
    assert len(caplog.records) == 1
    assert caplog.records[0].levelno == logging.WARNING
    assert "MAX_WORKRES" in caplog.text
    assert "max_workers" in caplog.text


def test_a_near_miss_of_a_variable_is_warned_of_by_its_own_name(
    caplog: pytest.LogCaptureFixture,
) -> None:
    names = ["THREADKO_AMQP_URL", "AMQP_URL", "THREADKO_AMQP_URI", "THREADKO_OWN"]
    warn_near_misses(names, "THREADKO_")
    (record,) = caplog.records
    assert "THREADKO_AMQP_URL" in record.getMessage()
    assert "is THREADKO_AMQP_URI meant" in record.getMessage()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("HEARTBEAT", "HEARTBEAT"),
        ("heartBeat", "HEARTBEAT"),
        ("MAX_WORKERS", "max_workers"),
        ("TRANSPORT_OPTIONS", "TRANSPORT_OPTIONS"),
        ("OWN", None),
        ("", None),
    ],
)
def test_a_key_is_found_in_any_case(name: str, expected: str | None) -> None:
    assert find_key(name) == expected


def test_known_keys_are_no_near_misses(caplog: pytest.LogCaptureFixture) -> None:
    known = [value for name, value in vars(constants).items() if name.endswith("_CONFIG_KEY")]
    warn_near_misses(dict.fromkeys([*KEYS, *known, "HEARTBEAT".lower(), "EVENT_QUEUE_ARGUMENTS"]))
    assert caplog.records == []
