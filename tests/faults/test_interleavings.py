"""Two things at once at a caller's or publisher's connection, on a broker that is only a socket."""

import logging
import queue
import select
import threading
import time
from functools import partial

import pytest
from pika import frame, spec

from tests.support.fake_broker import FakeBroker
from tests.support.timing import TIMEOUT, wait_until
from threadko.amqp.entities import Exchange
from threadko.amqp.message import Properties
from threadko.amqp.parameters import BrokerParameters
from threadko.amqp.publish import Publisher
from threadko.amqp.publishing import PublishLink
from threadko.amqp.shared import Borrowed, end_links
from threadko.concurrency.deadline import Deadline
from threadko.exceptions import ContainerStopped, PublishFailed
from threadko.rpc.caller import Caller
from threadko.rpc.replies import CallLink
from threadko.serialization import Serialization
from threadko.standalone.rpc import ClusterRpcClient

#: Seconds after which what is expected to fail has failed.
SOON = 0.05


@pytest.fixture
def make_broker():
    made = []

    def make(**options):
        made.append(FakeBroker(**options))
        return made[-1].__enter__()

    yield make
    for broker in made:
        # Those of publishers that are not garbage yet, for an error that is kept knows of them.
        parameters = BrokerParameters.from_uri(broker.uri)
        end_links(parameters.host, parameters.virtual_host)
        broker.close()


@pytest.fixture
def make_publisher():
    made = []

    def make(broker, **options):
        link = PublishLink(BrokerParameters.from_uri(broker.uri), name="threadko-t-1", **options)
        made.append(link)
        link.start()
        link.wait_up(Deadline(TIMEOUT))
        return link

    yield make
    for link in made:
        link.kill()


@pytest.fixture
def make_caller():
    """Makes callers that are up: the link, and what starts a call."""
    made = []

    def make(broker, publish_timeout=TIMEOUT):
        link = CallLink(
            BrokerParameters.from_uri(broker.uri),
            name="threadko-t-1",
            caller="t",
            exchange="x",
            publish_timeout=publish_timeout,
            max_message_size=1 << 20,
        )
        made.append(link)
        caller = Caller(link, Serialization.from_config({}))
        link.start()
        link.wait_up(Deadline(TIMEOUT))

        def call(*args, timeout=None):
            return caller.start(dict, "service", "method", args, {}, timeout)

        return link, call

    yield make
    for link in made:
        link.kill()


def fail_once(monkeypatch):
    """Let the next loop find no descriptors left."""
    real, left = select.epoll, [OSError(24, "Too many open files")]

    def epoll(*args, **kwargs):
        if left:
            raise left.pop()
        return real(*args, **kwargs)

    monkeypatch.setattr(select, "epoll", epoll)


def test_client_whose_start_has_failed_is_started_again(make_broker, monkeypatch):
    client = ClusterRpcClient(config={"AMQP_URI": make_broker().uri}, timeout=TIMEOUT)
    fail_once(monkeypatch)
    with pytest.raises(OSError, match="Too many open files"):
        client.start()
    client.start()
    client.stop()


def publish_on(borrowed):
    with borrowed.lent() as link:
        link.publish(b"x", Properties(), routing_key="q", timeout=TIMEOUT)


def test_publisher_whose_start_has_failed_is_started_again(make_broker, monkeypatch):
    borrowed = Borrowed("interleavings", BrokerParameters.from_uri(make_broker().uri))
    fail_once(monkeypatch)
    with pytest.raises(OSError, match="Too many open files"):
        publish_on(borrowed)
    publish_on(borrowed)


def test_request_that_was_written_just_now_resets_nothing_when_its_time_is_over(
    make_broker, make_caller
):
    broker = make_broker(confirms=False)
    link, call = make_caller(broker)
    late = call()
    broker.wait_for(lambda: len(broker.publishes) == 1)

    def be_late():
        # As one that had to wait for its connection until now.
        (request,) = link._unconfirmed
        request.confirm_by = 0.0
        link._check_confirms()

    link._link.post(be_late)
    with pytest.raises(PublishFailed, match="did not confirm"):
        late.result(TIMEOUT)
    call()
    broker.wait_for(lambda: len(broker.publishes) == 2)
    assert broker.accepted == 1


