"""Keys, defaults and checks."""

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from threadko.configuration import Config
from threadko.configuration.keys import KEYS
from threadko.configuration.settings import (
    BrokerSettings,
    ContainerSettings,
    HealthSettings,
    ProcessSettings,
    RpcSettings,
    RunnerSettings,
    SerializationSettings,
)

ALL_SETTINGS = (
    BrokerSettings,
    ContainerSettings,
    RpcSettings,
    ProcessSettings,
    HealthSettings,
    RunnerSettings,
    SerializationSettings,
)


def read_all(config: dict[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for settings in ALL_SETTINGS:
        values |= vars(settings.from_config(config))
    return values


def test_nothing_configured_gives_the_defaults() -> None:
    assert read_all({}) == {
        "uri": "amqp://guest:guest@localhost:5672/",
        "ssl": None,
        "login_method": None,
        "heartbeat": 20,
        "publish_timeout": 10.0,
        "publish_window": 1000,
        "start_timeout": None,
        "consumer_watchdog": 0.0,
        "max_message_size": 16 * 1024 * 1024,
        "max_workers": 10,
        "prefetch_count": 20,
        "parent_calls_tracked": 10,
        "serializer": "json",
        "accept": ("json",),
        "serializers": (),
        "shutdown_timeout": 25.0,
        "stuck_warning": 60.0,
        "exchange": "nameko-rpc",
        "timeout": None,
        "queue_arguments": {},
        "switch_interval": 0.0005,
        "logging": None,
        "log_format": "text",
        "address": None,
        "hung_timeout": 1800.0,
        "container_cls": None,
    }


def test_none_is_the_default_where_it_is_not_refused_and_means_nothing_else() -> None:
    others = ("HEARTBEAT", "STUCK_WARNING")
    assert read_all({name: None for name in KEYS if name not in others}) == read_all({})


@pytest.mark.parametrize(
    ("key", "value", "setting", "expected"),
    [
        ("AMQP_URI", " amqp://h/ ", "uri", "amqp://h/"),
        ("AMQP_URI", ["amqp://a/"], "uri", "amqp://a/"),
        ("AMQP_URI", ["amqp://a/ ", "amqp://b/"], "uri", ("amqp://a/", "amqp://b/")),
        ("AMQP_SSL", True, "ssl", True),
        ("AMQP_SSL", {"ca_certs": "x"}, "ssl", {"ca_certs": "x"}),
        ("LOGIN_METHOD", "AMQPLAIN", "login_method", "AMQPLAIN"),
        ("HEARTBEAT", 5.0, "heartbeat", 5),
        ("PUBLISH_TIMEOUT", 3, "publish_timeout", 3.0),
        ("PUBLISH_WINDOW", 1, "publish_window", 1),
        ("BROKER_START_TIMEOUT", 30, "start_timeout", 30.0),
        ("CONSUMER_WATCHDOG", 10, "consumer_watchdog", 10.0),
        ("MAX_MESSAGE_SIZE", 1024, "max_message_size", 1024),
        ("max_workers", 3, "max_workers", 3),
        ("max_workers", 3, "prefetch_count", 6),
        ("max_workers", 0, "max_workers", 10),
        ("PREFETCH_COUNT", 7, "prefetch_count", 7),
        ("parent_calls_tracked", 0, "parent_calls_tracked", 0),
        ("serializer", "yaml", "accept", ("yaml",)),
        ("ACCEPT", ["json", "yaml"], "accept", ("json", "yaml")),
        ("SHUTDOWN_TIMEOUT", 0, "shutdown_timeout", 0.0),
        ("STUCK_WARNING", 0, "stuck_warning", None),
        ("STUCK_WARNING", None, "stuck_warning", None),
        ("STUCK_WARNING", 5, "stuck_warning", 5.0),
        ("rpc_exchange", "other", "exchange", "other"),
        ("RPC_TIMEOUT", 0.5, "timeout", 0.5),
        ("RPC_QUEUE_ARGUMENTS", {"x-a": 1}, "queue_arguments", {"x-a": 1}),
        ("SWITCH_INTERVAL", 0.01, "switch_interval", 0.01),
        ("LOGGING", {"version": 1}, "logging", {"version": 1}),
        ("SERVICE_CONTAINER_CLS", "package.Class", "container_cls", "package.Class"),
        ("LOG_FORMAT", "json", "log_format", "json"),
        ("HEALTH_ADDRESS", 8001, "address", 8001),
        ("HEALTH_HUNG_TIMEOUT", 5, "hung_timeout", 5.0),
    ],
)
def test_a_good_value_is_taken(key: str, value: object, setting: str, expected: object) -> None:
    result = read_all({key: value})[setting]
    assert result == expected
    assert type(result) is type(expected)


def test_the_repr_of_broker_settings_shows_no_password() -> None:
    assert "secret" not in repr(BrokerSettings.from_config({"AMQP_URI": "amqp://u:secret@h"}))


def test_no_prefetch_limit_becomes_the_default_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    settings = ContainerSettings.from_config({"PREFETCH_COUNT": 0, "max_workers": 4})
    assert settings.prefetch_count == 8
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "PREFETCH_COUNT" in caplog.text


def test_keys_are_matched_without_regard_to_case() -> None:
    assert BrokerSettings.from_config({"heartbeat": 7}).heartbeat == 7
    assert ContainerSettings.from_config({"MAX_WORKERS": 7}).max_workers == 7


@pytest.mark.parametrize("order", [["heartbeat", "HEARTBEAT"], ["HEARTBEAT", "heartbeat"]])
def test_the_proper_spelling_wins_over_another_one(order: list[str]) -> None:
    values = {"heartbeat": 7, "HEARTBEAT": 8}
    assert BrokerSettings.from_config({key: values[key] for key in order}).heartbeat == 8


def test_other_keys_are_left_alone() -> None:
    assert read_all({5: 6, "MY_OWN": object()}) == read_all({})  # type: ignore[dict-item]


def test_a_config_object_is_read_like_a_dict() -> None:
    assert RpcSettings.from_config(Config(RPC_TIMEOUT=3)).timeout == 3.0


class Replaced(Config):
    """A configuration that another thread empties while it is gone through key by key."""

    def __iter__(self) -> Iterator[str]:
        for key in self.data:
            self.clear()
            yield key


def test_a_configuration_is_read_whole_while_another_thread_replaces_it() -> None:
    assert ContainerSettings.from_config(Replaced(max_workers=3, own=1)).max_workers == 3


def test_changing_the_configuration_later_changes_no_settings() -> None:
    arguments = {"x-a": 1}
    settings = RpcSettings.from_config({"RPC_QUEUE_ARGUMENTS": arguments})
    arguments["x-b"] = 2
    assert settings.queue_arguments == {"x-a": 1}
