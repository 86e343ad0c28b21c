"""Conversations with the broker, step by step, on a channel that only remembers."""

from typing import Any

import pika.frame
import pika.spec

from threadko.amqp.entities import Binding, Exchange, Queue
from threadko.amqp.topology import (
    declare_exchange,
    declare_frames,
    declare_queue,
    run_steps,
    watch_declarations,
)


class FakeChannel:
    """Remembers what it is asked, and answers when the test says so."""

    def __init__(self) -> None:
        self.is_open = True
        self.asked: list[tuple[str, Any]] = []
        self.answers: list[Any] = []

    def _ask(self, what: str, name: str, arguments: dict[str, Any]) -> None:
        self.answers.append(arguments.pop("callback"))
        self.asked.append((what, name, arguments))

    def exchange_declare(self, name: str, kind: str, **arguments: Any) -> None:
        self._ask("exchange", name, {"type": kind, **arguments})

    def queue_declare(self, name: str, **arguments: Any) -> None:
        self._ask("queue", name, arguments)

    def queue_bind(self, name: str, exchange: str, **arguments: Any) -> None:
        self._ask("bind", name, {"exchange": exchange, **arguments})

    def answer(self) -> None:
        self.answers.pop(0)("ok")


def test_a_queue_is_declared_after_its_exchange_and_bound_last() -> None:
    channel = FakeChannel()
    exchange = Exchange("ex", type="topic", durable=True)
    queue = Queue("q", exchange=exchange, routing_key="a.*", arguments={"x-expires": 5})
    run_steps(declare_queue(channel, queue))
    assert [step[:2] for step in channel.asked] == [("exchange", "ex")]
    channel.answer()
    channel.answer()
    channel.answer()
    assert channel.asked == [
        (
            "exchange",
            "ex",
            {
                "type": "topic",
                "passive": False,
                "durable": True,
                "auto_delete": False,
                "internal": False,
                "arguments": {},
            },
        ),
        (
            "queue",
            "q",
            {
                "durable": True,
                "exclusive": False,
                "auto_delete": False,
                "arguments": {"x-expires": 5},
            },
        ),
        ("bind", "q", {"exchange": "ex", "routing_key": "a.*", "arguments": {}}),
    ]


def test_nothing_is_declared_of_the_brokers_own_or_what_is_not_to_be() -> None:
    channel = FakeChannel()
    for exchange in (Exchange(""), Exchange("amq.topic", type="topic")):
        run_steps(declare_exchange(channel, exchange))
    run_steps(declare_exchange(channel, Exchange("theirs", no_declare=True)))
    run_steps(declare_queue(channel, Queue("theirs", no_declare=True)))
    assert channel.asked == []


def test_a_queue_without_exchange_is_not_bound() -> None:
    channel = FakeChannel()
    run_steps(declare_queue(channel, Queue("q")))
    channel.answer()
    assert [step[0] for step in channel.asked] == ["queue"]


def bound_by_all() -> Queue:
    topic, fanout = Exchange("topic", "topic"), Exchange("fanout", "fanout")
    return Queue(
        "q",
        topic,
        "a",
        bindings=[
            Binding(topic, "b", arguments={"n": 1}),
            Binding(fanout),
            Binding(Exchange("amq.direct"), "c"),
        ],
    )


EXCHANGES_ONCE_THE_QUEUE_AND_EACH_BINDING = [
    ("exchange", "topic"),
    ("exchange", "fanout"),
    ("queue", "q"),
    ("bind", "topic", "a", {}),
    ("bind", "amq.direct", "c", {}),
    ("bind", "fanout", "", {}),
    ("bind", "topic", "b", {"n": 1}),
]


def test_a_queue_is_bound_by_each_binding_and_each_exchange_is_declared_once() -> None:
    channel = FakeChannel()
    run_steps(declare_queue(channel, bound_by_all()))
    while channel.answers:
        channel.answer()
    assert [
        (what, given["exchange"], given["routing_key"], given["arguments"])
        if what == "bind"
        else (what, name)
        for what, name, given in channel.asked
    ] == EXCHANGES_ONCE_THE_QUEUE_AND_EACH_BINDING


def test_frames_of_a_queue_bind_it_by_each_binding() -> None:
    data = declare_frames(3, [bound_by_all()])
    asked: list[tuple[Any, ...]] = []
    while data:
        size, frame = pika.frame.decode_frame(data)
        data, method = data[size:], frame.method
        assert (frame.channel_number, method.nowait) == (3, True)
        if isinstance(method, pika.spec.Queue.Bind):
            asked.append(("bind", method.exchange, method.routing_key, method.arguments))
        elif isinstance(method, pika.spec.Queue.Declare):
            asked.append(("queue", method.queue))
        else:
            asked.append(("exchange", method.exchange))
    assert asked == EXCHANGES_ONCE_THE_QUEUE_AND_EACH_BINDING


def test_an_answer_is_what_the_conversation_goes_on_with() -> None:
    got: list[Any] = []

    def talk() -> Any:
        got.append((yield lambda done: done(1)))
        got.append((yield lambda done: done(2)))

    run_steps(talk())
    assert got == [1, 2]


def test_a_conversation_ends_when_its_channel_closes_between_question_and_answer() -> None:
    channel = FakeChannel()
    run_steps(declare_queue(channel, Queue("q", exchange=Exchange("ex"))), channel)
    channel.is_open = False
    channel.answer()
    assert [step[0] for step in channel.asked] == ["exchange"]


def test_watcher_is_told_of_what_is_declared_in_either_way() -> None:
    exchange, queue = Exchange("ex"), Queue("q", exchange=Exchange("ex"))
    own, unspoken = Exchange("amq.direct"), Queue("other", no_declare=True)
    seen: list[Exchange | Queue] = []
    with watch_declarations(seen.append):
        for entity in (queue, own, unspoken):
            declare_frames(1, [entity])
        assert seen == [exchange, queue]
        channel = FakeChannel()
        run_steps(declare_queue(channel, queue))
        channel.answer()
        assert seen == [exchange, queue, exchange, queue]
    declare_frames(1, [queue])
    assert len(seen) == 4
