import contextlib
import gc
import queue
import socket
import struct
import threading
import uuid
import weakref
from concurrent.futures import CancelledError, wait
from typing import ClassVar

import pika.frame
import pika.spec
import pytest

from tests.conftest import pika_channel
from tests.support.proxy import Proxy
from tests.support.timing import TIMEOUT
from threadko.amqp.entities import Exchange
from threadko.amqp.message import Properties
from threadko.amqp.parameters import BrokerParameters
from threadko.amqp.publishing import PublishLink
from threadko.concurrency.deadline import Deadline
from threadko.exceptions import (
    BrokerRefused,
    ContainerStopped,
    EncodeError,
    PublishFailed,
    UndeliverableMessage,
    WorkerKilled,
)

NAME = "threadko-test-publish-1"

#: Longer than the silence after which the publisher takes a connection for dead.
SILENCE = 1.5


class Received:
    """A message that reached the scripted broker, and what the broker may answer."""

    def __init__(self, peer, channel, tag, method):
        self.peer = peer
        self.tag = tag
        self.exchange = method.exchange
        self.routing_key = method.routing_key
        self.mandatory = method.mandatory
        self.properties = None
        self.body = b""
        self.size = 0
        self._channel = channel

    def ack(self, multiple=False):
        self.peer.send(self._channel, pika.spec.Basic.Ack(self.tag, multiple))

    def nack(self):
        self.peer.send(self._channel, pika.spec.Basic.Nack(self.tag))

    def give_back(self):
        returned = pika.spec.Basic.Return(312, "NO_ROUTE", self.exchange, self.routing_key)
        self.peer.send(
            self._channel,
            returned,
            pika.frame.Header(self._channel, self.size, self.properties),
            pika.frame.Body(self._channel, self.body),
        )

    def refuse(self, code, text):
        self.peer.send(self._channel, pika.spec.Channel.Close(code, text, 60, 40))


class Peer:
    """One connection to the scripted broker. Its thread reads; any thread may send."""

    _ANSWERS: ClassVar = {
        pika.spec.Connection.StartOk: lambda broker: pika.spec.Connection.Tune(
            2047, broker.frame_max, 60
        ),
        pika.spec.Connection.Open: lambda _: pika.spec.Connection.OpenOk(),
        pika.spec.Connection.Close: lambda _: pika.spec.Connection.CloseOk(),
        pika.spec.Channel.Open: lambda _: pika.spec.Channel.OpenOk(),
        pika.spec.Channel.Close: lambda _: pika.spec.Channel.CloseOk(),
        pika.spec.Confirm.Select: lambda _: pika.spec.Confirm.SelectOk(),
        pika.spec.Exchange.Declare: lambda _: pika.spec.Exchange.DeclareOk(),
    }

    def __init__(self, broker, sock):
        self.broker = broker
        self.sock = sock
        self.said_goodbye = threading.Event()
        self.open_channels = set()
        self.most_channels = 0
        self._send_lock = threading.Lock()  # guards the order of frames on the socket
        self._tags = {}
        self._arriving = {}
        self.thread = threading.Thread(target=self._run, daemon=True)

    def send(self, channel, method, *frames):
        data = pika.frame.Method(channel, method).marshal()
        data += b"".join(frame.marshal() for frame in frames)
        with self._send_lock, contextlib.suppress(OSError):
            self.sock.sendall(data)

    def cut(self):
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)

    def _run(self):
        with contextlib.suppress(OSError):
            for frame in self._frames():
                self._take(frame)
        self.sock.close()

    def _frames(self):
        data = b""
        while chunk := self.sock.recv(65536):
            data += chunk
            while data:
                used, frame = pika.frame.decode_frame(data)
                if frame is None:
                    break
                data = data[used:]
                yield frame

    def _take(self, frame):
        number = getattr(frame, "channel_number", 0)
        if isinstance(frame, pika.frame.ProtocolHeader):
            self.broker.handshake.wait(TIMEOUT)
            capabilities = {"publisher_confirms": True, "basic.nack": True}
            capabilities["connection.blocked"] = True
            start = pika.spec.Connection.Start(0, 9, {"capabilities": capabilities}, "PLAIN")
            self.send(0, start)
        elif isinstance(frame, pika.frame.Header):
            message = self._arriving[number]
            message.properties, message.size = frame.properties, frame.body_size
            self._check_whole(number, message)
        elif isinstance(frame, pika.frame.Body):
            self._arriving[number].body += frame.fragment
            self._check_whole(number, self._arriving[number])
        elif isinstance(frame, pika.frame.Method):
            self._take_method(number, frame.method)

    def _take_method(self, number, method):
        if isinstance(method, pika.spec.Basic.Publish):
            self._tags[number] += 1
            self._arriving[number] = Received(self, number, self._tags[number], method)
            return
        if isinstance(method, pika.spec.Channel.Open):
            assert number not in self.open_channels
            self._tags[number] = 0
            self.open_channels.add(number)
            self.most_channels = max(self.most_channels, len(self.open_channels))
        elif isinstance(method, pika.spec.Channel.Close | pika.spec.Channel.CloseOk):
            self.open_channels.discard(number)
        elif isinstance(method, pika.spec.Connection.Close):
            self.said_goodbye.set()
        elif isinstance(method, pika.spec.Exchange.Declare):
            self.broker.declared.put(method)
            if self.broker.refuses(method):
                self.send(number, pika.spec.Channel.Close(406, "inequivalent arg", 40, 10))
                return
        answer = self._ANSWERS.get(type(method))
        if answer is not None:
            self.send(number, answer(self.broker))

    def _check_whole(self, number, message):
        if len(message.body) == message.size:
            del self._arriving[number]
            self.broker.received.put(message)


