"""One loss, and ten thousand who wait: each gets an error of its own, which does not grow."""

import concurrent.futures
import time

import pytest

from tests.rpc.raw import RawService
from tests.support.amqp import declare_queue, delete_queue, queue_depth
from tests.support.timing import TIMEOUT
from threadko.amqp.message import Properties
from threadko.amqp.parameters import BrokerParameters
from threadko.amqp.publishing import PublishLink
from threadko.exceptions import PublishFailed, ReplyQueueExpiredWithPendingReplies
from threadko.standalone.rpc import ClusterRpcClient

WAITERS = 10_000


def chain(error):
    """An error, and those that it comes from."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def length(traceback):
    """The entries of a traceback."""
    found = 0
    while traceback is not None:
        traceback, found = traceback.tb_next, found + 1
    return found


def check(futures, expected):
    """Each raises an error of its own, every time that it is asked, and none becomes longer."""
    errors = []
    for future in futures:
        for _ in range(2):
            with pytest.raises(expected) as caught:
                future.result(TIMEOUT)
            errors.append(caught.value)
    assert len({id(error) for error in errors[::2]}) == WAITERS
    lengths = {length(each.__traceback__) for error in errors for each in chain(error)}
    assert max(lengths) <= 20, lengths
    assert max(len(str(error)) for error in errors) < 1000


@pytest.mark.long
def test_each_of_ten_thousand_publishers_gets_a_small_error_of_its_own(
    amqp_config, proxy, broker_uri
):
    queue = declare_queue(broker_uri)
    publisher = PublishLink(
        BrokerParameters.from_uri(proxy.uri_for(broker_uri)),
        name="threadko-test-publisher-1",
        window=WAITERS,
        timeout=TIMEOUT * 3,
    )
    publisher.start()
    try:
        publisher.publish(b"before", Properties(), routing_key=queue)
        proxy.hole()
        futures = [
            publisher.publish_async(b"during", Properties(), routing_key=queue, retry=False)
            for _ in range(WAITERS)
        ]
        proxy.wait_for(lambda: proxy.swallowed["up"] > WAITERS)
        proxy.cut()
        proxy.heal()
        concurrent.futures.wait(futures, TIMEOUT)
        check(futures, PublishFailed)
    finally:
        publisher.stop(TIMEOUT)
        delete_queue(broker_uri, queue)


@pytest.mark.long
def test_each_of_ten_thousand_callers_gets_a_small_error_of_its_own(
    amqp_config, name, broker_uri, rpc_exchange
):
    rpc_client = ClusterRpcClient(config=amqp_config)
    with rpc_client as client, RawService(broker_uri, rpc_exchange, name) as far:
        first = client[name].method.call_async()
        reply_to = far.take().properties.reply_to
        calls = [first, *(client[name].method.call_async() for _ in range(WAITERS - 1))]
        end = time.monotonic() + TIMEOUT * 2
        while queue_depth(broker_uri, far.queue) < WAITERS - 1:
            assert time.monotonic() < end
        delete_queue(broker_uri, f"rpc.reply-standalone_rpc_client-{reply_to}")
        check(calls, ReplyQueueExpiredWithPendingReplies)
        assert rpc_client.pending == 0
