"""A fleet whose queues are quorum queues, on RabbitMQ."""

import queue

import pytest

from tests.support.amqp import declare_queue, take_messages
from tests.support.timing import TIMEOUT
from threadko.events import BROADCAST, SINGLETON, EventDispatcher, Retry, event_handler
from threadko.rpc import rpc
from threadko.standalone.rpc import ServiceRpcClient

QUORUM = {"x-queue-type": "quorum", "x-delivery-limit": 20}


@pytest.fixture(scope="session")
def broker_uri(node):
    return node.uri


@pytest.mark.timeout(300)
def test_calls_events_retries_and_dead_letters_work_on_quorum_queues(
    broker_uri, names, runner_factory, amqp_config, node
):
    shop, warehouse = names.service("shop"), names.service("warehouse")
    handled = queue.SimpleQueue()

    class Shop:
        name = shop

        dispatch = EventDispatcher()

        @rpc
        def sell(self, item):
            self.dispatch("sold", item)
            return f"sold {item}"

    class Warehouse:
        name = warehouse

        @event_handler(shop, "sold", retry=Retry(max=2, delays=(0.1,)), dead_letter=True)
        def pack(self, item):
            if item == "bad":
                raise ValueError(item)
            handled.put(("pack", item))

        @event_handler(shop, "sold", handler_type=SINGLETON)
        def count(self, item):
            handled.put(("count", item))

        @event_handler(shop, "sold", handler_type=BROADCAST, reliable_delivery=False)
        def show(self, item):
            handled.put(("show", item))

        @event_handler(shop, "#", reliable_delivery=False)
        def watch(self, item):
            handled.put(("watch", item))

    config = {**amqp_config, "RPC_QUEUE_ARGUMENTS": QUORUM, "EVENT_QUEUE_ARGUMENTS": QUORUM}
    runner_factory(Shop, Warehouse, config=config).start()
    with ServiceRpcClient(shop, config=amqp_config, timeout=TIMEOUT) as client:
        assert client.sell("piano") == "sold piano"
        assert sorted(handled.get(timeout=TIMEOUT) for _ in range(4)) == [
            (name, "piano") for name in ("count", "pack", "show", "watch")
        ]
        own = f"evt-{shop}-sold--{warehouse}.pack"
        declare_queue(broker_uri, f"{own}.dead", durable=True)  # else it is made for the first
        client.sell("bad")
        [dead] = take_messages(broker_uri, f"{own}.dead", 1)
        assert dead.properties.headers["x-threadko-reason"] == "exhausted"
    lasting = {f"rpc-{shop}", own, f"evt-{shop}-sold"}
    listed = node.control("list_queues", "name", "type").splitlines()
    assert {line.split("\t")[0] for line in listed if line.endswith("\tquorum")} == lasting