class ScriptedBroker:
    """Answers everything but messages: what becomes of those, the test decides."""

    def __init__(self):
        self.frame_max = 131072
        self.handshake = threading.Event()  # set: new connections are answered
        self.handshake.set()
        self.received = queue.SimpleQueue()
        self.declared = queue.SimpleQueue()
        self.refuses = lambda declaration: False
        self.peers = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.uri = f"amqp://127.0.0.1:{self._listener.getsockname()[1]}/"
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def take(self):
        return self.received.get(timeout=TIMEOUT)

    def close(self):
        self.handshake.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(TIMEOUT)
        for peer in self.peers:
            peer.cut()
            peer.thread.join(TIMEOUT)

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                peer = Peer(self, sock)
                self.peers.append(peer)
                peer.thread.start()


@pytest.fixture
def scripted():
    with contextlib.closing(ScriptedBroker()) as broker:
        yield broker


@pytest.fixture
def start():
    """Starts publishers, and ends them with the test."""
    publishers = []

    def start(uri, *, kind=PublishLink, up=True, **options):
        publisher = kind(BrokerParameters.from_uri(uri), name=NAME, timeout=TIMEOUT, **options)
        publishers.append(publisher)
        publisher.start()
        if up:
            publisher.wait_up(Deadline(TIMEOUT))
        return publisher

    yield start
    for publisher in publishers:
        publisher.kill()


@pytest.fixture
def broker(broker_uri):
    with pika_channel(broker_uri) as channel:
        yield channel


@pytest.fixture
def queue_name(broker):
    name = f"test-{uuid.uuid4().hex}"
    broker.queue_declare(name)
    yield name
    if broker.is_open:
        broker.queue_delete(name)


@pytest.fixture
def exchange_name(broker_uri):
    name = f"test-{uuid.uuid4().hex}"
    yield name
    with pika_channel(broker_uri) as channel:
        channel.exchange_delete(name)


def send(publisher, body=b"x", properties=None, **options):
    return publisher.publish_async(body, properties or Properties(), **options)


def messages(broker, name):
    """All messages of a queue: properties and body."""
    found = []
    while True:
        method, properties, body = broker.basic_get(name, auto_ack=True)
        if method is None:
            return found
        found.append((properties, body))


class Background:
    """A call on a thread of its own, and what came out of it."""

    def __init__(self, call):
        self._outcome = queue.SimpleQueue()
        self._call = call
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        try:
            result = self._call()
        except BaseException as error:
            self._outcome.put((error, None))
        else:
            self._outcome.put((None, result))

    def result(self):
        error, result = self._outcome.get(timeout=TIMEOUT)
        if error is not None:
            raise error
        return result


# Publishing, on a real broker


def test_published_message_is_in_the_queue_when_publish_returns(
    start, broker_uri, broker, queue_name
):
    publisher = start(broker_uri)
    properties = Properties(content_type="text/plain", headers={"a": 1.5}, message_id="one")
    publisher.publish(b"body", properties, routing_key=queue_name)
    ((found, body),) = messages(broker, queue_name)
    assert body == b"body"
    assert (found.content_type, found.message_id) == ("text/plain", "one")


def test_body_larger_than_a_frame_arrives_whole(start, broker_uri, broker, queue_name):
    publisher = start(broker_uri)
    body = bytes(range(256)) * 2000
    publisher.publish(body, Properties(), routing_key=queue_name)
    publisher.publish(b"", Properties(), routing_key=queue_name)
    assert [found for _, found in messages(broker, queue_name)] == [body, b""]


def test_messages_of_one_thread_arrive_in_order(start, broker_uri, broker, queue_name):
    publisher = start(broker_uri)
    sent = [str(number).encode() for number in range(500)]
    futures = [send(publisher, body, routing_key=queue_name) for body in sent]
    for future in futures:
        future.result(TIMEOUT)
    assert [body for _, body in messages(broker, queue_name)] == sent


