"""Values that keys refuse, and how they say so."""

import math
from typing import Any

import pytest

from threadko.configuration.keys import KEYS
from threadko.exceptions import ConfigurationError


def read(key: str, value: object) -> Any:
    return KEYS[key].read({key.lower(): value})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("AMQP_URI", 5),
        ("AMQP_URI", "  "),
        ("AMQP_URI", []),
        ("AMQP_URI", ["amqp://a/", ""]),
        ("AMQP_SSL", "yes"),
        ("LOGIN_METHOD", 5),
        ("HEARTBEAT", 0),
        ("HEARTBEAT", None),
        ("HEARTBEAT", False),
        ("HEARTBEAT", "20"),
        ("HEARTBEAT", 0.5),
        ("HEARTBEAT", 70_000),
        ("PUBLISH_TIMEOUT", 0),
        ("PUBLISH_TIMEOUT", -1),
        ("PUBLISH_TIMEOUT", math.nan),
        ("PUBLISH_TIMEOUT", math.inf),
        ("PUBLISH_TIMEOUT", "10"),
        ("PUBLISH_WINDOW", 0),
        ("BROKER_START_TIMEOUT", True),
        ("MAX_MESSAGE_SIZE", -1),
        ("MAX_MESSAGE_SIZE", math.inf),
        ("LOG_FORMAT", "xml"),
        ("HEALTH_ADDRESS", True),
        ("HEALTH_HUNG_TIMEOUT", 0),
        ("max_workers", -1),
        ("max_workers", True),
        ("max_workers", "many"),
        ("PREFETCH_COUNT", -1),
        ("PREFETCH_COUNT", 65_536),
        ("parent_calls_tracked", 1.5),
        ("serializer", 5),
        ("serializer", ""),
        ("ACCEPT", "json"),
        ("ACCEPT", []),
        ("ACCEPT", ["json", 5]),
        ("ACCEPT", {"json": 1}),
        ("SHUTDOWN_TIMEOUT", -0.1),
        ("CONSUMER_WATCHDOG", -1),
        ("CONSUMER_WATCHDOG", "often"),
        ("STUCK_WARNING", -1),
        ("STUCK_WARNING", "long"),
        ("rpc_exchange", ""),
        ("RPC_TIMEOUT", 0),
        ("RPC_QUEUE_ARGUMENTS", [1]),
        ("RPC_QUEUE_ARGUMENTS", {1: 2}),
        ("SWITCH_INTERVAL", 0),
        ("LOGGING", "debug"),
        ("SERVICE_CONTAINER_CLS", ""),
        ("SERVICE_CONTAINER_CLS", "package:Class"),
        ("SERVICE_CONTAINER_CLS", dict),
    ],
)
def test_a_bad_value_is_an_error_that_names_the_key(key: str, value: object) -> None:
    with pytest.raises(ConfigurationError, match=key):
        read(key, value)


def test_an_error_names_the_value_and_what_is_allowed() -> None:
    with pytest.raises(ConfigurationError) as caught:
        read("max_workers", "many")
    assert str(caught.value) == "max_workers must be a whole number from 0 to 10000, not 'many'"


def test_no_heartbeat_is_refused_with_the_reason() -> None:
    with pytest.raises(ConfigurationError, match="dead connection is never noticed"):
        read("HEARTBEAT", 0)


@pytest.mark.parametrize(
    ("key", "value"), [("AMQP_URI", {"password": "secret"}), ("LOGGING", ["secret"])]
)
def test_an_error_shows_no_secret(key: str, value: object) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read(key, value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("key", ["HEARTBEAT", "max_workers", "PUBLISH_TIMEOUT", "MAX_MESSAGE_SIZE"])
@pytest.mark.parametrize("value", [10**400, -(10**400), float("inf"), float("nan"), 1e308])
def test_a_number_out_of_all_bounds_is_refused_like_any_other(key, value):
    with pytest.raises(ConfigurationError, match=key):
        read(key, value)


def test_more_workers_than_threads_can_be_made_are_refused():
    with pytest.raises(ConfigurationError, match="max_workers must be a whole number from 0 to"):
        read("max_workers", 1_000_000)
