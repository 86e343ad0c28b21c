"""Publisher options: what they mean, and what is refused where it is written down."""

import logging
from typing import Any

import pytest

from threadko.exceptions import ConfigurationError
from threadko.rpc import ClusterRpc, ServiceRpc
from threadko.rpc.options import (
    CONFIGURED,
    NO_OPTIONS,
    RESTRICTED_PUBLISHER_OPTIONS,
    read_options,
)
from threadko.standalone.rpc import ClusterRpcClient


def test_nothing_given_is_no_options() -> None:
    assert read_options({}) == (NO_OPTIONS, CONFIGURED)
    assert read_options({"serializer": None, "uri": None}) == (NO_OPTIONS, CONFIGURED)
    assert not CONFIGURED


def test_each_option_is_read() -> None:
    options, connection = read_options(
        {
            "uri": "amqp://h",
            "ssl": True,
            "login_method": "AMQPLAIN",
            "serializer": "yaml",
            "headers": {"a": 1, "b": 1},
            "extra_headers": {"b": 2},
            "expiration": 1.5,
            "priority": 3,
            "delivery_mode": 1,
            "compression": "gzip",
            "use_confirms": False,
            "app_id": "shop",
            "timestamp": 5,
        }
    )
    assert (connection.uri, connection.ssl, connection.login_method) == (
        "amqp://h",
        True,
        "AMQPLAIN",
    )
    assert connection
    assert (options.serializer, options.compression) == ("yaml", "gzip")
    assert options.headers == {"a": 1, "b": 2}
    assert (options.expiration, options.priority, options.delivery_mode) == (1.5, 3, 1)
    assert options.properties == {"app_id": "shop", "timestamp": 5}
    assert options.resends is None


@pytest.mark.parametrize(("word", "mode"), [("transient", 1), ("persistent", 2)])
def test_delivery_mode_may_be_kombus_word(word: str, mode: int) -> None:
    assert read_options({"delivery_mode": word})[0].delivery_mode == mode


@pytest.mark.parametrize(
    ("given", "resends"),
    [
        ({"retry": True}, None),
        ({"retry": False}, 0),
        ({"retry_policy": {"max_retries": 3}}, 3),
        ({"retry_policy": {"max_retries": None, "interval_start": 1}}, None),
        ({"retry": False, "retry_policy": {"max_retries": 3}}, 0),
    ],
)
def test_retry_says_how_often_a_request_is_written_again(
    given: dict[str, Any], resends: int | None
) -> None:
    assert read_options(given)[0].resends == resends


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"headers": []}, "headers must be a mapping"),
        ({"headers": {1: 2}}, "headers must be a mapping with str keys"),
        ({"headers": {"a": object()}}, "cannot be sent: header 'a'"),
        ({"expiration": -1}, "expiration must be seconds from 0"),
        ({"expiration": "5"}, "expiration must be seconds"),
        ({"expiration": True}, "expiration must be seconds"),
        ({"expiration": 1e12}, "expiration must be seconds"),
        ({"priority": 256}, "priority must be"),
        ({"priority": "high"}, "priority must be"),
        ({"delivery_mode": 3}, "delivery_mode must be"),
        ({"delivery_mode": "durable"}, "1 or 'transient', 2 or 'persistent', not 'durable'"),
        ({"compression": "rar"}, "no compression is named 'rar'"),
        ({"compression": 5}, "compression must be a name"),
        ({"serializer": 5}, "serializer must be a name"),
        ({"retry_policy": 3}, "retry_policy must be a mapping"),
        ({"retry_policy": {"max_retries": "many"}}, "max_retries in retry_policy"),
        ({"app_id": 5}, "app_id must be a str"),
        ({"timestamp": "now"}, "timestamp must be whole seconds"),
    ],
)
@pytest.mark.parametrize(
    "declare", [ClusterRpc, lambda **o: ServiceRpc("x", **o), ClusterRpcClient]
)
def test_unusable_value_is_refused_where_it_is_declared(
    declare: Any, given: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigurationError, match=words):
        declare(**given)


@pytest.mark.parametrize(
    "declare", [ClusterRpc, lambda **o: ServiceRpc("x", **o), ClusterRpcClient]
)
def test_unknown_option_is_refused_with_those_there_are(declare: Any) -> None:
    with pytest.raises(TypeError, match="no option is named 'colour', there are: app_id, "):
        declare(colour="red")


def test_what_the_protocol_chooses_is_dropped_with_one_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    given = dict.fromkeys(RESTRICTED_PUBLISHER_OPTIONS, "x")
    for _ in range(2):
        assert read_options(given) == (NO_OPTIONS, CONFIGURED)
    warnings = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warnings) <= 1  # once in a process, and another test may have been the first