def test_mandatory_message_that_no_queue_takes_is_undeliverable(start, broker_uri):
    publisher = start(broker_uri)
    with pytest.raises(UndeliverableMessage, match=r"'nowhere'.*312"):
        publisher.publish(b"x", Properties(), routing_key="nowhere", mandatory=True)


def test_message_that_no_queue_takes_is_lost_if_it_is_not_mandatory(start, broker_uri):
    start(broker_uri).publish(b"x", Properties(), routing_key="nowhere")


def test_mandatory_messages_among_others_fail_alone(start, broker_uri, broker, queue_name):
    publisher = start(broker_uri)
    keys = [queue_name, "nowhere"] * 50
    futures = [send(publisher, routing_key=key, mandatory=True) for key in keys]
    errors = [type(future.exception(TIMEOUT)) for future in futures]
    assert errors == [type(None), UndeliverableMessage] * 50
    assert len(messages(broker, queue_name)) == 50


def test_missing_exchange_fails_those_who_asked_for_it_and_nobody_else(
    start, broker_uri, broker, queue_name
):
    publisher = start(broker_uri)
    futures = []
    for number in range(50):
        exchange = "not-there" if number == 25 else ""
        futures.append(send(publisher, exchange=exchange, routing_key=queue_name))
    errors = [future.exception(TIMEOUT) for future in futures]
    assert [number for number, error in enumerate(errors) if error is not None] == [25]
    assert isinstance(errors[25], PublishFailed)
    assert "not-there" in str(errors[25])
    assert "404" in str(errors[25])
    assert len(messages(broker, queue_name)) == 49


def test_missing_exchange_can_be_used_as_soon_as_it_is_there(
    start, broker_uri, broker, exchange_name
):
    publisher = start(broker_uri)
    for _ in range(2):
        with pytest.raises(PublishFailed):
            publisher.publish(b"x", Properties(), exchange=exchange_name)
    broker.exchange_declare(exchange_name)
    publisher.publish(b"x", Properties(), exchange=exchange_name)


def test_exchange_is_declared_before_the_message_if_the_call_says_so(
    start, broker_uri, broker, queue_name, exchange_name
):
    publisher = start(broker_uri)
    publisher.publish(
        b"x", Properties(), exchange=exchange_name, declare=[Exchange(exchange_name, "topic")]
    )
    broker.queue_bind(queue_name, exchange_name, "#")
    publisher.publish(b"y", Properties(), exchange=exchange_name)
    assert [body for _, body in messages(broker, queue_name)] == [b"y"]


def test_exchange_of_ours_that_was_deleted_is_declared_again_and_the_message_repeated(
    start, broker_uri, broker, exchange_name
):
    publisher = start(broker_uri)
    exchange = Exchange(exchange_name, "topic")
    publish = {"exchange": exchange_name, "declare": [exchange]}
    publisher.publish(b"x", Properties(), **publish)
    broker.exchange_delete(exchange_name)
    futures = [send(publisher, **publish) for _ in range(20)]
    for future in futures:
        future.result(TIMEOUT)
    broker.exchange_declare(exchange_name, passive=True)


def test_exchange_first_used_without_declaring_it_is_declared_when_it_is_gone(
    start, broker_uri, broker, exchange_name
):
    publisher = start(broker_uri)
    broker.exchange_declare(exchange_name, "topic")
    publisher.publish(b"x", Properties(), exchange=exchange_name)
    broker.exchange_delete(exchange_name)
    publisher.publish(
        b"y", Properties(), exchange=exchange_name, declare=[Exchange(exchange_name, "topic")]
    )


def test_forbidden_exchange_fails_those_who_asked_for_it_alone(
    start, broker_uri, broker, queue_name, exchange_name
):
    broker.exchange_declare(exchange_name, internal=True)
    publisher = start(broker_uri)
    forbidden = [send(publisher, exchange=exchange_name) for _ in range(3)]
    fine = [send(publisher, routing_key=queue_name) for _ in range(3)]
    assert [future.exception(TIMEOUT) for future in fine] == [None] * 3
    for future in forbidden:
        assert "403" in str(future.exception(TIMEOUT))


def test_wrong_declaration_of_an_exchange_fails_its_author_and_nobody_after(
    start, broker_uri, broker, queue_name, exchange_name
):
    broker.exchange_declare(exchange_name, "topic", durable=True)
    broker.queue_bind(queue_name, exchange_name, "#")
    publisher = start(broker_uri)
    with pytest.raises(PublishFailed, match="inequivalent"):
        publisher.publish(
            b"x", Properties(), exchange=exchange_name, declare=[Exchange(exchange_name, "fanout")]
        )
    right = [Exchange(exchange_name, "topic")]
    publisher.publish(b"y", Properties(), exchange=exchange_name, declare=right)
    publisher.publish(b"z", Properties(), exchange=exchange_name)
    assert [body for _, body in messages(broker, queue_name)] == [b"y", b"z"]


