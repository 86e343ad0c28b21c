"""Dispatching events from programs that are no services."""

import json
import threading

import pytest

from tests.support import amqp
from tests.support.timing import TIMEOUT
from threadko.amqp import UndeliverableMessage
from threadko.exceptions import ConfigurationError, EncodeError, PublishFailed
from threadko.standalone.events import event_dispatcher, get_event_exchange


@pytest.fixture
def source(names):
    return names.service("source")


@pytest.fixture
def bound(broker_uri, names, source, amqp_config):
    """A queue that gets all events of the source."""
    with event_dispatcher(config=amqp_config) as dispatch:
        dispatch(source, "first", 1)  # declares the exchange
    name = names.queue()
    return amqp.declare_queue(broker_uri, name, exchange=f"{source}.events", routing_key="#")


def test_event_has_nameko_s_form(broker_uri, source, bound, amqp_config):
    with event_dispatcher(config=amqp_config) as dispatch:
        dispatch(source, "sold", {"car": 1})
    message = amqp.expect_message(broker_uri, bound)
    assert json.loads(message.body) == {"car": 1}
    assert message.method.exchange == get_event_exchange(source).name == f"{source}.events"
    assert message.method.routing_key == "sold"
    properties = message.properties
    assert (properties.content_type, properties.content_encoding) == ("application/json", "utf-8")
    assert (properties.delivery_mode, properties.priority) == (2, 0)
    assert (properties.headers, properties.correlation_id, properties.reply_to) == ({}, None, None)


def test_configuration_may_come_first_as_in_nameko_2(broker_uri, source, bound, amqp_config):
    with event_dispatcher(amqp_config, headers={"a": "b"}) as dispatch:
        dispatch(source, "sold", 1)
    assert amqp.expect_message(broker_uri, bound).properties.headers == {"a": "b"}
    with pytest.raises(TypeError, match="twice"):
        event_dispatcher(amqp_config, config=amqp_config)


def test_options_are_those_of_a_publisher(broker_uri, source, bound):
    dispatch = event_dispatcher(
        broker_uri, serializer="yaml", headers={"nameko.language": "de"}, exchange="ignored"
    )
    dispatch(source, "sold", [1])
    dispatch.close()
    properties = amqp.expect_message(broker_uri, bound).properties
    assert properties.content_type == "application/x-yaml"
    assert properties.headers == {"nameko.language": "de"}
    with pytest.raises(TypeError, match="no option is named"):
        event_dispatcher(broker_uri, colour="red")


def test_options_come_before_the_configuration_and_none_is_no_option(source, broker_uri):
    config = {"AMQP_URI": broker_uri, "MAX_MESSAGE_SIZE": 100, "PUBLISH_WINDOW": 5}
    with event_dispatcher(config=config, max_message_size=3) as dispatch:
        with pytest.raises(EncodeError, match="allows 3"):
            dispatch(source, "sold", "more than three")
    with event_dispatcher(config=config, max_message_size=None, window=None) as dispatch:
        dispatch(source, "sold", "more than three")
        with pytest.raises(EncodeError, match="allows 100"):
            dispatch(source, "sold", "x" * 100)


@pytest.mark.parametrize("name", ["window", "max_message_size"])
@pytest.mark.parametrize("value", [0, -1, "x", 1.5, True])
def test_numbers_that_are_none_are_refused_at_once(name, value):
    with pytest.raises(ConfigurationError, match=f"{name} must be a whole number above 0"):
        event_dispatcher("amqp://localhost", **{name: value})


def test_connection_of_a_closed_dispatcher_ends_though_its_error_is_kept(source, broker_uri):
    before = set(threading.enumerate())
    with event_dispatcher(broker_uri, mandatory=True, heartbeat=77) as dispatch:
        with pytest.raises(UndeliverableMessage) as kept:
            dispatch(source, "sold", 1)
    assert kept.value.__traceback__ is not None
    left = [each for each in set(threading.enumerate()) - before if "-publisher-" in each.name]
    assert left == []


def test_mandatory_event_that_nobody_handles_is_an_error(source, amqp_config):
    with event_dispatcher(config=amqp_config, mandatory=True) as dispatch:
        with pytest.raises(UndeliverableMessage):
            dispatch(source, "sold", 1)


@pytest.mark.parametrize("delay", [0, -1, "1", True])
def test_delay_that_is_none_is_an_error(source, amqp_config, delay):
    with event_dispatcher(config=amqp_config) as dispatch:
        with pytest.raises(ConfigurationError, match="delay must be seconds"):
            dispatch(source, "sold", 1, delay=delay)


@pytest.mark.parametrize("event_type", [None, "", 5, b"sold"])
def test_type_that_is_no_name_is_an_error(source, amqp_config, event_type):
    with event_dispatcher(config=amqp_config) as dispatch:
        with pytest.raises(EncodeError, match="the type of an event must be a name"):
            dispatch(source, event_type, 1)


def test_exchange_that_is_not_to_be_declared_must_be_there(source, amqp_config):
    config = {**amqp_config, "DECLARE_EVENT_EXCHANGES": False}
    with event_dispatcher(config=config) as dispatch:
        with pytest.raises(PublishFailed, match="404"):
            dispatch(source, "sold", 1)


def test_configured_limit_of_a_message_is_that_of_events_too(source, amqp_config):
    with event_dispatcher(config={**amqp_config, "MAX_MESSAGE_SIZE": 10}) as dispatch:
        with pytest.raises(EncodeError, match="MAX_MESSAGE_SIZE allows 10"):
            dispatch(source, "sold", "x" * 11)
    with event_dispatcher(config={**amqp_config, "MAX_MESSAGE_SIZE": 20 * 2**20}) as dispatch:
        dispatch(source, "sold", "x" * (17 * 2**20))


def test_closed_dispatcher_says_so(source, amqp_config):
    dispatch = event_dispatcher(config=amqp_config)
    dispatch.close()
    with pytest.raises(RuntimeError, match="closed"):
        dispatch(source, "sold", 1)


def test_absent_broker_is_an_error_by_the_deadline(source):
    config = {"AMQP_URI": "amqp://localhost:1/", "PUBLISH_TIMEOUT": 0.1}
    with event_dispatcher(config=config) as dispatch:
        with pytest.raises(PublishFailed, match="nothing was sent"):
            dispatch(source, "sold", 1)


def test_threads_share_one_connection(broker_uri, source, bound, amqp_config):
    before = set(threading.enumerate())
    with event_dispatcher(config=amqp_config) as dispatch:
        barrier = threading.Barrier(8)

        def run(first):
            barrier.wait(TIMEOUT)
            for number in range(first, first + 25):
                dispatch(source, "sold", number)

        threads = [threading.Thread(target=run, args=(25 * n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(TIMEOUT)
        connections = [
            thread
            for thread in set(threading.enumerate()) - before
            if "-publisher-connection-" in thread.name
        ]
        assert len(connections) == 1
    bodies = [message.body for message in amqp.take_messages(broker_uri, bound, 200)]
    assert sorted(map(int, bodies)) == list(range(200))
