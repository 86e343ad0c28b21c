"""A connection without sockets, driven by good clients and by bad ones."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pika import spec
from pika.frame import Method

from tests.devbroker.dummies import FakeBroker
from threadko.devbroker.frames import PROTOCOL_HEADER, Parser, decode_method

HELLO = PROTOCOL_HEADER


def raw(channel, method):
    return Method(channel, method).marshal()


def frame(kind, channel, payload):
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + b"\xce"


LOGIN = HELLO + b"".join(
    (
        raw(0, spec.Connection.StartOk({}, "PLAIN", "\0guest\0guest", "en_US")),
        raw(0, spec.Connection.TuneOk(2047, 131072, 0)),
        raw(0, spec.Connection.Open("/")),
    )
)


def message(channel, key, body, exchange=""):
    pieces = [raw(channel, spec.Basic.Publish(exchange=exchange, routing_key=key))]
    pieces.append(frame(2, channel, struct.pack(">HHQH", 60, 0, len(body), 0)))
    if body:
        pieces.append(frame(3, channel, body))
    return b"".join(pieces)


def methods(session):
    """Take the output, and return its methods."""
    data = session.take_output()
    session.note_written(len(data))
    return [decode_method(payload) for kind, _, payload in Parser(1 << 20).feed(data) if kind == 1]


@pytest.fixture
def broker():
    return FakeBroker()


@pytest.fixture
def session(broker):
    made = broker.connect()
    made.receive(LOGIN + raw(1, spec.Channel.Open()))
    assert [type(each) for each in methods(made)][-1] is spec.Channel.OpenOk
    return made


def test_bytes_may_come_one_by_one(broker):
    session = broker.connect()
    for number in LOGIN:
        session.receive(bytes((number,)))
    assert session.is_open
    assert isinstance(methods(session)[-1], spec.Connection.OpenOk)


@pytest.mark.parametrize(
    ("step", "code"),
    [
        (raw(0, spec.Connection.Open("/")), 503),
        (raw(0, spec.Connection.StartOk({}, "MAGIC", "", "en_US")), 504),
        (raw(1, spec.Channel.Open()), 504),
    ],
)
def test_wrong_step_is_refused(broker, step, code):
    session = broker.connect()
    session.receive(HELLO + step)
    assert methods(session)[-1].reply_code == code
    assert session.has_ended


@pytest.mark.parametrize("response", ["", "guest", "\0guest\0wrong", "\0a\0b\0c", "\0\xff"])
def test_login_that_is_none_is_refused_without_a_word(broker, response):
    session = broker.connect()
    session.receive(HELLO + raw(0, spec.Connection.StartOk({}, "PLAIN", response, "en_US")))
    assert [type(each) for each in methods(session)] == [spec.Connection.Start]
    assert session.has_ended


def test_publishers_that_are_blocked_are_told(broker):
    session = broker.connect()
    capable = {"capabilities": {"connection.blocked": True}}
    session.receive(
        LOGIN.replace(
            raw(0, spec.Connection.StartOk({}, "PLAIN", "\0guest\0guest", "en_US")),
            raw(0, spec.Connection.StartOk(capable, "PLAIN", "\0guest\0guest", "en_US")),
        )
    )
    methods(session)
    session.block("why")
    session.block("again")
    session.unblock()
    assert [type(each) for each in methods(session)] == [
        spec.Connection.Blocked,
        spec.Connection.Unblocked,
    ]


def test_reader_that_never_reads_stops_getting(broker, session):
    session.receive(raw(1, spec.Queue.Declare(queue="q")))
    session.receive(raw(1, spec.Basic.Consume(queue="q", no_ack=True)))
    for _ in range(64):
        session.receive(message(1, "q", b"x" * 100_000))
    queue = broker.vhosts["/"].queues["q"]
    assert 0 < len(queue) < 64
    waiting = len(queue)
    data = session.take_output()
    session.note_written(len(data))
    assert len(queue) < waiting


def test_client_that_asks_for_more_than_it_reads_is_dropped(session):
    session.receive(raw(1, spec.Queue.Declare(queue="q")))
    session.receive(message(1, "q", b"x" * 130_000))
    get = raw(1, spec.Basic.Get(queue="q")) + raw(1, spec.Basic.RecoverAsync(requeue=True))
    for _ in range(2000):
        session.receive(get)
        if session.has_ended:
            break
    assert session.has_ended


def test_end_gives_back_and_leaves_nothing(broker, session):
    session.receive(raw(1, spec.Queue.Declare(queue="q")))
    session.receive(raw(1, spec.Queue.Declare(queue="own", exclusive=True)))
    session.receive(message(1, "q", b"a") + raw(1, spec.Basic.Get(queue="q")))
    session.end()
    vhost = broker.vhosts["/"]
    assert list(vhost.queues) == ["q"]
    assert vhost.queues["q"].get().redelivered


@pytest.mark.parametrize(
    "method",
    [spec.Tx.Select(), spec.Tx.Commit(), spec.Tx.Rollback()],
)
def test_transactions_are_refused_loudly(session, method):
    session.receive(raw(1, method))
    close = methods(session)[-1]
    assert (type(close), close.reply_code) == (spec.Connection.Close, 540)


def test_message_that_is_still_arriving_takes_memory(broker, session):
    before = broker.bytes
    session.receive(raw(1, spec.Basic.Publish(exchange="", routing_key="q")))
    session.receive(frame(2, 1, struct.pack(">HHQH", 60, 0, 1_000_000, 0)))
    session.receive(frame(3, 1, b"x" * 100_000) * 3)
    assert broker.bytes - before == 300_000
    session.receive(raw(1, spec.Channel.Close(200, "", 0, 0)))
    methods(session)
    assert broker.bytes == before


def test_output_that_nobody_reads_takes_memory(broker, session):
    session.receive(message(1, "q", b"") + raw(1, spec.Queue.Declare(queue="q")))
    assert broker.bytes > 0
    session.end()
    assert broker.bytes == 0


def test_message_that_will_be_too_large_is_refused_before_it_has_come(session):
    session.receive(raw(1, spec.Basic.Publish(exchange="", routing_key="q")))
    session.receive(frame(2, 1, struct.pack(">HHQH", 60, 0, (128 << 20) + 1, 0)))
    close = methods(session)[-1]
    assert (type(close), close.reply_code) == (spec.Channel.Close, 406)
    session.receive(frame(3, 1, b"x" * 1000))  # what is on the way is passed over
    assert methods(session) == []


@pytest.mark.parametrize(("channel_max", "frame_max"), [(0, 131072), (10, 0), (3000, 131072)])
def test_more_than_was_offered_is_refused(broker, channel_max, frame_max):
    session = broker.connect()
    session.receive(
        HELLO
        + raw(0, spec.Connection.StartOk({}, "PLAIN", "\0guest\0guest", "en_US"))
        + raw(0, spec.Connection.TuneOk(channel_max, frame_max, 0))
    )
    assert methods(session)[-1].reply_code == 530


# Whatever anybody sends

DYING = {"x-message-ttl": 0, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "t"}
SANE = st.sampled_from(
    [
        raw(1, spec.Channel.Open()),
        raw(2, spec.Channel.Open()),
        raw(1, spec.Channel.Close(200, "", 0, 0)),
        raw(1, spec.Channel.CloseOk()),
        raw(1, spec.Queue.Declare(queue="q", arguments={"x-max-length": 3})),
        raw(1, spec.Queue.Declare(queue="t", arguments={"x-message-ttl": 0})),
        raw(2, spec.Queue.Declare(exclusive=True)),
        raw(1, spec.Queue.Delete(queue="q")),
        raw(1, spec.Queue.Purge(queue="q")),
        raw(1, spec.Exchange.Declare(exchange="e", type="topic")),
        raw(2, spec.Exchange.Delete(exchange="e")),
        raw(1, spec.Queue.Bind(queue="q", exchange="e", routing_key="#")),
        raw(1, spec.Exchange.Bind(destination="e", source="amq.topic", routing_key="a.*")),
        raw(1, spec.Basic.Consume(queue="q", consumer_tag="c")),
        raw(2, spec.Basic.Consume(queue="q", no_ack=True)),
        raw(1, spec.Basic.Cancel(consumer_tag="c")),
        raw(1, spec.Basic.Get(queue="q")),
        raw(1, spec.Basic.Ack(1)),
        raw(1, spec.Basic.Ack(0, multiple=True)),
        raw(1, spec.Basic.Nack(1, requeue=True)),
        raw(1, spec.Basic.Reject(2, requeue=False)),
        raw(1, spec.Basic.Recover(requeue=True)),
        raw(1, spec.Basic.Qos(prefetch_count=1)),
        raw(1, spec.Confirm.Select()),
        raw(1, spec.Tx.Select()),
        message(1, "q", b"x"),
        message(2, "q", b""),
        message(1, "a.b", b"x", exchange="amq.topic"),
        message(1, "x", b"x", exchange="missing"),
        frame(8, 0, b""),
        frame(2, 1, struct.pack(">HHQH", 60, 0, 5, 0)),
        frame(3, 1, b"body"),
        frame(2, 1, struct.pack(">HHQH", 60, 0, 4, 0x8000) + b"\xff"),
        frame(2, 1, struct.pack(">HHQHI", 60, 0, 0, 0x2000, 3) + b"\x01a?"),
        raw(1, spec.Basic.Publish(routing_key="t")),
        raw(1, spec.Queue.Declare(queue="d", arguments=DYING)),
        message(1, "d", b"x"),
    ]
)
ODD = st.one_of(
    st.binary(max_size=50),
    st.builds(frame, st.integers(0, 9), st.integers(0, 3), st.binary(max_size=50)),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(SANE, SANE, SANE, ODD), max_size=40))
def test_no_client_brings_about_more_than_an_answer(steps):
    broker = FakeBroker()
    bystander = broker.connect()
    bystander.receive(LOGIN + raw(1, spec.Channel.Open()))
    session = broker.connect()
    session.receive(LOGIN)
    for step in steps:
        session.receive(step)
        broker.turn()
        output = session.take_output()
        session.note_written(len(output))
        list(Parser(1 << 20).feed(output))  # what goes out is frames, whatever came in
        broker.advance(0.01)
    session.end()
    broker.turn()
    # Everybody else is served.
    methods(bystander)
    bystander.receive(raw(1, spec.Queue.Declare(queue="mine")) + message(1, "mine", b"x"))
    bystander.receive(raw(1, spec.Basic.Get(queue="mine")))
    kinds = [type(each) for each in methods(bystander)]
    assert kinds == [spec.Queue.DeclareOk, spec.Basic.GetOk]
    for queue in list(broker.vhosts["/"].queues.values()):
        broker.vhosts["/"].delete_queue(queue)
    bystander.end()
    assert broker.bytes == 0