class Forged(str):
    """Passes for any user name, until the broker reads it."""

    __slots__ = ()

    def __eq__(self, other):
        return True

    __hash__ = str.__hash__


def test_one_message_that_the_broker_refuses_fails_alone_among_ten(
    start, broker_uri, broker, queue_name
):
    publisher = start(broker_uri)
    publisher.publish(b"first", Properties(), routing_key=queue_name)
    futures = []
    for number in range(10):
        properties = Properties(user_id=Forged("somebody-else") if number == 4 else None)
        futures.append(send(publisher, str(number).encode(), properties, routing_key=queue_name))
    errors = [future.exception(TIMEOUT) for future in futures]
    assert [number for number, error in enumerate(errors) if error] == [4]
    assert "406" in str(errors[4])
    bodies = {body for _, body in messages(broker, queue_name)}
    assert bodies == {b"first"} | {str(number).encode() for number in range(10) if number != 4}


# What the broker would refuse is refused in the caller's thread


@pytest.mark.parametrize(
    ("properties", "options"),
    [
        ({"user_id": "somebody-else"}, {}),
        ({"expiration": "soon"}, {}),
        ({"expiration": "-1"}, {}),
        ({"headers": {"big": "x" * 140_000}}, {}),
        ({"headers": {"odd": object()}}, {}),
        ({"message_id": "x" * 256}, {}),
        ({}, {"routing_key": "x" * 256}),
        ({}, {"exchange": "x" * 256}),
        ({}, {"body": b"x" * 1001}),
        ({}, {"body": "text"}),
    ],
)
def test_message_that_cannot_be_sent_is_refused_and_costs_nobody_anything(
    start, scripted, properties, options
):
    publisher = start(scripted.uri, max_message_size=1000, window=1)
    options = {"body": b"x", **options}
    for _ in range(2):
        with pytest.raises(EncodeError):
            publisher.publish_async(properties=Properties(**properties), **options)
    future = send(publisher, b"good")
    message = scripted.take()
    assert message.body == b"good"
    message.ack()
    future.result(TIMEOUT)
    assert len(scripted.peers) == 1


def test_own_user_id_is_allowed(start, broker_uri):
    user = BrokerParameters.from_uri(broker_uri).user
    start(broker_uri).publish(b"x", Properties(user_id=user))


def test_header_that_the_broker_turns_out_not_to_take_fails_alone(start, scripted):
    # nobody knows the broker's limit before it has spoken
    scripted.frame_max = 4096
    scripted.handshake.clear()
    publisher = start(scripted.uri, up=False)
    large = send(publisher, properties=Properties(headers={"big": "x" * 5000}))
    small = send(publisher, b"small")
    scripted.handshake.set()
    message = scripted.take()
    assert message.body == b"small"
    message.ack()
    small.result(TIMEOUT)
    with pytest.raises(PublishFailed, match="frame_max"):
        large.result(TIMEOUT)


# Confirms


def test_nacked_message_fails_alone(start, scripted):
    publisher = start(scripted.uri)
    futures = [send(publisher) for _ in range(3)]
    received = [scripted.take() for _ in futures]
    received[1].nack()
    received[0].ack()
    received[2].ack()
    assert futures[0].result(TIMEOUT) is None
    assert futures[2].result(TIMEOUT) is None
    with pytest.raises(PublishFailed):
        futures[1].result(TIMEOUT)


def test_mandatory_message_gets_an_id_only_if_it_has_none(start, scripted):
    publisher = start(scripted.uri)
    send(publisher, mandatory=True)
    send(publisher, properties=Properties(message_id="mine"), mandatory=True)
    send(publisher)
    first, second, third = (scripted.take() for _ in range(3))
    assert first.properties.message_id
    assert first.mandatory
    assert second.properties.message_id == "mine"
    assert third.properties.message_id is None


def test_message_returned_before_a_cut_and_taken_after_it_is_delivered(start, scripted):
    publisher = start(scripted.uri)
    future = send(publisher, mandatory=True)
    message = scripted.take()
    message.give_back()
    message.peer.cut()
    scripted.take().ack()
    assert future.result(TIMEOUT) is None


# A lost connection


def test_unconfirmed_message_is_sent_again_with_the_same_id(start, scripted):
    publisher = start(scripted.uri)
    future = send(publisher, b"x", Properties(message_id="one"))
    first = scripted.take()
    first.peer.cut()
    second = scripted.take()
    assert second.peer is not first.peer
    assert (second.properties.message_id, second.body) == ("one", b"x")
    assert not future.done()
    second.ack()
    assert future.result(TIMEOUT) is None


