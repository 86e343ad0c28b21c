"""`stop()` of a container ends by its deadline, whatever its connections and workers are in."""

import logging
import threading
import time

import pytest

from tests.support.timing import TIMEOUT
from threadko.containers import ServiceContainer
from threadko.events import EventDispatcher
from threadko.exceptions import ContainerStopped
from threadko.rpc import ServiceRpc, rpc
from threadko.standalone.rpc import ClusterRpcClient

SHUTDOWN_TIMEOUT = 2.0


def make_service(service_name, gate):
    """A service with every kind of connection: for requests, for replies, and to publish."""

    class Service:
        name = service_name
        dispatch = EventDispatcher()
        itself = ServiceRpc(service_name)

        @rpc
        def echo(self, value):
            return value

        @rpc
        def connect(self):
            self.dispatch("connected", None)
            return self.itself.echo("connected")

        @rpc
        def hold(self):
            gate.hold("held")

        @rpc
        def publish(self):
            gate.hold("publishing")
            self.dispatch("published", None)

    return Service


class Stage:
    """A container in some state, and what to do once it is being stopped."""

    def __init__(self, container, proxy, client, gate, caplog):
        self.container = container
        self.proxy = proxy
        self.client = client
        self.gate = gate
        self.caplog = caplog
        self.outcome = None
        self._starting = threading.Thread(target=self._start)
        self.while_stopping = lambda: None

    def _start(self):
        try:
            self.container.start()
        except ContainerStopped as error:
            self.outcome = error

    def start_in_vain(self):
        self._starting.start()

    def start(self):
        self.start_in_vain()
        self._starting.join(TIMEOUT)
        assert self.container.started
        assert self.service.connect() == "connected"

    @property
    def service(self):
        return self.client[self.container.service_name]

    def end(self):
        self._starting.join(TIMEOUT)
        assert not self._starting.is_alive()


def idle(stage):
    stage.start()


def connecting_into_a_hole(stage):
    stage.proxy.hole()
    stage.start_in_vain()
    stage.proxy.wait_for(lambda: stage.proxy.swallowed["up"] > 0)


def waiting_after_refusals(stage):
    stage.proxy.refuse()
    stage.start_in_vain()
    never, end = threading.Event(), time.monotonic() + TIMEOUT
    while "4 failures so far" not in stage.caplog.text:
        assert time.monotonic() < end
        never.wait(0.01)


def idle_in_a_hole(stage):
    stage.start()
    stage.proxy.hole()


def at_work(stage):
    stage.start()
    call = stage.service.hold.call_async()
    stage.gate.wait_for(1)

    def go_on():
        stage.gate.open.set()
        assert call.result(TIMEOUT) is None

    stage.while_stopping = go_on


def hung(stage):
    stage.start()
    stage.service.hold.call_async()
    stage.gate.wait_for(1)


def publishing_into_a_hole(stage):
    stage.start()
    stage.service.publish.call_async()
    stage.gate.wait_for(1)
    stage.proxy.hole()
    swallowed = stage.proxy.swallowed["up"]
    stage.gate.open.set()
    stage.proxy.wait_for(lambda: stage.proxy.swallowed["up"] > swallowed)


STATES = {
    "idle": idle,
    "connecting into a hole": connecting_into_a_hole,
    "waiting after refusals": waiting_after_refusals,
    "idle in a hole": idle_in_a_hole,
    "at work": at_work,
    "hung": hung,
    "publishing into a hole": publishing_into_a_hole,
}


def stop(stage):
    """Stop the container in a thread, and return the seconds that it took."""
    took = []

    def measure():
        begun = time.monotonic()
        stage.container.stop()
        took.append(time.monotonic() - begun)

    stopping = threading.Thread(target=measure)
    stopping.start()
    assert stage.container.stopping.wait(TIMEOUT)
    stage.while_stopping()
    stopping.join(SHUTDOWN_TIMEOUT + TIMEOUT)
    assert took, "it does not end"
    return took[0]


@pytest.fixture
def stage(name, gate, proxy, broker_uri, amqp_config, caplog):
    caplog.set_level(logging.WARNING)
    config = {
        **amqp_config,
        "AMQP_URI": proxy.uri_for(broker_uri),
        "SHUTDOWN_TIMEOUT": SHUTDOWN_TIMEOUT,
        "PUBLISH_TIMEOUT": TIMEOUT * 2,
    }
    container = ServiceContainer(make_service(name, gate), config=config)
    with ClusterRpcClient(config=amqp_config) as client:
        made = Stage(container, proxy, client, gate, caplog)
        yield made
    gate.open.set()
    made.end()


@pytest.mark.parametrize("state", STATES)
def test_stop_ends_by_its_deadline_in_every_state(state, stage, figure):
    STATES[state](stage)
    took = stop(stage)
    assert took < SHUTDOWN_TIMEOUT + TIMEOUT / 2
    assert stage.outcome is None or isinstance(stage.outcome, ContainerStopped)
    figure("stop", f"{state} {took:.2f} s of {SHUTDOWN_TIMEOUT:g} s")


class TestAlarm:
    """With a broker that is short of memory, and reads no more from those who publish."""

    @pytest.fixture
    def broker_uri(self, node):
        return node.uri

    @pytest.mark.long
    def test_stop_ends_by_its_deadline_in_a_memory_alarm(self, node, stage, figure):
        stage.start()
        stage.service.publish.call_async()
        stage.gate.wait_for(1)
        node.control("set_vm_memory_high_watermark", "0.0000001")
        try:
            forwarded = stage.proxy.forwarded["down"]
            stage.gate.open.set()
            # The broker tells all who may publish that it is blocked.
            stage.proxy.wait_for(lambda: stage.proxy.forwarded["down"] > forwarded)
            took = stop(stage)
        finally:
            node.control("set_vm_memory_high_watermark", "0.4")
        assert took < SHUTDOWN_TIMEOUT + TIMEOUT / 2
        figure("stop", f"blocked by a memory alarm {took:.2f} s of {SHUTDOWN_TIMEOUT:g} s")
