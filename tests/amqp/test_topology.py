"""Conversations with the broker, step by step, on a channel that only remembers."""

from typing import Any

from threadko.amqp.entities import Exchange, Queue
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