def test_unconfirmed_message_fails_without_retry_and_is_not_sent_again(start, scripted):
    publisher = start(scripted.uri)
    once = send(publisher, b"once", retry=False)
    again = send(publisher, b"again")
    scripted.take()
    scripted.take().peer.cut()
    with pytest.raises(PublishFailed):
        once.result(TIMEOUT)
    message = scripted.take()
    assert message.body == b"again"
    message.ack()
    again.result(TIMEOUT)


def test_message_not_yet_written_goes_out_on_the_next_connection(start, scripted):
    scripted.handshake.clear()
    publisher = start(scripted.uri, up=False)
    future = send(publisher, retry=False)
    scripted.handshake.set()
    scripted.take().ack()
    assert future.result(TIMEOUT) is None


def test_each_waiter_gets_an_error_of_its_own_when_the_connection_is_lost(start, scripted):
    publisher = start(scripted.uri)
    futures = [send(publisher, retry=False) for _ in range(3)]
    for _ in futures:
        message = scripted.take()
    message.peer.cut()
    errors = {id(future.exception(TIMEOUT)) for future in futures}
    assert len(errors) == 3


# Deadlines


def test_missed_deadline_fails_that_message_alone_if_other_confirms_come(start, scripted):
    publisher = start(scripted.uri)
    late = send(publisher, exchange="a", timeout=SILENCE)
    scripted.take()
    fine = send(publisher, exchange="b")
    scripted.take().ack()
    fine.result(TIMEOUT)
    with pytest.raises(PublishFailed, match="unknown"):
        late.result(TIMEOUT)
    send(publisher, b"next")
    assert scripted.take().peer is scripted.peers[0]
    assert len(scripted.peers) == 1


def test_connection_that_confirms_nothing_is_made_anew_once(start, scripted):
    publisher = start(scripted.uri)
    first = send(publisher)
    scripted.take().ack()
    first.result(TIMEOUT)  # the channel stands: what follows is written at once
    futures = [send(publisher, timeout=SILENCE) for _ in range(10)]
    for _ in futures:
        scripted.take()
    for future in futures:
        with pytest.raises(PublishFailed, match="unknown"):
            future.result(TIMEOUT)
    fine = send(publisher, b"next")
    message = scripted.take()
    message.ack()
    fine.result(TIMEOUT)
    assert message.body == b"next"
    assert message.peer is scripted.peers[1]
    assert len(scripted.peers) == 2


def test_missed_deadline_of_the_old_connection_does_not_end_the_attempt_for_a_new_one(
    start, scripted
):
    publisher = start(scripted.uri)
    first = send(publisher, timeout=SILENCE)
    second = send(publisher, timeout=2 * SILENCE)
    scripted.take()
    scripted.take()
    scripted.handshake.clear()
    for future in (first, second):
        with pytest.raises(PublishFailed):
            future.result(TIMEOUT)
    scripted.handshake.set()
    send(publisher, b"next")
    assert scripted.take().peer is scripted.peers[1]
    assert len(scripted.peers) == 2


def test_short_deadline_does_not_cost_others_their_connection(start, scripted):
    publisher = start(scripted.uri)
    other = send(publisher, retry=False)
    scripted.take()
    for timeout in (0.01, 0.0, -1.0):
        with pytest.raises(PublishFailed):
            publisher.publish(b"short", Properties(), timeout=timeout)
    last = send(publisher, b"last")
    while (message := scripted.take()).body != b"last":
        pass
    message.ack(multiple=True)
    assert other.result(TIMEOUT) is None
    assert last.result(TIMEOUT) is None
    assert len(scripted.peers) == 1


def test_message_whose_deadline_passed_before_it_could_be_written_is_not_written(start, scripted):
    scripted.handshake.clear()
    publisher = start(scripted.uri, up=False)
    with pytest.raises(PublishFailed, match="nothing was sent"):
        publisher.publish(b"late", Properties(), timeout=0.05)
    scripted.handshake.set()
    send(publisher, b"next")
    assert scripted.take().body == b"next"


def test_blocked_publisher_fails_by_its_deadline_and_keeps_its_connection(start, scripted):
    publisher = start(scripted.uri)
    send(publisher, exchange="other")
    message = scripted.take()
    message.peer.send(0, pika.spec.Connection.Blocked("low on memory"))
    with pytest.raises(PublishFailed, match="blocks publishers"):
        publisher.publish(b"x", Properties(), timeout=SILENCE)
    message.peer.send(0, pika.spec.Connection.Unblocked())
    fine = send(publisher, b"next")
    received = scripted.take()
    assert received.body == b"next"  # and not what has failed
    received.ack(multiple=True)
    fine.result(TIMEOUT)
    assert len(scripted.peers) == 1


