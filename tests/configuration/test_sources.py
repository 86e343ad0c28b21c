"""File, environment and definitions, put together."""

import pytest

from threadko.configuration.keys import KEYS
from threadko.configuration.sources import (
    Source,
    SourcedConfig,
    merge_sources,
    read_defines,
    read_environment,
)
from threadko.exceptions import ConfigurationError


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, {}),
        ({"THREADKO_AMQP_URI": "amqp://u:p@h:1/v"}, {"AMQP_URI": "amqp://u:p@h:1/v"}),
        ({"THREADKO_MAX_WORKERS": "5"}, {"max_workers": 5}),
        ({"THREADKO_max_workers": "5"}, {"max_workers": 5}),
        ({"THREADKO_max_workers": "5", "THREADKO_MAX_WORKERS": "6"}, {"max_workers": 6}),
        ({"THREADKO_ACCEPT": "[json, yaml]"}, {"ACCEPT": ["json", "yaml"]}),
        ({"THREADKO_RPC_QUEUE_ARGUMENTS": "{x-a: 1}"}, {"RPC_QUEUE_ARGUMENTS": {"x-a": 1}}),
        ({"THREADKO_RPC_TIMEOUT": "null"}, {"RPC_TIMEOUT": None}),
        ({"THREADKO_RPC_TIMEOUT": ""}, {}),
        ({"THREADKO_RPC_TIMEOUT": "  "}, {}),
        (
            {"THREADKO_TRANSPORT_OPTIONS": "{max_retries: 1}"},
            {"TRANSPORT_OPTIONS": {"max_retries": 1}},
        ),
        ({"THREADKO_MY_OWN": "1", "THREADKO_": "1", "threadko_AMQP_URI": "x"}, {}),
        ({"AMQP_URI": "x", "MAX_WORKERS": "5", "NAMEKO_AMQP_URI": "x"}, {}),
        ({"THREADKO_AMQP_URI": "${HOME}", "HOME": "h"}, {"AMQP_URI": "${HOME}"}),
        ({"THREADKO_AMQP_URI": "amqp://u:p #q@h"}, {"AMQP_URI": "amqp://u:p #q@h"}),
    ],
)
def test_known_keys_are_read_from_the_environment(environ, expected):
    assert read_environment(environ) == expected


def test_every_known_key_can_be_set_in_the_environment():
    environ = {f"THREADKO_{name.upper()}": "1" for name in KEYS}
    assert read_environment(environ) == dict.fromkeys(KEYS, 1)


@pytest.mark.parametrize("text", ["[secret", "!env_var secret", "*secret"])
def test_bad_variable_is_an_error_that_names_it_and_shows_no_value(text):
    with pytest.raises(ConfigurationError, match="variable THREADKO_AMQP_URI is not") as caught:
        read_environment({"THREADKO_AMQP_URI": text})
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ([], {}),
        (["a=1", "b=[x]", "a=2"], {"a": 2, "b": ["x"]}),
        (["HEARTBEAT=5", "heartbeat=6"], {"HEARTBEAT": 6}),
        (["own=5", "OWN=6"], {"own": 5, "OWN": 6}),
        (["own"], {"own": True}),
        (["RPC_TIMEOUT="], {"RPC_TIMEOUT": None}),
    ],
)
def test_last_definition_of_a_key_counts(texts, expected):
    assert read_defines(texts) == expected


@pytest.mark.parametrize("key", ["AMQP_URI", "heartbeat", "max_workers", "ACCEPT", "LOGGING"])
def test_definition_without_its_value_is_an_error_that_says_so(key):
    with pytest.raises(ConfigurationError) as caught:
        read_defines([key])
    assert str(caught.value) == f"the definition of {key} has no value; give one, as in {key}=VALUE"


def test_later_sources_win():
    merged = merge_sources(
        file={"a": 1, "b": 1, "c": 1},
        environment={"b": 2, "c": 2, "d": 2},
        defines={"c": 3, "e": 3},
    )
    assert merged.values == {"a": 1, "b": 2, "c": 3, "d": 2, "e": 3}
    given = {key: source for key, source in merged.sources.items() if key in merged.values}
    assert given == {
        "a": Source.FILE,
        "b": Source.ENVIRONMENT,
        "c": Source.DEFINE,
        "d": Source.ENVIRONMENT,
        "e": Source.DEFINE,
    }


@pytest.mark.parametrize("spelling", ["HEARTBEAT", "heartbeat", "Heartbeat"])
@pytest.mark.parametrize("other", ["HEARTBEAT", "heartbeat"])
def test_known_key_is_replaced_however_it_is_spelt_and_keeps_its_first_spelling(spelling, other):
    merged = merge_sources(file={spelling: 5}, defines={other: 6})
    assert merged.values == {spelling: 6}
    assert merged.sources[spelling] is Source.DEFINE
    assert Source.DEFAULT not in {merged.sources.get(name) for name in ("HEARTBEAT", spelling)}


def test_key_in_two_spellings_is_replaced_in_both():
    merged = merge_sources(file={"HEARTBEAT": 5, "heartbeat": 6}, environment={"HEARTBEAT": 7})
    assert merged.values == {"HEARTBEAT": 7, "heartbeat": 7}


def test_users_own_keys_are_told_apart_by_case():
    merged = merge_sources(file={"own": 5}, defines={"OWN": 6})
    assert merged.values == {"own": 5, "OWN": 6}


def test_defaults_have_a_source_and_no_value():
    merged = merge_sources(file={"rpc_timeout": 5})
    defaults = [key for key, source in merged.sources.items() if source is Source.DEFAULT]
    assert defaults == [key for key in KEYS if key != "RPC_TIMEOUT"]
    assert merged.values == {"rpc_timeout": 5}


def test_sources_are_left_as_they_are():
    file, environment = {"a": 1}, {"a": 2}
    merge_sources(file=file, environment=environment, defines={"a": 3}).values["a"] = 4
    assert (file, environment) == ({"a": 1}, {"a": 2})


def test_repr_shows_no_value():
    shown = repr(SourcedConfig({"AMQP_URI": "amqp://u:secret@h"}, {"AMQP_URI": Source.FILE}))
    assert shown == "<SourcedConfig AMQP_URI>"
