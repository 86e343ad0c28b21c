"""Connections that go silent: bytes vanish one way or both, and no socket is closed."""

import logging
import threading
import time
from contextlib import ExitStack, contextmanager

import pytest

from tests.faults.conftest import make_service
from tests.support.proxy import Proxy
from tests.support.timing import TIMEOUT
from threadko.amqp.publish import Publisher
from threadko.containers import ServiceContainer
from threadko.exceptions import PublishFailed
from threadko.standalone.events import event_dispatcher
from threadko.standalone.rpc import ClusterRpcClient

SHAPES = {"both ways": {}, "up only": {"down": False}, "down only": {"up": False}}


class Losses(logging.Handler):
    """Notes when a connection thread says that it has lost its connection."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self._changed = threading.Condition()
        self._at = {}

    def emit(self, record):
        with self._changed:
            if "lost the connection to" in record.getMessage():
                self._at.setdefault(record.args[1].rpartition(":")[2], time.monotonic())
                self._changed.notify_all()

    def wait_for(self, proxy):
        """Wait for the loss of a connection by way of this proxy; returns when it was."""
        port = f"{proxy.port}/"
        with self._changed:
            assert self._changed.wait_for(lambda: port in self._at, 2 * TIMEOUT)
            return self._at[port]


@pytest.fixture
def losses():
    handler = Losses()
    logger = logging.getLogger("threadko.amqp.link")
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


@contextmanager
def running(names, amqp_config, broker_uri):
    """A service for each shape of a hole, each behind a proxy of its own."""
    with ExitStack() as stack:
        services = {}
        for shape in SHAPES:
            proxy = stack.enter_context(Proxy.for_uri(broker_uri))
            name = names.service("hole")
            config = {**amqp_config, "AMQP_URI": proxy.uri_for(broker_uri), "HEARTBEAT": 1}
            container = ServiceContainer(make_service(name), config=config)
            container.start()
            stack.callback(container.stop)
            services[shape] = name, proxy
        yield services


@pytest.mark.long
@pytest.mark.timeout(8 * TIMEOUT)
def test_idle_service_behind_a_hole_is_noticed_by_its_heartbeats_and_connects_when_it_is_over(
    names, amqp_config, broker_uri, losses, figure
):
    with running(names, amqp_config, broker_uri) as services:
        begun = {}
        for shape, (_, proxy) in services.items():
            begun[shape] = time.monotonic()
            proxy.hole(**SHAPES[shape])
        found = {
            shape: losses.wait_for(proxy) - begun[shape] for shape, (_, proxy) in services.items()
        }
        for _, proxy in services.values():
            # The next attempt goes into the hole as well, and waits there for a login.
            proxy.wait_for(lambda proxy=proxy: proxy.accepted >= 2)
            proxy.heal()
        with ClusterRpcClient(config=amqp_config, timeout=2 * TIMEOUT) as client:
            for shape, (name, _) in services.items():
                assert client[name].echo(shape) == shape
    # The driver looks every heartbeat + 5 s, and wants to have heard something since.
    assert max(found.values()) < 12 + TIMEOUT / 4
    figure("hole-idle", ", ".join(f"{shape} {each:.1f} s" for shape, each in found.items()))


@pytest.mark.parametrize("shape", SHAPES)
def test_publisher_behind_a_hole_is_told_by_its_deadline_and_connects_anew(
    shape, names, amqp_config, broker_uri, proxy, losses, figure
):
    source = names.service("source")
    config = {**amqp_config, "AMQP_URI": proxy.uri_for(broker_uri), "PUBLISH_TIMEOUT": 1}
    patient = event_dispatcher(config={**config, "PUBLISH_TIMEOUT": TIMEOUT})  # same connection
    with event_dispatcher(config=config) as dispatch, patient:
        patient(source, "before", {})
        proxy.hole(**SHAPES[shape])
        begun = time.monotonic()
        with pytest.raises(PublishFailed, match="unknown"):
            dispatch(source, "during", {})
        told = time.monotonic() - begun
        lost = losses.wait_for(proxy) - begun
        proxy.heal()
        proxy.cut()  # an attempt that has been made meanwhile
        deadline = time.monotonic() + TIMEOUT
        while True:
            try:
                dispatch(source, "after", {})
                break
            except PublishFailed:
                assert time.monotonic() < deadline
    assert told < 1 + TIMEOUT / 4
    assert lost < 1 + TIMEOUT / 4
    figure("hole-publish", f"{shape} {told:.2f} s")


def test_publish_without_confirms_is_told_all_the_same_that_it_went_into_a_hole(proxy, broker_uri):
    # There is no way to do without confirms: nothing is lost in silence, whatever is asked for.
    publisher = Publisher(proxy.uri_for(broker_uri), use_confirms=False, timeout=1)
    publisher.publish("before", routing_key="nobody", timeout=TIMEOUT)
    proxy.hole()
    with pytest.raises(PublishFailed, match="unknown"):
        publisher.publish("during", routing_key="nobody")
    proxy.heal()
    proxy.cut()
