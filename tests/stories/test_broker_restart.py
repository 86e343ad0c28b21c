"""The broker itself goes and comes back under load, orderly or by a power cut."""

import signal

import pytest

from tests.stories.load import Load
from tests.support.broker import RabbitNode, find_server
from tests.support.timing import TIMEOUT
from threadko.standalone.rpc import ClusterRpcClient

CALLERS = 8

SERVICE = """
from tests.support.ledger import Ledger
from threadko.rpc import rpc

ledger = Ledger({ledger!r})


class Service:
    name = "service"

    @rpc
    def double(self, number):
        ledger.enter(number)
        return number * 2
"""


@pytest.fixture
def node():
    server = find_server()
    if server is None:
        pytest.skip("needs rabbitmq-server (Debian: apt-get install rabbitmq-server)")
    with RabbitNode(server) as made:
        made.start()
        yield made


@pytest.mark.long
@pytest.mark.timeout(20 * TIMEOUT)
@pytest.mark.parametrize("end", [RabbitNode.stop, RabbitNode.kill], ids=["stop", "kill"])
def test_every_call_is_answered_while_the_broker_restarts(run, node, amqp_config, ledger, end):
    # Longer than a broker takes to start: so that it is no time-out that ends a call.
    patient = {"AMQP_URI": node.uri, "PUBLISH_TIMEOUT": 8 * TIMEOUT}
    service = run(SERVICE.format(ledger=str(ledger.path)), **patient)
    service.wait_for("services ready", "stderr")
    rpc_client = ClusterRpcClient(config={**amqp_config, **patient}, timeout=8 * TIMEOUT)
    with rpc_client as client:
        with Load(lambda number: client.service.double(number), CALLERS) as load:
            for _ in range(2):
                load.wait_for_answers(50)
                end(node)
                node.start()
            load.wait_for_answers(50)
        assert rpc_client.pending == 0
    service.send_signal(signal.SIGTERM)
    assert service.wait() == 0, service
    assert load.errors == {}
    assert load.answers == {number: number * 2 for number in range(len(load.answers))}
    runs = ledger.count()
    assert set(runs) == {str(number) for number in load.answers}
    again = sum(runs.values()) - len(runs)
    print(f"2 restarts: {len(runs)} calls, 0 lost, {again} run again")  # noqa: T201 - the figures
