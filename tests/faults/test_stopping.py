"""A stop ends by its time-out, whatever the broker or the network does."""

import socket
import threading
import time
from contextlib import ExitStack

import pytest

from tests.faults.conftest import recording
from tests.support.proxy import Proxy
from tests.support.timing import TIMEOUT
from threadko.containers import ServiceContainer
from threadko.exceptions import ContainerStopped, RpcTimeout
from threadko.standalone.rpc import ClusterRpcClient

pytestmark = [pytest.mark.long, pytest.mark.timeout(12 * TIMEOUT)]

SHUTDOWN = 1


@pytest.fixture(scope="session")
def broker_uri(node):
    return node.uri


class Scene:
    """A service in trouble."""

    def __init__(self, node, service_cls, name, gate, config):
        self.node = node
        self.service_cls = service_cls
        self.name = name
        self.gate = gate
        self.config = config
        self.stack = ExitStack()
        self.proxy = self.stack.enter_context(Proxy.for_uri(node.uri))
        self.client = self.stack.enter_context(ClusterRpcClient(config=config, timeout=TIMEOUT))
        self.starting = None

    def make(self, uri=None):
        config = {**self.config, "AMQP_URI": uri or self.proxy.uri_for(self.node.uri)}
        self.container = ServiceContainer(
            self.service_cls, config={**config, "SHUTDOWN_TIMEOUT": SHUTDOWN}
        )
        return self.container

    def start_in_vain(self, uri):
        """Begin a start that does not end."""
        container = self.make(uri)
        outcome = []

        def start():
            try:
                container.start()
            except ContainerStopped as error:
                outcome.append(error)

        self.starting = threading.Thread(target=start), outcome
        self.starting[0].start()

    def hold(self):
        call = self.client[self.name].hold.call_async(1)
        self.gate.wait_for(1)
        return call

    def stop(self):
        """Stop it; returns the seconds that took."""
        begun = time.monotonic()
        stopping = threading.Thread(target=self.container.stop)
        stopping.start()
        stopping.join(TIMEOUT)
        assert not stopping.is_alive()
        seconds = time.monotonic() - begun
        if self.starting is not None:
            thread, outcome = self.starting
            thread.join(TIMEOUT)
            assert len(outcome) == 1, "the start was told"
        return seconds

    def close(self):
        self.gate.open.set()
        self.stack.close()


def idle(scene):
    scene.make().start()


def at_work(scene):
    scene.make().start()
    scene.hold()


def broker_gone(scene):
    with recording("threadko.amqp.link") as records:
        scene.make().start()
        scene.proxy.refuse()
        scene.proxy.cut()
        end = time.monotonic() + TIMEOUT
        while len(records) < 3:
            assert time.monotonic() < end
            threading.Event().wait(0.01)


def in_a_hole(scene):
    scene.make().start()
    scene.proxy.hole()


def answer_in_a_hole(scene):
    scene.make().start()
    call = scene.hold()
    scene.proxy.hole()
    scene.gate.open.set()
    with pytest.raises(RpcTimeout):
        call.result(0.2)


def start_without_a_broker(scene):
    scene.proxy.refuse()
    with recording("threadko.amqp.link") as records:
        scene.start_in_vain(None)
        end = time.monotonic() + TIMEOUT
        while len(records) < 3:
            assert time.monotonic() < end
            threading.Event().wait(0.01)


def start_in_a_hole(scene):
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(TIMEOUT)
    scene.stack.callback(listener.close)
    scene.start_in_vain(f"amqp://guest:guest@127.0.0.1:{listener.getsockname()[1]}/")
    peer, _ = listener.accept()
    scene.stack.callback(peer.close)
    assert peer.recv(8) == b"AMQP\x00\x00\x09\x01"


def answer_in_an_alarm(scene):
    scene.make().start()
    call = scene.hold()
    scene.node.control("set_vm_memory_high_watermark", "0.0000001")
    scene.stack.callback(scene.node.control, "set_vm_memory_high_watermark", "0.4")
    scene.gate.open.set()
    with pytest.raises(RpcTimeout):
        call.result(0.2)


STATES = (
    idle,
    at_work,
    broker_gone,
    in_a_hole,
    answer_in_a_hole,
    start_without_a_broker,
    start_in_a_hole,
    answer_in_an_alarm,
)


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
def test_service_stops_by_its_time_out(state, node, service_cls, name, gate, amqp_config, figure):
    scene = Scene(node, service_cls, name, gate, amqp_config)
    try:
        state(scene)
        seconds = scene.stop()
    finally:
        scene.close()
    assert seconds < SHUTDOWN + TIMEOUT / 4
    figure("stop", f"{state.__name__.replace('_', ' ')} {seconds:.2f} s")
