"""Options of consumers: what they mean, and what is refused where it is written down."""

import pytest

from threadko.amqp.options import ConsumerOptions
from threadko.exceptions import ConfigurationError


def test_nothing_given_is_what_is_configured():
    assert ConsumerOptions.read({}) == ConsumerOptions(None, None, None)
    assert ConsumerOptions.read({"prefetch_count": None}) == ConsumerOptions()
    assert str(ConsumerOptions()) == ""


def test_each_option_is_read():
    options = ConsumerOptions.read({"heartbeat": 5, "prefetch_count": 0, "accept": ["json"]})
    assert (options.heartbeat, options.prefetch_count) == (5, 0)
    assert options.accept == ("json",)
    assert str(options) == "heartbeat=5, prefetch_count=0, accept=('json',)"


def test_same_options_are_one_key():
    keys = {ConsumerOptions(accept=["json"]), ConsumerOptions(accept=("json",)), ConsumerOptions()}
    assert len(keys) == 2


def test_unknown_option_is_named_with_those_that_there_are():
    with pytest.raises(TypeError, match="'colour', there are: accept, heartbeat, prefetch_count"):
        ConsumerOptions.read({"colour": "red", "heartbeat": 5})


@pytest.mark.parametrize(
    "options",
    [
        *({"heartbeat": value} for value in (0, -1, 65536, 1.5, True, "5")),
        *({"prefetch_count": value} for value in (-1, 65536, 1.5, True, "5")),
        *({"accept": value} for value in ("json", 5, [5], [["json"]], iter(["json"]))),
    ],
)
def test_unusable_value_is_refused_by_name(options):
    (name,) = options
    with pytest.raises(ConfigurationError, match=name):
        ConsumerOptions.read(options)
