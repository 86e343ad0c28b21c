"""Two services of one runner that call each other are stopped while clients call them."""

import time

import pytest

from tests.stories.load import Load
from tests.support.timing import TIMEOUT
from threadko.exceptions import RemoteError, RpcTimeout
from threadko.rpc import ServiceRpc, rpc
from threadko.runners import ServiceRunner, run_services
from threadko.standalone.rpc import ClusterRpcClient

CALLERS = 6  # each makes two workers of the service that it calls, which has ten
CLIENT_SECONDS = 4.0
SERVICE_SECONDS = 0.5


@pytest.fixture
def pair(names):
    """Two service classes, and what their workers have begun."""
    first, second = names.service("first"), names.service("second")
    begun = []

    def make(name_, other_):
        class Service:
            name = name_
            other = ServiceRpc(other_)

            @rpc
            def ask(self, number, depth=2):
                begun.append((number, depth))
                return self.other.ask(number, depth - 1) + 1 if depth else number

        return Service

    return (make(first, second), make(second, first)), begun


def stop_under_load(runner, load):
    """Stop with the load on; returns how long that took."""
    load.wait_for_answers(20)
    begun = time.monotonic()
    runner.stop()
    return time.monotonic() - begun


def test_every_call_that_runs_is_answered_when_both_are_stopped(pair, amqp_config, caplog):
    services, begun = pair
    runner = ServiceRunner({**amqp_config, "RPC_TIMEOUT": SERVICE_SECONDS})
    for service in services:
        runner.add_service(service)
    runner.start()
    rpc_client = ClusterRpcClient(config=amqp_config, timeout=CLIENT_SECONDS)
    with rpc_client as client:
        with Load(lambda number: client[services[number % 2].name].ask(number), CALLERS) as load:
            seconds = stop_under_load(runner, load)
            at_the_end = list(begun)
    assert begun == at_the_end, "a worker ran on after the stop"
    assert seconds < SERVICE_SECONDS + TIMEOUT / 2
    assert all(answer == number + 2 for number, answer in load.answers.items())
    ran = {number for number, depth in begun if depth == 2}
    for number, error in load.errors.items():
        # The doors of both are closed, so whoever ran may have to answer that its own call had no
        # answer. Only what no worker took has none.
        if number in ran:
            assert type(error) is RemoteError
            assert f"did not answer within {SERVICE_SECONDS} s" in str(error)
        else:
            assert type(error) is RpcTimeout
    assert not any("killed" in record.getMessage() for record in caplog.records)
    runner.wait()


def test_every_call_is_answered_when_others_run_the_same_services(pair, amqp_config):
    services, _ = pair
    runner = ServiceRunner(amqp_config)
    for service in services:
        runner.add_service(service)
    runner.start()
    with run_services(*services, config=amqp_config):
        with ClusterRpcClient(config=amqp_config, timeout=TIMEOUT) as client:
            with Load(lambda n: client[services[n % 2].name].ask(n), CALLERS) as load:
                stop_under_load(runner, load)
                load.wait_for_answers(20)
    assert load.errors == {}
    assert load.answers == {number: number + 2 for number in range(len(load.answers))}
    runner.wait()


def test_lone_pair_without_timeouts_is_killed_by_the_deadline_and_the_next_answers(
    pair, amqp_config
):
    services, _ = pair
    runner = ServiceRunner({**amqp_config, "SHUTDOWN_TIMEOUT": 0.5})
    for service in services:
        runner.add_service(service)
    runner.start()
    with ClusterRpcClient(config=amqp_config, timeout=TIMEOUT) as client:
        with Load(lambda n: client[services[n % 2].name].ask(n), CALLERS) as load:
            assert stop_under_load(runner, load) < TIMEOUT / 2
            with run_services(*services, config=amqp_config):
                load.wait_for_answers(20)
                load.end()
    assert load.errors == {}
    assert load.answers == {number: number + 2 for number in range(len(load.answers))}
