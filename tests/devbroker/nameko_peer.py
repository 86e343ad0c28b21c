"""A real nameko by itself on a broker: ``nameko_peer.py AMQP_URI`` prints what came of it."""

# ruff: noqa: E402, T201 - eventlet must patch before anything else is imported

import eventlet

eventlet.monkey_patch()

import json
import sys
from collections import Counter

import nameko
from nameko.containers import ServiceContainer
from nameko.events import BROADCAST, SERVICE_POOL, SINGLETON, EventDispatcher, event_handler
from nameko.rpc import rpc
from nameko.standalone.events import event_dispatcher
from nameko.standalone.rpc import ClusterRpcClient

CALLS = 10
SECONDS = 30

seen = eventlet.Queue()


class Source:
    name = "source"

    dispatch = EventDispatcher()

    @rpc
    def sell(self, number):
        self.dispatch("sold", number)
        return number * 2

    @rpc
    def fail(self):
        raise ValueError("as asked")


class Shop:
    name = "shop"

    @event_handler("source", "sold", handler_type=SERVICE_POOL)
    def pool(self, payload):
        seen.put(("pool", payload))

    @event_handler("source", "sold", handler_type=SINGLETON)
    def singleton(self, payload):
        seen.put(("singleton", payload))

    @event_handler("source", "sold", handler_type=BROADCAST, reliable_delivery=False)
    def broadcast(self, payload):
        seen.put(("broadcast", payload))


def main(uri):
    nameko.config.setup({"AMQP_URI": uri})
    containers = [ServiceContainer(each) for each in (Source, Shop, Shop)]
    for container in containers:
        container.start()
    with ClusterRpcClient(timeout=SECONDS) as cluster:
        answers = [cluster.source.sell(number) for number in range(CALLS)]
        try:
            cluster.source.fail()
        except Exception as error:
            failure = repr(error)
    event_dispatcher()("source", "sold", CALLS)
    with eventlet.Timeout(SECONDS):
        # To the pool and the singleton once, to both shops by broadcast.
        kinds = Counter(seen.get()[0] for _ in range(4 * (CALLS + 1)))
    for container in containers:
        container.stop()
    print(json.dumps({"answers": answers, "failure": failure, "seen": kinds}))


if __name__ == "__main__":
    main(*sys.argv[1:])
