"""A reply that the broker refuses, among others that it takes.

The broker here takes smaller messages than the service believes, so that what passes our own check
is refused with 406, and with it the channel that it came on.
"""

import threading

import pytest

from tests.faults.conftest import recording
from tests.support.amqp import queue_depth
from tests.support.timing import TIMEOUT
from threadko.containers import ServiceContainer
from threadko.exceptions import RemoteError
from threadko.rpc import rpc
from threadko.standalone.rpc import ClusterRpcClient

TOO_LARGE = 300_000


@pytest.fixture(scope="session")
def broker_uri(node):
    return node.uri


@pytest.fixture
def client(amqp_config):
    with ClusterRpcClient(config=amqp_config, timeout=TIMEOUT * 2) as made:
        yield made


def check_refused(call):
    with pytest.raises(RemoteError) as caught:
        call.result(TIMEOUT)
    text = str(caught.value)
    assert "the broker refused the reply" in text
    assert "larger than configured max size" in text
    assert caught.value.exc_type == "PublishFailed"


@pytest.mark.parametrize("bad", [{0}, {4}, {9}, {2, 7}, set(range(10))], ids=str)
def test_the_others_run_once_and_are_answered(
    bad, service_cls, name, gate, amqp_config, client, proxy, broker_uri
):
    config = {**amqp_config, "AMQP_URI": proxy.uri_for(broker_uri)}
    container = ServiceContainer(service_cls, config=config)
    with recording("threadko") as records:
        container.start()
        try:
            calls = [
                client[name].hold_text.call_async(str(n), TOO_LARGE if n in bad else 3)
                for n in range(10)
            ]
            gate.wait_for(10)
            gate.open.set()  # all ten answers leave at about the same time
            for number, call in enumerate(calls):
                if number in bad:
                    check_refused(call)
                else:
                    assert call.result(TIMEOUT) == str(number) * 3
            assert client[name].echo("next") == "next"
        finally:
            container.stop()
    assert gate.runs == {**{str(n): 1 for n in range(10)}, "next": 1}
    assert queue_depth(broker_uri, f"rpc-{name}") == 0
    assert proxy.accepted == 1, "one channel was refused, not the connection"
    told = [record.getMessage() for record in records]
    assert sum("refused a reply" in line for line in told) == len(bad)


def test_service_goes_on_when_one_reply_after_the_other_is_refused(
    service_cls, name, gate, amqp_config, client, broker_uri
):
    gate.open.set()
    container = ServiceContainer(service_cls, config={**amqp_config, "max_workers": 4})
    container.start()
    failed = []

    def ask(thread):
        for number in range(5):
            value = f"{thread}{number}"
            try:
                check_refused(client[name].hold_text.call_async(value, TOO_LARGE // len(value)))
                assert client[name].hold_text(f"{value}!", 2) == f"{value}!{value}!"
            except BaseException as error:
                failed.append(error)

    try:
        threads = [threading.Thread(target=ask, args=(letter,)) for letter in "abcd"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(TIMEOUT * 2)
        assert failed == []
    finally:
        container.stop()
    assert len(gate.runs) == 40
    assert set(gate.runs.values()) == {1}
    assert queue_depth(broker_uri, f"rpc-{name}") == 0


def test_caller_is_told_when_it_is_an_error_that_is_refused(name, amqp_config, client, broker_uri):
    class Service:
        @rpc
        def fail(self):
            raise LookupError("x" * TOO_LARGE)

        @rpc
        def echo(self, value):
            return value

    Service.name = name
    container = ServiceContainer(Service, config=amqp_config)
    container.start()
    try:
        with pytest.raises(RemoteError, match="the broker refused the reply"):
            client[name].fail()
        assert client[name].echo(1) == 1
    finally:
        container.stop()
    assert queue_depth(broker_uri, f"rpc-{name}") == 0


def test_caller_is_told_when_the_service_stops_at_the_same_time(
    service_cls, name, gate, amqp_config, client, broker_uri
):
    for round_ in range(20):
        container = ServiceContainer(service_cls, config=amqp_config)
        container.start()
        good = client[name].hold_text.call_async(f"good {round_}", 2)
        bad = client[name].hold_text.call_async(f"bad {round_:06}", TOO_LARGE // 10)
        gate.wait_for(2)
        gate.open.set()
        container.stop()
        check_refused(bad)
        assert good.result(TIMEOUT) == f"good {round_}" * 2
        gate.open.clear()
    assert set(gate.runs.values()) == {1}
    assert queue_depth(broker_uri, f"rpc-{name}") == 0
