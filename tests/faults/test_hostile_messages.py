"""Messages and events of every wrong shape: each is handled, or lies in the dead queue.

The service has one worker, so that it has begun all before a message once it handles that.
"""

import json
import queue
import uuid

import pytest

from tests.faults.conftest import recording
from tests.faults.test_hostile_requests import (
    BODIES,
    CORRELATION_IDS,
    HEADERS,
    MALFORMED,
    PROPERTIES,
    UNREADABLE,
    Case,
    send_all,
    with_properties,
)
from tests.support.amqp import queue_depth, take_messages, wait_for_queue
from tests.support.frames import RawSender, properties, table
from tests.support.timing import TIMEOUT
from threadko.containers import ServiceContainer
from threadko.events import event_handler
from threadko.extensions import DependencyProvider
from threadko.messaging import Queue, consume

SENTINEL = b'"the last one"'


def envelope(kind, value):
    return json.dumps({"__type__": kind, "__value__": value}).encode()


#: No JSON, or what stands in it for a value that is none.
BAD_JSON = [
    b" ",
    b"\x00",
    b"nul",
    b"True",
    b"None",
    b"undefined",
    b"+1",
    b".5",
    b"1.",
    b"01",
    b"0x1",
    b"1_000",
    b"1 2",
    b"--1",
    b"1e",
    b"9" * 10_000,
    b"-" + b"9" * 10_000,
    b'"',
    b'"text',
    b"'text'",
    b'"\\x41"',
    b'"\\u12"',
    b'"\\ud8"',
    b'"line\nend"',
    b'"tab\t"',
    b'"\xff"',
    b'"\xc3"',
    b'"\xed\xa0\x80"',
    b'"\xc0\xaf"',
    b"\xef\xbb\xbf1",
    b"\xff\xfe1\x00",
    b"[",
    b"]",
    b"[1",
    b"[1,]",
    b"[,1]",
    b"[1 2]",
    b"[1] [2]",
    b"[" * 100_000,
    b"[" * 100_000 + b"]" * 100_000,
    b'{"a":' * 100_000,
    b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    b"{",
    b"{1: 2}",
    b"{a: 1}",
    b"{'a': 1}",
    b'{"a"}',
    b'{"a": }',
    b'{"a": 1,}',
    b'{"a": 1}}',
    b'{"a": 1} // comment',
    b"/* comment */ 1",
    b"1\x00",
    b"\x1f\x8b\x08\x00",
    b"\x80\x04K\x01.",
    b"a: 1",
    b"<a/>",
    envelope("unknown", 1),
    envelope(None, 1),
    envelope(["date"], 1),
    envelope("datetime", "yesterday"),
    envelope("date", 5),
    envelope("time", "25:00"),
    envelope("decimal", "one"),
    envelope("decimal", {"a": 1}),
    envelope("uuid", "x"),
    envelope("uuid", {"hex": "x" * 32}),
    envelope("bytes", 5),
    envelope("base64", "!"),
]


class Ids(DependencyProvider):
    """Notes the id of each message that is handled."""

    def __init__(self, handled):
        self.handled = handled

    def worker_setup(self, worker_ctx):
        self.handled.append(worker_ctx.message_id)


class Consumer:
    """A running service behind a proxy, and the queue of each of its two consumers."""

    def __init__(self, container, queues, handled, last):
        self.container = container
        self.queues = queues
        self.handled = handled
        self._last = last

    def settle(self, sender, queue_name):
        """Wait until all before now is handled or dead, and see that it works."""
        header = properties(content_type=b"application/json", message_id=b"sentinel")
        sender.send("", queue_name.encode(), header, SENTINEL)
        sender.flush()
        assert self._last.get(timeout=TIMEOUT * 3) == json.loads(SENTINEL)


@pytest.fixture
def sender(broker_uri):
    with RawSender(broker_uri) as made:
        yield made


@pytest.fixture
def consumer(names, amqp_config, broker_uri, proxy):
    """A service that keeps its connections, however bad its messages are."""
    service_name, source, queue_name = names.service(), names.service("source"), names.queue()
    events = f"evt-{source}-thing--{service_name}.heard"
    names.queues.append(events)
    handled, last = [], queue.SimpleQueue()

    class Service:
        name = service_name
        ids = Ids(handled)

        @consume(Queue(queue_name), dead_letter=True)
        def handle(self, body):
            if body == json.loads(SENTINEL):
                last.put(body)

        @event_handler(source, "thing", dead_letter=True)
        def heard(self, body):
            self.handle(body)

    config = {
        **amqp_config,
        "AMQP_URI": proxy.uri_for(broker_uri),
        "max_workers": 1,
        "PREFETCH_COUNT": 100,
    }
    container = ServiceContainer(Service, config=config)
    with recording("threadko.amqp.link", "threadko.amqp.connection") as records:
        container.start()
        try:
            accepted = proxy.accepted
            yield Consumer(container, [queue_name, events], handled, last)
            assert proxy.accepted == accepted, "a connection was lost"
            assert not container.being_killed
            assert [record.getMessage() for record in records] == []
        finally:
            container.stop()
    assert [queue_depth(broker_uri, each) for each in (queue_name, events)] == [0, 0]