# The window


def test_full_window_makes_the_caller_wait_to_its_deadline_and_sends_nothing(start, scripted):
    publisher = start(scripted.uri, window=2)
    futures = [send(publisher), send(publisher)]
    with pytest.raises(PublishFailed, match="nothing was sent"):
        send(publisher, b"too many", timeout=0.1)
    scripted.take()
    scripted.take().ack(multiple=True)
    for future in futures:
        future.result(TIMEOUT)
    send(publisher, b"next")
    assert scripted.take().body == b"next"


def test_caller_who_waits_for_the_window_goes_on_when_a_confirm_comes(start, scripted):
    publisher = start(scripted.uri, window=1)
    send(publisher, b"first")
    waiter = Background(lambda: publisher.publish(b"second", Properties()))
    scripted.take().ack()
    scripted.take().ack()
    assert waiter.result() is None


def test_every_end_of_a_message_gives_its_place_in_the_window_back(start, scripted):
    publisher = start(scripted.uri, window=1)
    send(publisher, retry=False)
    scripted.take().nack()
    send(publisher, exchange="a")
    scripted.take().refuse(403, "ACCESS_REFUSED")
    lost = send(publisher, retry=False)
    scripted.take().peer.cut()
    assert lost.exception(TIMEOUT) is not None
    assert send(publisher, timeout=1.0).exception(TIMEOUT) is not None
    send(publisher, b"last")
    while scripted.take().body != b"last":
        pass  # the one before, if there was time to write it


@pytest.mark.parametrize(
    ("end", "error"),
    [
        (lambda publisher: publisher.kill(), WorkerKilled),
        (lambda publisher: publisher.stop(0.1), ContainerStopped),
    ],
    ids=["kill", "stop"],
)
def test_caller_who_waits_for_the_window_is_woken_at_the_end(start, scripted, end, error):
    publisher = start(scripted.uri, window=1)
    send(publisher)
    scripted.take()
    waiters = [Background(lambda: send(publisher)) for _ in range(3)]
    end(publisher)
    for waiter in waiters:
        with pytest.raises(error):
            waiter.result()


# Threads


def test_publishing_on_the_connection_thread_is_refused(start, scripted):
    outcome = queue.SimpleQueue()

    started = threading.Event()

    class Eager(PublishLink):
        def start(self):
            super().start()
            started.set()

        def begin(self, connection):
            started.wait(TIMEOUT)
            try:
                self.publish(b"x", Properties())
            except RuntimeError as error:
                outcome.put(str(error))
            super().begin(connection)

    start(scripted.uri, kind=Eager)
    assert "own thread" in outcome.get(timeout=TIMEOUT)


def test_done_callbacks_do_not_run_on_the_connection_thread(start, scripted):
    publisher = start(scripted.uri)
    names = queue.SimpleQueue()
    release = threading.Event()
    future = send(publisher)
    future.add_done_callback(lambda _: names.put(threading.current_thread().name))
    future.add_done_callback(lambda _: release.wait(TIMEOUT))
    scripted.take().ack()
    assert names.get(timeout=TIMEOUT) != NAME
    other = send(publisher)  # a callback that blocks holds nobody up
    scripted.take().ack()
    assert other.result(TIMEOUT) is None
    release.set()


