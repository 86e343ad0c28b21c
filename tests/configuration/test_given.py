"""What counts as a configuration."""

import pytest

from threadko.configuration import Config
from threadko.configuration.given import as_config


class Reader:
    """What reads a file, is no mapping, and has its entries."""

    def keys(self):
        return ["AMQP_URI", "rpc_exchange"]

    def __getitem__(self, key):
        return f"the {key}"


@pytest.mark.parametrize("value", [Config(), Config({"a": 1}), {"AMQP_URI": "x"}, {"amqp_uri": ""}])
def test_what_names_a_broker_is_a_configuration(value):
    assert as_config(value) is value


def test_reader_of_a_file_becomes_a_dict():
    assert as_config(Reader()) == {"AMQP_URI": "the AMQP_URI", "rpc_exchange": "the rpc_exchange"}


@pytest.mark.parametrize(
    "value", [None, {}, {"language": "de"}, {1: 2}, "AMQP_URI", ["AMQP_URI"], 5, object()]
)
def test_other_things_are_none(value):
    assert as_config(value) is None
