"""The broker itself goes, by an orderly stop or a power cut, and comes back."""

from collections import defaultdict
from contextlib import contextmanager
from itertools import pairwise

import pytest

from tests.faults.conftest import Gate, recording
from tests.support.amqp import (
    declare_queue,
    delete_queue,
    expect_message,
    publish,
    queue_depth,
)
from tests.support.timing import TIMEOUT, wait_until
from threadko.runners import run_services
from threadko.standalone.rpc import ClusterRpcClient

pytestmark = [pytest.mark.long, pytest.mark.timeout(20 * TIMEOUT)]

# As in threadko/amqp/link.py, and a promise of docs/rabbitmq.rst.
FIRST, CAP = 0.1, 5.0


@pytest.fixture(scope="session")
def broker_uri(node):
    return node.uri


@pytest.fixture
def away(node):
    """Takes the broker away within a block."""

    @contextmanager
    def away(end):
        end()
        try:
            yield
        finally:
            node.start()

    return away


def lines_of_links(records):
    """When each thread said what, by the thread."""
    found = defaultdict(list)
    for record in list(records):
        found[record.threadName].append(record)
    return found


def test_idle_service_and_client_are_back_after_a_stop_with_a_line_at_most_for_each_attempt(
    node, away, service_cls, name, amqp_config
):
    with run_services(service_cls, config=amqp_config):
        with ClusterRpcClient(config=amqp_config, timeout=8 * TIMEOUT) as client:
            assert client[name].echo("before") == "before"
            with recording("threadko") as records:
                with away(node.stop):
                    wait_until(
                        lambda: (
                            len(found := lines_of_links(records)) == 2
                            and min(map(len, found.values())) >= 3
                        )
                    )
                assert client[name].echo("after") == "after"
    for thread, lines in lines_of_links(records).items():
        texts = [record.getMessage() for record in lines]
        assert "lost the connection to" in texts[0], thread
        assert all("cannot connect to" in text for text in texts[1:]), texts
        assert not any("\n" in record.getMessage() or record.exc_info for record in lines)
        # Between two lines there is one pause at least: half of what doubles up to its cap.
        for number, (line, following) in enumerate(pairwise(lines), start=1):
            pause = min(FIRST * 2**number, CAP) / 2
            assert following.created - line.created > 0.9 * pause, texts


class Patient(Gate):
    """Holds workers for longer than a broker takes to start."""

    def hold(self, value):
        self.runs[value] += 1
        self.begun.release()
        assert self.open.wait(8 * TIMEOUT)


@pytest.fixture
def gate():
    made = Patient()
    yield made
    made.open.set()


def test_work_in_flight_is_done_again_and_answered_when_the_broker_is_killed(
    away, node, service_cls, name, gate, amqp_config, rpc_exchange, broker_uri
):
    config = {**amqp_config, "PUBLISH_TIMEOUT": 8 * TIMEOUT}
    replies = f"replies-{name}"
    with run_services(service_cls, config=config):
        declare_queue(broker_uri, replies, durable=True, exchange=rpc_exchange, routing_key=replies)
        # Returns when the broker has confirmed it, so that there is one of it, whatever comes.
        publish(
            broker_uri,
            b'{"args": ["held"], "kwargs": {}}',
            exchange=rpc_exchange,
            routing_key=f"{name}.hold",
            reply_to=replies,
            correlation_id="1",
            content_type="application/json",
            delivery_mode=2,
        )
        gate.wait_for(1)
        with away(node.kill):
            pass
        gate.wait_for(1)  # it comes again, while the first run still holds it
        gate.open.set()
        assert b'"held"' in expect_message(broker_uri, replies).body
        with ClusterRpcClient(config=config, timeout=TIMEOUT) as client:
            assert client[name].echo("next") == "next"
    assert gate.runs == {"held": 2, "next": 1}
    # The first run's acknowledgement was for a channel that is no more: it took nobody else's.
    assert queue_depth(broker_uri, f"rpc-{name}") == 0
    delete_queue(broker_uri, replies)
