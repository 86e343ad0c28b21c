"""Declaring exchanges, queues and bindings, one broker method after the other.

A conversation with the broker is written as a generator of steps: each step sends a method and is
given a callback for its answer, which the generator receives from ``yield``. Everything runs on
the connection's thread. When the broker refuses a step it closes the channel instead of answering:
the generator is then simply never resumed, and the channel's close callback has the reason.
"""

from collections.abc import Callable, Generator
from typing import Any

from threadko.amqp.connection import Channel
from threadko.amqp.entities import Exchange, Queue

__all__ = ["Step", "Steps", "declare_exchange", "declare_queue", "run_steps"]

Step = Callable[[Callable[..., None]], Any]
Steps = Generator[Step, Any, None]


def run_steps(steps: Steps, channel: Channel | None = None) -> None:
    """Run a conversation from answer to answer; only while ``channel``, if given, is open."""

    def resume(answer: Any = None) -> None:
        if channel is not None and not channel.is_open:
            return  # we began to close it between question and answer
        try:
            step = steps.send(answer)
        except StopIteration:
            return
        step(resume)

    resume()


def declare_exchange(channel: Channel, exchange: Exchange) -> Steps:
    """Declare an exchange, unless it is one of the broker's own or not to be declared."""
    if not exchange.name or exchange.name.startswith("amq.") or exchange.no_declare:
        return
    yield lambda done: channel.exchange_declare(
        exchange.name,
        exchange.type,
        passive=exchange.passive,
        durable=exchange.durable,
        auto_delete=exchange.auto_delete,
        internal=exchange.internal,
        arguments=dict(exchange.arguments or {}),
        callback=done,
    )


def declare_queue(channel: Channel, queue: Queue) -> Steps:
    """Declare a queue with its exchange, and bind it."""
    if queue.exchange is not None:
        yield from declare_exchange(channel, queue.exchange)
    if queue.no_declare:
        return
    yield lambda done: channel.queue_declare(
        queue.name,
        durable=queue.durable,
        exclusive=queue.exclusive,
        auto_delete=queue.auto_delete,
        arguments=dict(queue.declare_arguments),
        callback=done,
    )
    if queue.exchange is not None and queue.exchange.name:
        exchange = queue.exchange.name
        yield lambda done: channel.queue_bind(
            queue.name,
            exchange,
            routing_key=queue.routing_key,
            arguments=dict(queue.binding_arguments or {}),
            callback=done,
        )