def test_requests_go_out_again_when_reply_queue_and_channel_were_lost_together(
    make_broker, make_caller
):
    consumed = []

    def is_mute(_, method):
        if isinstance(method, spec.Basic.Consume):
            consumed.append(method.consumer_tag)
            return len(consumed) == 2
        return False

    broker = make_broker(is_mute=is_mute)
    _, call = make_caller(broker)
    connection = broker.wait_consumer()
    call()
    broker.wait_for(lambda: len(broker.publishes) == 1)
    connection.send(frame.Method(1, spec.Basic.Cancel(consumed[0])).marshal())
    broker.wait_for(lambda: len(consumed) == 2)
    # What was written closes its channel, just as the consumer stands again.
    connection.send(
        frame.Method(2, spec.Channel.Close(404, "NOT_FOUND", 60, 40)).marshal()
        + frame.Method(1, spec.Basic.ConsumeOk(consumed[1])).marshal()
    )
    call()
    broker.wait_for(lambda: len(broker.publishes) == 2)


class Blocking:
    """Blocks publishers at the first message, and reads nothing before it is told to."""

    def __init__(self):
        self.bodies = []
        self.reads = threading.Event()

    def __call__(self, connection, published):
        self.bodies.append(published.body)
        if len(self.bodies) == 1:
            connection.send(frame.Method(0, spec.Connection.Blocked("memory")).marshal())
            self.connection = connection
        else:
            self.reads.wait(TIMEOUT)

    def unblock(self):
        self.reads.set()
        self.connection.send(frame.Method(0, spec.Connection.Unblocked()).marshal())


def test_what_failed_while_the_broker_blocked_is_not_sent_afterwards(make_broker, make_publisher):
    blocking = Blocking()
    link = make_publisher(make_broker(on_published=blocking), window=5)
    link.publish(b"first", Properties(), routing_key="q", timeout=TIMEOUT)
    wait_until(lambda: link._link.connection.blocked)
    for _ in range(3):  # each time the whole window
        failed = [
            link.publish_async(b"failed" * 20_000, Properties(), routing_key="q", timeout=SOON)
            for _ in range(5)
        ]
        for each in failed:
            with pytest.raises(PublishFailed, match="nothing was sent"):
                each.result(TIMEOUT)
    assert link._link.connection._transport.get_write_buffer_size() == 0
    waiting = link.publish_async(b"waiting", Properties(), routing_key="q", timeout=TIMEOUT)
    blocking.unblock()
    waiting.result(TIMEOUT)
    assert blocking.bodies == [b"first", b"waiting"]


def test_calls_that_failed_while_the_broker_blocked_leave_nothing(make_broker, make_caller):
    blocking = Blocking()
    broker = make_broker(on_published=blocking)
    link, call = make_caller(broker)
    call()
    wait_until(lambda: link._link.connection is not None and link._link.connection.blocked)
    failed = [call("x" * 100_000, timeout=SOON) for _ in range(20)]
    assert all(each.exception(TIMEOUT) for each in failed)
    call("waiting")
    blocking.unblock()
    broker.wait_for(lambda: len(broker.publishes) == 2)
    assert b"waiting" in blocking.bodies[1]
    wait_until(lambda: len(link._requests) == 0)


def mute_once(kind, number):
    """Leave the request of that number, among those of a kind, without an answer."""
    asked = []

    def is_mute(_, method):
        if isinstance(method, kind):
            asked.append(method)
            return len(asked) == number
        return False

    return is_mute


def test_publisher_gets_over_an_answer_that_never_comes(make_broker, make_publisher):
    broker = make_broker(is_mute=mute_once(spec.Exchange.Declare, 1))
    link = make_publisher(broker)
    link._link.answer_timeout = SOON
    declare = [Exchange("x", "topic")]
    link.publish(b"x", Properties(), exchange="x", declare=declare, timeout=TIMEOUT)
    assert broker.accepted >= 2  # on a busy machine an answer that does come may be too late too


