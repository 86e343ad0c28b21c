"""The broker itself goes and comes back under load, orderly or by a power cut."""

import signal

import pytest

from tests.stories.load import Load
from tests.support.broker import RabbitNode, find_server
from tests.support.timing import TIMEOUT
from threadko.standalone.rpc import ClusterRpcClient

CALLERS = 8
RESTARTS = 5

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
@pytest.mark.timeout(40 * TIMEOUT)
@pytest.mark.parametrize(
    ("key", "end", "kind"),
    [
        ("broker-restarts", RabbitNode.stop, "classic"),
        ("broker-kills-classic", RabbitNode.kill, "classic"),
        ("broker-kills-quorum", RabbitNode.kill, "quorum"),
    ],
    ids=["stop", "kill", "kill with a quorum queue"],
)
def test_every_call_is_answered_while_the_broker_restarts(
    run, node, amqp_config, ledger, end, kind, key, figure
):
    # Longer than a broker takes to start: so that it is no time-out that ends a call.
    patient = {"AMQP_URI": node.uri, "PUBLISH_TIMEOUT": 8 * TIMEOUT}
    arguments = "{}" if kind == "classic" else f"{{x-queue-type: {kind}}}"
    source = SERVICE.format(ledger=str(ledger.path))
    service = run(source, RPC_QUEUE_ARGUMENTS=arguments, **patient)
    service.wait_for("services ready", "stderr")
    # What a node writes down of a new quorum queue it keeps to itself for a moment.
    node.control("eval", "[ok = dets:sync(Table) || Table <- dets:all()].")
    assert f"rpc-service\t{kind}" in node.control("list_queues", "name", "type").splitlines()
    rpc_client = ClusterRpcClient(config={**amqp_config, **patient}, timeout=8 * TIMEOUT)
    with rpc_client as client:
        with Load(lambda number: client.service.double(number), CALLERS) as load:
            for _ in range(RESTARTS):
                load.wait_for_answers(200)
                end(node)
                node.start()
            load.wait_for_answers(200)
        assert rpc_client.pending == 0
    service.send_signal(signal.SIGTERM)
    assert service.wait() == 0, service
    assert load.errors == {}
    assert load.answers == {number: number * 2 for number in range(len(load.answers))}
    runs = ledger.count()
    assert set(runs) == {str(number) for number in load.answers}
    again = sum(runs.values()) - len(runs)
    what = "stops and starts" if end is RabbitNode.stop else "SIGKILL"
    figure(key, f"{RESTARTS} {what}, {len(runs):,} calls: 0 lost, {again} run again")
