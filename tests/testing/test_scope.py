"""The life of one test."""

import threading
import warnings

import pytest
from pika.exceptions import AMQPError

from tests.support import amqp
from tests.testing.conftest import Service
from threadko.amqp.parameters import BrokerParameters
from threadko.amqp.shared import end_links
from threadko.containers import ServiceContainer
from threadko.standalone.events import event_dispatcher
from threadko.standalone.rpc import ClusterRpcClient
from threadko.testing.brokers import DevelopmentBroker
from threadko.testing.leftovers import LeftoverWarning
from threadko.testing.scope import Scope


@pytest.fixture
def source():
    source = DevelopmentBroker()
    yield source
    source.close()


@pytest.fixture
def scope(source):
    return Scope(lambda: source)


def test_broker_is_not_asked_for_before_the_test_does():
    scope = Scope(lambda: pytest.fail("asked"))
    scope.make_container_factory()(Service).start()
    scope.close()


def test_broker_is_one_and_the_same_for_a_test(scope):
    uri = scope.get_broker().uri
    assert scope.get_broker().uri == uri
    scope.close()
    with pytest.raises(AMQPError):
        amqp.has_queue(uri, "queue")


def test_what_was_made_is_killed_before_its_broker_goes(scope, caplog):
    config = {"AMQP_URI": scope.get_broker().uri}
    container = scope.make_container_factory()(Service, config)
    runner = scope.make_runner_factory()(Service, config=config)
    container.start()
    runner.start()
    scope.close()
    container.wait()
    runner.wait()
    assert "lost the connection" not in caplog.text


def test_what_the_test_forgot_is_ended_and_reported(scope):
    config = {"AMQP_URI": scope.get_broker().uri}
    container = ServiceContainer(Service, config=config)
    container.start()
    client = ClusterRpcClient(config=config)
    client.start()
    with pytest.warns(LeftoverWarning) as caught:
        scope.close()
    client.stop()
    container.wait()
    text = str(caught[0].message)
    assert "* the container of service 'service'" in text
    assert "* thread threadko-standalone-replies-" in text
    assert "* connection 'threadko standalone client' to the broker" in text


def test_dispatcher_that_lives_on_has_ended_before_leftovers_are_looked_for(scope, monkeypatch):
    dispatch = event_dispatcher(scope.get_broker().uri)
    before = set(threading.enumerate())
    dispatch("service", "event", 1)
    [connection] = [
        thread
        for thread in threading.enumerate()
        if thread not in before and "-publisher-connection-" in thread.name
    ]
    report = scope._leftovers.report
    alive = []

    def look(*args):
        alive.append(connection.is_alive())
        report(*args)

    monkeypatch.setattr(scope._leftovers, "report", look)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scope.close()
    assert alive == [False]
    dispatch.close()


def test_dispatcher_of_another_broker_is_a_leftover(scope, source):
    with source.fresh() as other:
        scope.get_broker()
        dispatch = event_dispatcher(other.uri)
        dispatch("service", "event", 1)
        with pytest.warns(LeftoverWarning, match="thread threadko-publisher-connection-"):
            scope.close()
        dispatch("service", "event", 2)
        dispatch.close()
        parameters = BrokerParameters.from_uri(other.uri)
        end_links(parameters.host, parameters.virtual_host)


def test_broker_goes_even_if_something_cannot_be_killed(scope):
    class Stubborn:
        def kill(self):
            raise ValueError("cannot")

    scope.make_container_factory().add(Stubborn())
    uri = scope.get_broker().uri
    with pytest.raises(ValueError, match="cannot"):
        scope.close()
    with pytest.raises(AMQPError):
        amqp.has_queue(uri, "queue")


def test_broker_goes_even_if_warnings_are_errors(scope):
    container = ServiceContainer(Service, config={})
    container.start()
    uri = scope.get_broker().uri
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(LeftoverWarning):
            scope.close()
    with pytest.raises(AMQPError):
        amqp.has_queue(uri, "queue")


def test_broker_of_the_option_is_that_of_containers_without(source):
    scope = Scope(lambda: source, "amqp://option")
    assert scope.make_container_factory()(Service).config == {"AMQP_URI": "amqp://option"}
    assert scope.make_runner_factory()(Service).containers[0].config["AMQP_URI"] == "amqp://option"
    scope.close()