def test_client_gets_over_an_answer_that_never_comes(make_broker, make_caller):
    broker = make_broker(is_mute=mute_once(spec.Confirm.Select, 2))
    link, call = make_caller(broker)
    link._link.answer_timeout = SOON
    connection = broker.wait_consumer()
    call()
    broker.wait_for(lambda: len(broker.publishes) == 1)
    connection.send(frame.Method(2, spec.Channel.Close(404, "NOT_FOUND", 60, 40)).marshal())
    call()
    broker.wait_for(lambda: broker.accepted >= 2)
    broker.wait_for(lambda: len(broker.publishes) >= 2)


def test_interrupt_counts_though_it_comes_before_the_declaration_is_known(
    make_broker, make_publisher
):
    broker = make_broker(is_mute=lambda _, method: isinstance(method, spec.Exchange.Declare))
    link = make_publisher(broker)
    wait_up = link.wait_up

    def wait_up_and_be_stopped(deadline):
        wait_up(deadline)
        link.interrupt()

    link.wait_up = wait_up_and_be_stopped
    with pytest.raises(ContainerStopped):
        link.declare([Exchange("x")], Deadline(TIMEOUT))


class Shipping(logging.Handler):
    """Sends what is logged to the broker, holding its lock meanwhile as every handler does."""

    def __init__(self, publisher):
        super().__init__()
        self.publisher = publisher
        self.errors = []
        self.refused = threading.Semaphore(0)  # of the connection's own thread, which may not

    def emit(self, record):
        try:
            self.publisher.publish(record.getMessage(), routing_key="logs", timeout=TIMEOUT / 10)
        except PublishFailed as error:
            self.errors.append(error)
        except RuntimeError:
            self.refused.release()
            raise


def test_log_handler_that_publishes_gets_over_a_lost_connection(make_broker):
    broker = make_broker(on_published=lambda connection, _: connection.close(), confirms=False)
    publisher = Publisher(
        broker.uri, serializer="json", serialization=Serialization.from_config({})
    )
    handler = Shipping(publisher)
    logger = logging.getLogger()
    logger.addHandler(handler)
    try:
        # The connection's thread tells of the loss, and waits for the lock of this very handler.
        # Then it is to publish itself, which is refused it by an error that the handler lets pass.
        thread = threading.Thread(
            target=lambda: logging.getLogger("app").warning("hello"), daemon=True
        )
        thread.start()
        thread.join(TIMEOUT)
        assert not thread.is_alive()
        for _ in range(2):  # to say that something cannot be logged fails too
            assert handler.refused.acquire(timeout=TIMEOUT)
    finally:
        logger.removeHandler(handler)
    assert str(handler.errors[0]).startswith("no confirm in time")


def test_confirm_that_is_there_counts_when_the_connection_s_thread_was_held_up(
    make_broker, make_publisher
):
    published = queue.SimpleQueue()
    broker = make_broker(on_published=lambda *found: published.put(found), confirms=False)
    link = make_publisher(broker)
    future = link.publish_async(b"x", Properties(), routing_key="q", timeout=TIMEOUT)
    connection, message = published.get(timeout=TIMEOUT)
    held, go_on = threading.Event(), threading.Event()

    def hold():
        held.set()
        go_on.wait(TIMEOUT)
        # Until its time is over, which is now.
        ((_, channel),) = link._channels.values()
        (publication,) = channel
        link._link.cancel_timer(publication.timer)
        overdue = partial(link._overdue, publication)
        publication.timer = link._link.call_at(time.monotonic(), overdue)

    link._link.post(hold)
    assert held.wait(TIMEOUT)
    connection.send(frame.Method(message.channel, spec.Basic.Ack(1)).marshal())
    go_on.set()
    assert future.result(TIMEOUT) is None
    assert broker.accepted == 1
