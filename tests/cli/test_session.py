import queue

import pytest

from tests.support.broker import find_free_ports
from tests.support.timing import TIMEOUT
from threadko.cli.session import Session
from threadko.events import event_handler
from threadko.exceptions import BrokerUnavailable, MethodNotFound, RemoteError, UnknownService
from threadko.rpc import rpc
from threadko.testing.factories import RunnerFactory


@pytest.fixture
def session(amqp_config, runner_factory: RunnerFactory):
    # Ended before the factory looks for what the test has left behind.
    made = Session(amqp_config)
    yield made
    made.disconnect()


@pytest.fixture
def service(names, runner_factory: RunnerFactory, amqp_config):
    """The name of a service that runs, whose events it handles, and those that it has had."""
    events = queue.SimpleQueue()
    source = names.service()

    class Served:
        name = names.service()

        @rpc
        def hello(self, name):
            return f"Hello, {name}!"

        @rpc
        def fail(self):
            raise ValueError("no")

        @event_handler(source, "sold", reliable_delivery=False)
        def note(self, payload):
            events.put(payload)

    runner_factory(Served, config=amqp_config).start()
    return Served.name, source, events


def test_services_are_called_and_come_up_in_completion_once_they_answered(session, service):
    name, *_ = service
    assert dir(session.rpc) == []
    assert session.rpc[name].hello("Ada") == "Hello, Ada!"
    assert dir(session.rpc) == [name]
    assert dir(session.rpc[name]) == ["hello"]
    with pytest.raises(RemoteError):
        session.rpc[name]["fail"]()
    assert dir(session.rpc[name]) == ["fail", "hello"]


def test_names_that_are_not_there_do_not_come_up(session, service):
    name, *_ = service
    with pytest.raises(UnknownService):
        session.rpc.nobody.hello()
    with pytest.raises(MethodNotFound):
        session.rpc[name].absent()
    assert dir(session.rpc) == []
    assert dir(session.rpc.nobody) == []


def test_calls_go_out_at_once_and_with_a_timeout(session, service):
    name, *_ = service
    call = session.rpc[name].hello.call_async("Ben")
    assert call.result(TIMEOUT) == "Hello, Ben!"
    assert session.rpc[name].hello.with_timeout(TIMEOUT)("Cleo") == "Hello, Cleo!"


def test_next_call_connects_again(session, service):
    name, *_ = service
    session.rpc[name].hello("Ada")
    session.dispatch_event("shop", "sold", 1)
    session.disconnect()
    session.disconnect()
    assert session.rpc[name].hello("Ada") == "Hello, Ada!"


def test_events_are_dispatched(session, service):
    _, source, events = service
    session.dispatch_event(source, "sold", {"piece": 1})
    assert events.get(timeout=TIMEOUT) == {"piece": 1}
    session.dispatch_event(source, "sold")
    assert events.get(timeout=TIMEOUT) is None


def test_names_with_an_underscore_are_not_asked_of_services(session):
    for owner in (session.rpc, session.rpc.service):
        with pytest.raises(AttributeError, match=r'\["_repr_html_"\]'):
            owner._repr_html_  # noqa: B018 (it is what a notebook does)


def test_all_say_what_they_are(session):
    assert "n.rpc" in repr(session)
    assert "n.rpc.service.method(...)" in repr(session.rpc)
    assert "n.rpc.shop.method(...)" in repr(session.rpc.shop)
    assert repr(session.rpc.shop.sell) == "<method shop.sell>"


def test_broker_that_is_not_there_is_an_error_in_time():
    [port] = find_free_ports(1)
    config = {"AMQP_URI": f"amqp://127.0.0.1:{port}/", "BROKER_START_TIMEOUT": 0.2}
    session = Session(config)
    for _ in range(2):
        with pytest.raises(BrokerUnavailable):
            session.rpc.service.method()
