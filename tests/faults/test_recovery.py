"""How long it takes: to find a black hole, and to be connected once the broker is back."""

import logging
import threading
import time
from contextlib import ExitStack, contextmanager

import pytest

from tests.support.timing import TIMEOUT
from threadko.exceptions import PublishFailed, UnknownService
from threadko.standalone.events import event_dispatcher
from threadko.standalone.rpc import ClusterRpcClient

CLIENTS = 25

#: After so many failures the pause before an attempt is as long as it gets, up to 5 s.
FAILURES = 8


class Failures(logging.Handler):
    """Knows which threads have told of so many failed attempts to connect."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self._changed = threading.Condition()  # guards _threads
        self._threads = set()

    def emit(self, record):
        if f"({FAILURES} failures so far)" in record.getMessage():
            with self._changed:
                self._threads.add(record.thread)
                self._changed.notify_all()

    def wait_for(self, threads):
        with self._changed:
            assert self._changed.wait_for(lambda: len(self._threads) >= threads, 6 * TIMEOUT)


@contextmanager
def counting_failures():
    logger, handler = logging.getLogger("threadko.amqp.link"), Failures()
    logger.addHandler(handler)
    try:
        yield handler
    finally:
        logger.removeHandler(handler)


def test_publish_into_a_black_hole_fails_by_its_deadline_and_the_next_one_arrives(
    proxy, broker_uri, amqp_config, name, figure
):
    config = {**amqp_config, "AMQP_URI": proxy.uri_for(broker_uri), "PUBLISH_TIMEOUT": 1}
    patient = event_dispatcher(config={**config, "PUBLISH_TIMEOUT": TIMEOUT})  # same connection
    with event_dispatcher(config=config) as dispatch, patient:
        patient(name, "sold", "before")
        burnt = proxy.arm("up", 1, "strand")
        begun = time.monotonic()
        with pytest.raises(PublishFailed):
            dispatch(name, "sold", "into the hole")
        failed = time.monotonic()
        assert burnt.is_set()
        proxy.wait_for(lambda: proxy.accepted == 2)
        connecting = time.monotonic()
        patient(name, "sold", "after")
    figure(
        "hole-publish",
        f"failed after {failed - begun:.2f} s, next connection {connecting - failed:.2f} s later",
    )


@pytest.mark.long
@pytest.mark.timeout(20 * TIMEOUT)
def test_all_are_connected_soon_after_the_broker_is_back(
    proxy, broker_uri, amqp_config, name, figure
):
    config = {**amqp_config, "AMQP_URI": proxy.uri_for(broker_uri), "PUBLISH_TIMEOUT": 8 * TIMEOUT}
    seconds = []
    wrong = []

    def call(client):
        try:
            client[name].anything()  # nobody is there: the broker says so as soon as it is back
        except UnknownService:
            seconds.append(time.monotonic() - back)
        except Exception as error:
            wrong.append(error)

    with ExitStack() as stack, counting_failures() as failures:
        clients = [
            stack.enter_context(ClusterRpcClient(config=config, timeout=8 * TIMEOUT))
            for _ in range(CLIENTS)
        ]
        proxy.refuse()
        proxy.cut()
        threads = [threading.Thread(target=call, args=(client,)) for client in clients]
        failures.wait_for(CLIENTS)
        back = time.monotonic()
        for thread in threads:
            thread.start()
        proxy.accept()
        for thread in threads:
            thread.join(4 * TIMEOUT)
    assert wrong == []
    assert len(seconds) == CLIENTS
    seconds.sort()
    median, highest = seconds[CLIENTS // 2], seconds[-1 - CLIENTS // 100]
    figure("reconnect", f"{highest:.1f} s, median {median:.1f} s, of {CLIENTS} connections")
