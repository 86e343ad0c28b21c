"""A slow, a hasty and a strange broker: the stream may be cut and glued anywhere.

The broker is a socket that the test writes to, so that what a real one would refuse to pass on can
be sent too.
"""

import json
import random
import struct
import threading

import pytest
from pika import frame, spec

from tests.faults.conftest import make_service, recording
from tests.faults.test_hostile_requests import mutate
from tests.support.fake_broker import FakeBroker, deliver
from tests.support.frames import array, content, entry, properties, shortstr, table
from tests.support.timing import TIMEOUT
from threadko.containers import ServiceContainer
from threadko.exceptions import RemoteError
from threadko.standalone.rpc import ClusterRpcClient

SEED = 20261124
HEARTBEAT = frame.Heartbeat().marshal()
NAME = "wire"
REQUESTS, REPLIES = 1, 2  # a service's channels


def header(correlation_id, **values):
    return properties(
        **{
            "content_type": b"application/json",
            "content_encoding": b"utf-8",
            "headers": table(),
            "correlation_id": correlation_id,
            "reply_to": b"caller",
            **values,
        }
    )


def request(tag, value, *, step=100_000, **values):
    """The frames of a request, which ``echo`` answers with ``value``."""
    body = json.dumps({"args": [value], "kwargs": {}}).encode()
    head = header(b"%d" % tag, **values)
    key = f"{NAME}.echo".encode()
    return deliver(REQUESTS, tag, head, body, routing_key=key, step=step)


@pytest.fixture
def broker():
    with FakeBroker() as made:
        yield made


@pytest.fixture
def service(broker):
    """A service at the fake broker; in the end its connection is the first, and still stands."""
    container = ServiceContainer(
        make_service(NAME), config={"AMQP_URI": broker.uri, "max_workers": 4}
    )
    with recording("threadko.amqp", "threadko.rpc.requests") as records:
        container.start()
        try:
            yield broker.wait_consumer()
            assert [record.getMessage() for record in records] == []
            assert broker.accepted == 1
        finally:
            container.stop()


def check_answers(broker, wanted):
    """Each request was answered once, with what it asked to hear, and acknowledged once."""
    broker.wait_for(lambda: len(broker.publishes) >= len(wanted))
    found = {int(each.properties.correlation_id): each.body for each in broker.publishes}
    assert len(broker.publishes) == len(wanted)
    assert {tag: json.loads(body)["result"] for tag, body in found.items()} == wanted
    broker.wait_for(lambda: len(broker.settled) >= len(wanted))
    assert sorted(broker.settled, key=lambda each: each[2]) == [
        (spec.Basic.Ack, REQUESTS, tag) for tag in sorted(wanted)
    ]


