"""Declaring exchanges, queues and bindings, one broker method after the other.

A conversation with the broker is written as a generator of steps: each step sends a method and is
given a callback for its answer, which the generator receives from ``yield``. Everything runs on
the connection's thread. When the broker refuses a step it closes the channel instead of answering:
the generator is then simply never resumed, and the channel's close callback has the reason.
"""

import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pika.amqp_object
import pika.frame
import pika.spec

from threadko.amqp.connection import Channel
from threadko.amqp.entities import Exchange, Queue

__all__ = [
    "Step",
    "Steps",
    "declare",
    "declare_exchange",
    "declare_frames",
    "declare_queue",
    "run_steps",
    "watch_declarations",
]

Step = Callable[[Callable[..., None]], Any]
Steps = Generator[Step, Any, None]


#: Is given whatever is declared, on the thread of the connection; must not block.
Watcher = Callable[[Exchange | Queue], object]

_watchers_lock = threading.Lock()  # guards changes of _watchers; readers take it as it is
_watchers: tuple[Watcher, ...] = ()


@contextmanager
def watch_declarations(watcher: Watcher) -> Iterator[None]:
    """Be told of every exchange and queue that this process declares meanwhile, on any broker."""
    global _watchers
    with _watchers_lock:
        _watchers = (*_watchers, watcher)
    try:
        yield
    finally:
        with _watchers_lock:
            _watchers = tuple(each for each in _watchers if each is not watcher)


def _tell(entity: Exchange | Queue) -> None:
    for watcher in _watchers:
        watcher(entity)


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


def declare(channel: Channel, entity: Exchange | Queue) -> Steps:
    """Declare an exchange, or a queue with its exchanges and bindings."""
    if isinstance(entity, Exchange):
        yield from declare_exchange(channel, entity)
    else:
        yield from declare_queue(channel, entity)


def declare_exchange(channel: Channel, exchange: Exchange) -> Steps:
    """Declare an exchange, unless it is one of the broker's own or not to be declared."""
    if not exchange.name or exchange.name.startswith("amq.") or exchange.no_declare:
        return
    _tell(exchange)
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
    """Declare a queue with the exchanges that it is bound to, and bind it."""
    for exchange in _exchanges_of(queue):
        yield from declare_exchange(channel, exchange)
    if queue.no_declare:
        return
    _tell(queue)
    yield lambda done: channel.queue_declare(
        queue.name,
        durable=queue.durable,
        exclusive=queue.exclusive,
        auto_delete=queue.auto_delete,
        arguments=dict(queue.declare_arguments),
        callback=done,
    )
    for binding in _iter_bindings(queue):
        yield _bind(channel, queue.name, *binding)


def _bind(
    channel: Channel, queue: str, exchange: str, routing_key: str, arguments: dict[str, Any]
) -> Step:
    return lambda done: channel.queue_bind(
        queue, exchange, routing_key=routing_key, arguments=arguments, callback=done
    )


def _exchanges_of(queue: Queue) -> Iterable[Exchange]:
    """Return the exchanges of a queue, each once however many bindings it has there."""
    own = () if queue.exchange is None else (queue.exchange,)
    return dict.fromkeys((*own, *(binding.exchange for binding in queue.bindings)))


def _iter_bindings(queue: Queue) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield exchange, routing key and arguments of each binding that a queue has."""
    if queue.exchange is not None and queue.exchange.name:
        yield queue.exchange.name, queue.routing_key, dict(queue.binding_arguments or {})
    for binding in queue.bindings:
        yield binding.exchange.name, binding.routing_key, dict(binding.arguments or {})


def declare_frames(number: int, entities: Iterable[Exchange | Queue]) -> bytes:
    """Return the frames that declare entities on channel ``number`` without asking for answers.

    The broker works through a channel in order, so what is written behind them finds them there;
    or it finds the channel closed.
    """
    methods = (method for entity in entities for method in _methods(entity))
    return b"".join(pika.frame.Method(number, method).marshal() for method in methods)


def _methods(entity: Exchange | Queue) -> Iterator[pika.amqp_object.Method]:
    if isinstance(entity, Exchange):
        if entity.name and not entity.name.startswith("amq.") and not entity.no_declare:
            _tell(entity)
            yield pika.spec.Exchange.Declare(
                exchange=entity.name,
                type=entity.type,
                passive=entity.passive,
                durable=entity.durable,
                auto_delete=entity.auto_delete,
                internal=entity.internal,
                nowait=True,
                arguments=dict(entity.arguments or {}),
            )
        return
    for exchange in _exchanges_of(entity):
        yield from _methods(exchange)
    if entity.no_declare:
        return
    _tell(entity)
    yield pika.spec.Queue.Declare(
        queue=entity.name,
        durable=entity.durable,
        exclusive=entity.exclusive,
        auto_delete=entity.auto_delete,
        nowait=True,
        arguments=dict(entity.declare_arguments),
    )
    for name, routing_key, arguments in _iter_bindings(entity):
        yield pika.spec.Queue.Bind(
            queue=entity.name,
            exchange=name,
            routing_key=routing_key,
            nowait=True,
            arguments=arguments,
        )