class Held(PublishLink):
    """Holds its connection thread when a connection stands, until it is let go."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.reached = threading.Event()
        self.go = threading.Event()

    def begin(self, connection):
        self.reached.set()
        self.go.wait(TIMEOUT)
        super().begin(connection)


def test_message_cancelled_before_it_is_written_is_not_sent(start, scripted):
    publisher = start(scripted.uri, kind=Held, up=False, window=1)
    assert publisher.reached.wait(TIMEOUT)
    future = send(publisher, b"cancelled")
    assert future.cancel()
    publisher.go.set()
    send(publisher, b"sent")
    message = scripted.take()
    assert message.body == b"sent"
    with pytest.raises(CancelledError):
        future.result(TIMEOUT)


def test_message_that_is_written_cannot_be_cancelled(start, scripted):
    publisher = start(scripted.uri)
    future = send(publisher)
    message = scripted.take()
    assert not future.cancel()
    message.ack()
    assert future.result(TIMEOUT) is None


def test_finished_messages_are_let_go(start, scripted):
    publisher = start(scripted.uri)
    futures = [send(publisher, exchange=str(number % 3)) for number in range(9)]
    for number in range(9):
        message = scripted.take()
        message.ack() if number % 2 else message.nack()
    wait(futures, TIMEOUT)
    late = send(publisher, timeout=0.05)
    assert late.exception(TIMEOUT) is not None
    last = send(publisher, b"last")
    while (message := scripted.take()).body != b"last":
        pass  # the late one, if there was time to write it
    message.ack(multiple=True)
    last.result(TIMEOUT)
    references = [weakref.ref(future) for future in [*futures, late]]
    futures.clear()
    del late
    gc.collect()
    assert [reference() for reference in references] == [None] * 10


# Many exchanges


def test_channels_of_idle_exchanges_are_closed_when_there_are_many(start, scripted):
    publisher = start(scripted.uri)
    for number in range(200):
        future = send(publisher, exchange=str(number))
        scripted.take().ack()
        future.result(TIMEOUT)
    assert scripted.peers[0].most_channels <= 65  # one may be closing while the next opens
    assert len(scripted.peers) == 1


def test_exchange_used_again_keeps_its_channel(start, scripted):
    publisher = start(scripted.uri)
    tags = []
    for number in range(100):
        for name in ("favourite", str(number)):
            future = send(publisher, exchange=name)
            message = scripted.take()
            if name == "favourite":
                tags.append(message.tag)
            message.ack()
            future.result(TIMEOUT)
    assert tags == list(range(1, 101))


def test_more_exchanges_than_channels_at_once_are_all_served(start, scripted):
    publisher = start(scripted.uri)
    futures = [send(publisher, exchange=str(number)) for number in range(100)]
    received = [scripted.take() for _ in futures]
    for message in received:
        message.ack()
    for future in futures:
        assert future.result(TIMEOUT) is None


def test_idle_channels_are_not_opened_again_after_a_cut(start, scripted):
    publisher = start(scripted.uri)
    for number in range(5):
        future = send(publisher, exchange=str(number))
        scripted.take().ack()
        future.result(TIMEOUT)
    scripted.peers[0].cut()
    send(publisher, exchange="next")
    message = scripted.take()
    assert message.peer.most_channels == 1


def test_confirms_of_a_closed_channel_still_count_as_a_sign_of_life(start, scripted):
    publisher = start(scripted.uri)
    late = send(publisher, exchange="late", timeout=SILENCE)
    scripted.take()
    for number in range(70):
        future = send(publisher, exchange=str(number))
        scripted.take().ack()
        future.result(TIMEOUT)
    assert isinstance(late.exception(TIMEOUT), PublishFailed)
    send(publisher, b"next")
    assert scripted.take().peer is scripted.peers[0]


# Refused declarations


def test_refused_declaration_fails_what_waits_for_it_and_is_forgotten(start, scripted):
    publisher = start(scripted.uri)
    scripted.refuses = lambda declaration: declaration.type == "fanout"
    wrong = send(publisher, exchange="x", declare=[Exchange("x", "fanout")])
    with pytest.raises(PublishFailed, match="inequivalent"):
        wrong.result(TIMEOUT)
    send(publisher, exchange="x", declare=[Exchange("x", "topic")])
    assert scripted.take().exchange == "x"
    assert [scripted.declared.get(timeout=TIMEOUT).type for _ in range(2)] == ["fanout", "topic"]


# The end


def test_stop_waits_for_the_confirms_under_way_and_says_goodbye(start, scripted):
    publisher = start(scripted.uri)
    futures = [send(publisher, exchange=str(number % 2)) for number in range(10)]
    received = [scripted.take() for _ in futures]
    stopping = Background(lambda: publisher.stop(TIMEOUT))
    for last in {message.exchange: message for message in received}.values():
        last.ack(multiple=True)
    stopping.result()
    assert [future.result(TIMEOUT) for future in futures] == [None] * 10
    assert scripted.peers[0].said_goodbye.wait(TIMEOUT)


def test_stop_outlives_a_lost_connection_if_messages_are_under_way(start, scripted):
    publisher = start(scripted.uri)
    future = send(publisher)
    message = scripted.take()
    stopping = Background(lambda: publisher.stop(TIMEOUT))
    message.peer.cut()
    scripted.take().ack()
    stopping.result()
    assert future.result(TIMEOUT) is None


def test_stop_does_not_wait_for_a_message_that_nobody_waits_for(start, scripted):
    publisher = start(scripted.uri)
    with pytest.raises(PublishFailed):
        publisher.publish(b"x", Properties(), timeout=0.05)
    publisher.stop(TIMEOUT)
    assert scripted.peers[0].said_goodbye.wait(TIMEOUT)


def test_stop_that_waited_in_vain_fails_what_is_under_way(start, scripted):
    publisher = start(scripted.uri)
    future = send(publisher)
    scripted.take()
    publisher.stop(0.1)
    with pytest.raises(PublishFailed):
        future.result(TIMEOUT)


def test_stopped_publisher_takes_no_messages(start, scripted):
    publisher = start(scripted.uri)
    publisher.stop(TIMEOUT)
    with pytest.raises(ContainerStopped):
        publisher.publish(b"x", Properties())


def test_publisher_that_was_not_started_takes_no_messages():
    publisher = PublishLink(BrokerParameters.from_uri("amqp://localhost"), name=NAME)
    for _ in range(2):
        with pytest.raises(ContainerStopped):
            publisher.publish(b"x", Properties(), timeout=0.1)


def test_kill_raises_in_all_who_wait_for_a_confirm(start, scripted):
    publisher = start(scripted.uri)
    waiters = [Background(lambda: publisher.publish(b"x", Properties())) for _ in range(3)]
    for _ in waiters:
        scripted.take()
    publisher.kill()
    for waiter in waiters:
        with pytest.raises(WorkerKilled):
            waiter.result()


def test_kill_raises_in_those_who_wait_for_a_connection_too(start, scripted):
    scripted.handshake.clear()
    publisher = start(scripted.uri, up=False)
    waiter = Background(lambda: publisher.publish(b"x", Properties()))
    publisher.kill()
    with pytest.raises(WorkerKilled):
        waiter.result()


def test_interrupt_ends_waiting_for_the_connection(start, scripted):
    scripted.handshake.clear()
    publisher = start(scripted.uri, up=False)
    waiter = Background(lambda: publisher.wait_up(Deadline(TIMEOUT)))
    publisher.interrupt()
    with pytest.raises(ContainerStopped):
        waiter.result()


def test_message_handed_over_while_the_publisher_gives_up_fails(start, broker_uri):
    giving_up, go_on = threading.Event(), threading.Event()

    class Held(PublishLink):
        def abandon(self, error, killed):
            giving_up.set()
            go_on.wait(TIMEOUT)
            super().abandon(error, killed)

    parts = BrokerParameters.from_uri(broker_uri)
    refused = f"amqp://nobody:wrong@{parts.host}:{parts.port}/"
    publisher = start(refused, kind=Held, up=False)
    assert giving_up.wait(TIMEOUT)
    future = send(publisher)  # nobody would ever come to see its deadline
    go_on.set()
    with pytest.raises(PublishFailed):
        future.result(TIMEOUT)
    with pytest.raises(BrokerRefused):
        publisher.wait_up(Deadline(TIMEOUT))


# Many threads and a bad network


@pytest.mark.long
def test_nothing_that_was_confirmed_is_lost_when_the_connection_is_cut_again_and_again(
    start, broker_uri, broker, queue_name
):
    threads, each, cuts = 8, 1250, 20
    confirmed = []
    begin = threading.Barrier(threads + 1)

    with Proxy.for_uri(broker_uri) as proxy:
        publisher = start(proxy.uri_for(broker_uri), window=100)

        def publish(thread):
            begin.wait(TIMEOUT)
            bodies = [struct.pack(">II", thread, number) for number in range(each)]
            futures = [send(publisher, body, routing_key=queue_name) for body in bodies]
            for body, future in zip(bodies, futures, strict=True):
                future.result(TIMEOUT)
                confirmed.append(body)

        workers = [Background(lambda thread=thread: publish(thread)) for thread in range(threads)]
        begin.wait(TIMEOUT)
        for _ in range(cuts):
            seen = proxy.forwarded["up"]
            with contextlib.suppress(TimeoutError):  # all may be published before the last cut
                proxy.wait_for(lambda: proxy.forwarded["up"] > seen + 20_000, 1.0)  # noqa: B023
            proxy.cut()
        for worker in workers:
            worker.result()
        publisher.stop(TIMEOUT)
    assert len(confirmed) == threads * each
    found = {body for _, body in drain(broker, queue_name)}
    assert found == set(confirmed)


def drain(broker, name):
    """All messages of a queue, by a consumer, as there are many."""
    broker.basic_qos(prefetch_count=1000)
    for method, properties, body in broker.consume(name, inactivity_timeout=TIMEOUT / 4):
        if method is None:
            break
        broker.basic_ack(method.delivery_tag)
        yield properties, body
    broker.cancel()


def test_window_is_never_exceeded_by_many_threads(start, scripted):
    publisher = start(scripted.uri, window=5)
    workers = [Background(lambda: [send(publisher) for _ in range(50)]) for _ in range(8)]
    outstanding = []
    for _ in range(400):
        outstanding.append(scripted.take())
        if len(outstanding) == 5:
            # five are unconfirmed: no sixth comes before one of them is
            assert scripted.received.empty()
            for message in outstanding:
                message.ack()
            outstanding.clear()
    for worker in workers:
        for future in worker.result():
            assert future.result(TIMEOUT) is None