@pytest.mark.parametrize("place", [0, 1], ids=["consume", "event_handler"])
def test_message_that_cannot_be_read_lies_in_the_dead_queue(
    place, consumer, sender, broker_uri, figure
):
    assert len(set(BAD_JSON)) == len(BAD_JSON) >= 40
    queue_name = consumer.queues[place]
    for number, body in enumerate(BAD_JSON):
        header = properties(
            content_type=b"application/json",
            content_encoding=b"utf-8",
            message_id=b"%d" % number,
        )
        sender.send("", queue_name.encode(), header, body)
    consumer.settle(sender, queue_name)
    wait_for_queue(broker_uri, f"{queue_name}.dead")
    dead = take_messages(broker_uri, f"{queue_name}.dead", len(BAD_JSON), TIMEOUT * 2)
    assert queue_depth(broker_uri, f"{queue_name}.dead") == 0
    assert sorted(int(each.properties.message_id) for each in dead) == list(range(len(BAD_JSON)))
    for each in dead:
        assert each.body == BAD_JSON[int(each.properties.message_id)]
        assert each.properties.headers["x-threadko-reason"] == "undecodable"
    assert consumer.handled == ["sentinel"]
    what = "messages" if place == 0 else "events"
    figure("json", f"{len(dead)} as {what}, each dead-lettered")


def test_request_whose_body_is_bad_json_is_malformed(attack, box, sender, rpc_exchange, figure):
    bodies = list(dict.fromkeys([*BAD_JSON, *MALFORMED]))
    cases = {
        f"{at}: {body[:80]!r}": Case(body, "MalformedRequest") for at, body in enumerate(bodies)
    }
    with attack(max_workers=1, PREFETCH_COUNT=100) as target:
        replies = box()
        sent = send_all(sender, rpc_exchange, target.name, replies.reply_to, cases)
        found = replies.take(len(sent))
        assert replies.left() == 0
        assert sorted(reply.correlation_id for reply, _ in found) == sorted(sent)
        for reply, body in found:
            title, _ = sent[reply.correlation_id]
            assert json.loads(body)["error"]["exc_type"] == "MalformedRequest", title
    figure("json", f"{len(found)} as requests, each answered with MalformedRequest")


#: Odd in other ways than by their body, which is fine.
ODD = {
    **{name: case for name, case in PROPERTIES.items() if name != "expiration"},
    **HEADERS,
    **{name: with_properties(headers=headers) for name, headers in UNREADABLE.items()},
    **{
        f"correlation id {name}": with_properties(correlation_id=each)
        for name, each in CORRELATION_IDS.items()
    },
    **{
        f"reply to {each!r}": with_properties(reply_to=each)
        for each in [b"", b"\xff\xfe", b"a\0b", b"#", b"r" * 255]
    },
}


@pytest.mark.parametrize("cases", [BODIES, ODD], ids=["bodies", "properties and headers"])
@pytest.mark.parametrize("place", [0, 1], ids=["consume", "event_handler"])
def test_odd_message_is_handled_or_lies_in_the_dead_queue(
    cases, place, consumer, sender, broker_uri, figure
):
    queue_name = consumer.queues[place]
    ids = set()
    for case in cases.values():
        message_id = uuid.uuid4().hex
        ids.add(message_id)
        values = {
            "content_type": b"application/json",
            "content_encoding": b"utf-8",
            "headers": table(),
            "message_id": message_id.encode(),
            **dict(case.properties),
        }
        sender.send("", queue_name.encode(), properties(**values), case.body)
    consumer.settle(sender, queue_name)
    consumer.container.stop()  # what is on its way to the dead queue has arrived
    dead = queue_depth(broker_uri, f"{queue_name}.dead")
    handled = len(consumer.handled) - 1
    assert handled + dead == len(cases)
    known = [each for each in consumer.handled if each in ids]
    assert len(known) == len(set(known)), "handled twice"
    what = "messages" if place == 0 else "events"
    figure("amqp", f"{len(cases)} as {what}: {handled} handled, {dead} dead-lettered")
