"""Deliveries vanish on their way, heartbeats do not: nobody would notice but a watchdog."""

import threading
from collections import Counter

import pytest

from tests.faults.conftest import recording
from tests.support import amqp
from tests.support.fake_broker import FakeBroker
from tests.support.timing import TIMEOUT
from threadko.containers import ServiceContainer
from threadko.events import event_handler
from threadko.messaging import Queue, consume
from threadko.rpc import rpc

PREFETCH = 5
COUNT = 12
SIZE = 1000


class Scene:
    """A consumer whose whole prefetch is lost while it is idle."""

    def __init__(self, names, amqp_config, broker_uri, proxy):
        self.runs = Counter()
        self.consumes = threading.Event()
        self.all_run = threading.Event()
        self.proxy = proxy
        self._uri = broker_uri
        self._config = {
            **amqp_config,
            "AMQP_URI": proxy.uri_for(broker_uri),
            "PREFETCH_COUNT": PREFETCH,
        }
        scene = self
        self.queue = names.queue("silent")

        class Service:
            name = names.service("silent")

            @consume(Queue(self.queue))
            def handle(self, body):
                scene.note(body["number"])

        self._service_cls = Service

    def note(self, number):
        self.runs[number] += 1
        if number == 0:
            self.consumes.set()
        if len(self.runs) == COUNT:
            self.all_run.set()

    def make(self, **config):
        return ServiceContainer(self._service_cls, config={**self._config, **config})

    def publish(self, number):
        body = b'{"number": %d, "padding": "%s"}' % (number, b"x" * SIZE)
        amqp.publish(self._uri, body, routing_key=self.queue, content_type="application/json")

    def lose_messages(self):
        """Publish while what comes down is swallowed, until the prefetch is full."""
        self.publish(0)
        assert self.consumes.wait(TIMEOUT)
        self.proxy.hole(up=False)
        before = self.proxy.swallowed["down"]
        for number in range(1, COUNT):
            self.publish(number)
        # The broker writes each delivery in one piece, so that none is torn.
        self.proxy.wait_for(lambda: self.proxy.swallowed["down"] > before + PREFETCH * SIZE)
        self.proxy.heal()


@pytest.fixture
def scene(names, amqp_config, broker_uri, proxy):
    return Scene(names, amqp_config, broker_uri, proxy)


def test_deliveries_that_vanished_come_again_when_the_watchdog_finds_out(scene, broker_uri):
    container = scene.make(CONSUMER_WATCHDOG=TIMEOUT / 20)  # not before the hole is over
    container.start()
    try:
        with recording("threadko.amqp.watchdog") as records:
            scene.lose_messages()
            assert scene.all_run.wait(TIMEOUT)
    finally:
        container.stop()
    assert set(scene.runs) == set(range(COUNT))
    assert set(scene.runs.values()) == {1}
    assert scene.proxy.accepted == 2
    (line,) = [record.getMessage() for record in records]
    assert "no message comes" in line
    assert amqp.queue_depth(broker_uri, scene.queue) == 0


def test_deliveries_that_vanished_are_missed_by_nobody_without_a_watchdog(scene, broker_uri):
    container = scene.make()
    container.start()
    try:
        scene.lose_messages()
        assert not scene.all_run.wait(1)
        assert scene.runs == {0: 1}
        assert scene.proxy.connections == 1
        assert amqp.queue_depth(broker_uri, scene.queue) == COUNT - 1 - PREFETCH
    finally:
        container.stop()
    # They are not lost: the broker gives them to the next one that connects.
    assert amqp.queue_depth(broker_uri, scene.queue) == COUNT - 1


def test_every_consumer_of_a_service_is_watched():
    class Service:
        name = "watched"

        @rpc
        def answer(self):
            pass

        @event_handler("source", "sold")
        def on_sold(self, data):
            pass

        @consume(Queue("messages"))
        def handle(self, body):
            pass

    queues = {"rpc-watched", "evt-source-sold--watched.on_sold", "messages"}
    with FakeBroker() as broker:
        config = {"AMQP_URI": broker.uri, "CONSUMER_WATCHDOG": 0.1}
        container = ServiceContainer(Service, config=config)
        container.start()
        try:
            broker.wait_for(lambda: {question.queue for question in broker.asked} == queues)
        finally:
            container.stop()