@pytest.mark.parametrize("size", [1, 2, 7, 8, 9, 11])
def test_requests_in_tiny_segments_are_answered(broker, service, size):
    stream = b"".join(request(tag, "x" * tag, step=5) for tag in range(1, 21))
    service.send_in_pieces(stream, [size] * (len(stream) // size))
    check_answers(broker, {tag: "x" * tag for tag in range(1, 21)})


def test_hundred_requests_in_one_segment_are_answered(broker, service):
    service.send(b"".join(request(tag, tag) for tag in range(1, 101)))
    check_answers(broker, {tag: tag for tag in range(1, 101)})


@pytest.mark.parametrize("step", [1, 100, 4096, 131_064])
def test_large_body_in_frames_of_any_size_is_put_together(broker, service, step):
    size = 20_000 if step == 1 else 2_000_000
    service.send(request(1, "x" * size, step=step))
    check_answers(broker, {1: "x" * size})


def test_random_streams_are_answered_however_they_are_cut(broker, service):
    """Bodies, frame sizes, heartbeats, empty frames, junk that is allowed, and cuts: by chance."""
    chance = random.Random(SEED)
    wanted, stream = {}, bytearray()
    for tag in range(1, 401):
        wanted[tag] = "x" * chance.choice([0, 1, 50, 500, 5000])
        frames = split(request(tag, wanted[tag], step=chance.choice([1, 7, 100, 10_000])))
        for at in range(len(frames) - 1, 0, -1):
            if chance.random() < 0.02:
                frames.insert(at, HEARTBEAT)
            if at > 2 and chance.random() < 0.02:
                frames.insert(at, frame.Body(REQUESTS, b"").marshal())
        stream += b"".join(frames)
        if chance.random() < 0.1:
            stream += chance.choice(HARMLESS)
    sizes = [chance.choice([1, 2, 3, 8, 100, 1500, 65_536]) for _ in range(20_000)]
    service.send_in_pieces(bytes(stream), sizes)
    check_answers(broker, wanted)


def split(stream):
    """The single frames of a stream."""
    frames, at = [], 0
    while at < len(stream):
        (length,) = struct.unpack_from(">I", stream, at + 3)
        frames.append(stream[at : at + length + 8])
        at += length + 8
    return frames


#: What a broker may say between messages without any harm.
HARMLESS = [
    HEARTBEAT,
    frame.Method(0, spec.Connection.Blocked("low on memory")).marshal(),
    frame.Method(0, spec.Connection.Unblocked()).marshal(),
    # A message for a channel that we have closed, or never opened.
    deliver(9, 1, properties(), b"stray", routing_key=b"x"),
    # A confirm of something that nobody has sent.
    frame.Method(REPLIES, spec.Basic.Ack(2**63)).marshal(),
    # A message that is returned, though nothing was mandatory.
    frame.Method(REPLIES, spec.Basic.Return(312, "NO_ROUTE", "exchange", "key")).marshal()
    + content(REPLIES, properties(message_id=b"\xff"), b"body"),
]


def raw_header(entries):
    return properties(
        content_type=b"application/json", correlation_id=b"1", reply_to=b"caller", headers=entries
    )


#: Properties that a broker would have to be broken, or of another make, to pass on.
UNREADABLE = {
    "empty": b"",
    "one byte": b"\x80",
    "all flags and no values": b"\xff\xfc",
    "flags without end": b"\xff\xff" * 10,
    "unused flag": b"\x00\x02",
    "more flags": b"\x80\x01\x00\x00",
    "string beyond its frame": struct.pack(">H", 1 << 15) + b"\xffabc",
    "table beyond its frame": struct.pack(">HI", 1 << 13, 2**32 - 1),
    "table cut off": struct.pack(">HI", 1 << 13, 10) + b"\x01at",
    "more than is announced": properties(priority=1) + b"\0",
    "unknown type": raw_header(table(entry(b"a", b"?", b""))),
    "type nul": raw_header(table(entry(b"a", b"\0", b""))),
    "text beyond its table": raw_header(table(entry(b"a", b"S", b"\xff\xff\xff\xff"))),
    "array beyond its table": raw_header(table(entry(b"a", b"A", b"\xff\xff\xff\xff"))),
    "array with half a value": raw_header(table(entry(b"a", b"A", array(b"I\0")))),
    "key beyond its table": raw_header(struct.pack(">I", 2) + b"\xffa"),
    "key without a value": raw_header(struct.pack(">I", 2) + b"\x01a"),
    "decimal without digits": raw_header(table(entry(b"a", b"D", b"\1"))),
}

#: And some that are merely strange.
ODD = {
    "infinite float": table(entry(b"nameko.a", b"f", b"\x7f\x80\0\0")),
    "nan": table(entry(b"nameko.a", b"d", b"\x7f\xf8" + bytes(6))),
    "unsigned short U": table(entry(b"nameko.a", b"U", b"\x80\0")),
    "stack of numbers": table(entry(b"nameko.call_id_stack", b"A", array(b"t\1", b"V", b"U\0\1"))),
}


def test_request_is_rejected_when_its_properties_cannot_be_read(broker, service):
    key = f"{NAME}.echo".encode()
    for tag, bad in enumerate(UNREADABLE.values(), 1):
        service.send(deliver(REQUESTS, tag, bad, b"{}", routing_key=key))
    broker.wait_for(lambda: len(broker.settled) == len(UNREADABLE))
    assert {method for method, _, _ in broker.settled} == {spec.Basic.Reject}
    assert sorted(tag for _, _, tag in broker.settled) == list(range(1, len(UNREADABLE) + 1))
    assert broker.publishes == []
    broker.settled.clear()
    tag = len(UNREADABLE) + 1
    service.send(request(tag, "next"))
    check_answers(broker, {tag: "next"})


def test_request_is_answered_when_its_headers_are_merely_strange(broker, service):
    for tag, headers in enumerate(ODD.values(), 1):
        service.send(request(tag, tag, headers=headers))
    check_answers(broker, {tag: tag for tag in range(1, len(ODD) + 1)})


def test_random_properties_cost_one_message_each(broker, service):
    chance = random.Random(SEED)
    key = f"{NAME}.echo".encode()
    whole = header(
        b"1",
        headers=table(
            entry(b"nameko.a", b"A", array(b"t\1", b"F" + table(entry(b"b", b"V", b""))))
        ),
        message_id=b"id",
        timestamp=5,
        priority=1,
    )
    body = b'{"args": [1], "kwargs": {}}'
    for tag in range(1, 1001):
        bad = (
            mutate(chance, whole)
            if chance.random() < 0.7
            else chance.randbytes(chance.randrange(60))
        )
        service.send(deliver(REQUESTS, tag, bad, body, routing_key=key))
    broker.wait_for(lambda: len(broker.settled) >= 1000)
    assert sorted(tag for _, _, tag in broker.settled) == list(range(1, 1001))
    broker.settled.clear()
    broker.publishes.clear()
    service.send(request(1001, "next"))
    check_answers(broker, {1001: "next"})


NONSENSE = {
    "no frame end": HEARTBEAT[:-1] + b"\0",
    "body without a message": frame.Body(REQUESTS, b"x").marshal(),
    "header without a message": content(REQUESTS, properties(), b""),
    "unknown class": struct.pack(">BHIHH", 1, REQUESTS, 4, 999, 1) + b"\xce",
    "unknown method": struct.pack(">BHIHH", 1, REQUESTS, 4, 60, 999) + b"\xce",
    "delivery without arguments": struct.pack(">BHIHH", 1, REQUESTS, 4, 60, 60)
    + b"\xce"
    + content(REQUESTS, properties(), b""),
    "confirm without a tag": struct.pack(">BHIHH", 1, REPLIES, 4, 60, 80) + b"\xce",
    "unknown kind of frame": struct.pack(">BHI", 7, 0, 0) + b"\xce",
    "frame beyond what was agreed": struct.pack(">BHI", 3, REQUESTS, 2**32 - 1) + b"x",
    "another protocol": b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n",
    "body longer than announced": deliver(REQUESTS, 1, properties(), b"")[:-9]
    + struct.pack(">Q", 1)
    + b"\0\0\xce"
    + frame.Body(REQUESTS, b"xx").marshal(),
    "random bytes": random.Random(SEED).randbytes(500),
}


@pytest.mark.parametrize("nonsense", NONSENSE)
def test_service_connects_anew_when_the_broker_talks_nonsense(broker, nonsense):
    container = ServiceContainer(make_service(NAME), config={"AMQP_URI": broker.uri})
    with recording("threadko") as records:
        container.start()
        try:
            broker.wait_consumer().send(NONSENSE[nonsense])
            second = broker.wait_consumer(2)
            second.send(request(1, "next"))
            check_answers(broker, {1: "next"})
        finally:
            container.stop()
    told = [record.getMessage() for record in records]
    assert broker.accepted == 2
    assert any("lost the connection" in line for line in told)
    assert len(told) <= 2, told


def test_replies_are_found_however_they_are_cut():
    chance = random.Random(SEED)
    lock = threading.Lock()
    held = []

    def answer(connection, published):
        """Answer a hundred calls in one stream, in another order, cut by chance."""
        with lock:
            held.append(published)
            if len(held) < 100:
                return
        chance.shuffle(held)
        stream = b""
        for tag, each in enumerate(held, 1):
            value = json.loads(each.body)["args"][0]
            body = json.dumps({"result": value, "error": None}).encode()
            head = header(each.properties.correlation_id.encode(), reply_to=None)
            stream += deliver(1, tag, head, body, step=chance.choice([1, 50, 5000]))
            stream += chance.choice([b"", b"", HEARTBEAT])
        connection.send_in_pieces(stream, [chance.choice([1, 5, 500]) for _ in range(5000)])

    with FakeBroker(on_published=answer) as broker:
        with ClusterRpcClient(uri=broker.uri, timeout=TIMEOUT) as client:
            calls = [client.wire.echo.call_async("x" * number) for number in range(100)]
            assert [call.result() for call in calls] == ["x" * number for number in range(100)]
            broker.wait_for(lambda: bool(broker.settled) and broker.settled[-1][2] == 100)
    assert broker.accepted == 1


def test_call_fails_alone_when_the_properties_of_its_reply_cannot_be_read():
    """As far as its correlation id can be found, which comes behind the headers."""
    answers = [
        struct.pack(">HI", 1 << 13 | 1 << 10, 5) + b"\x01a?\0\0",
        struct.pack(">HI", 1 << 13 | 1 << 10, 1) + b"\xff",
        struct.pack(">HI", 1 << 13 | 1 << 10 | 2, 0),
    ]

    def answer(connection, published):
        number = json.loads(published.body)["args"][0]
        correlation_id = published.properties.correlation_id.encode()
        head = header(correlation_id)
        if number < len(answers):
            head = answers[number] + shortstr(correlation_id)
        connection.send(deliver(1, number + 1, head, b'{"result": "good", "error": null}'))

    with FakeBroker(on_published=answer) as broker:
        with ClusterRpcClient(uri=broker.uri, timeout=TIMEOUT) as client:
            calls = [client.wire.echo.call_async(number) for number in range(len(answers) + 3)]
            for call in calls[: len(answers)]:
                with pytest.raises(RemoteError, match="MalformedReply"):
                    call.result()
            assert [call.result() for call in calls[len(answers) :]] == ["good"] * 3
    assert broker.accepted == 1
