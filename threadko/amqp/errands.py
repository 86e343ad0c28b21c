"""Small errands to a broker: for programs that look, clear away or fetch one message.

Threads that meet here are those of a visit. Each errand has the one channel to itself, and ends
when that is closed: by us, so that the broker has seen all of it, or by the broker, which refuses.
"""

import time
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import Any

from threadko.amqp.connection import Channel, Connection
from threadko.amqp.entities import Queue
from threadko.amqp.errors import translate
from threadko.amqp.message import Delivery, ack_frame
from threadko.amqp.parameters import BrokerParameters
from threadko.amqp.topology import Steps, declare, run_steps
from threadko.amqp.visits import Visit
from threadko.exceptions import BrokerUnavailable, ThreadkoError

__all__ = ["Errands"]

_CHANNEL = 1
_SOON_SECONDS = 1.0  # guessed: within which a message comes that the broker has counted


class Errands(Visit):
    """A connection for errands, one after the other; a context manager.

    Args:
        parameters: the broker.
        timeout: seconds for connecting, and for each errand.
        name: stands in the name of the thread.
    """

    def __init__(
        self, parameters: BrokerParameters, *, timeout: float = 30.0, name: str = "errands"
    ) -> None:
        super().__init__(parameters, timeout=timeout, name=name)
        # Touched by the link's thread alone.
        self._running: Future[None] | None = None
        self._delivered: list[Delivery] = []
        self._on_delivered: Callable[[], None] | None = None

    def declare(self, queue: Queue) -> None:
        """Declare a queue; one that is exclusive lasts as long as this connection.

        Raises:
            BrokerError: the broker refuses it, or the connection was lost.
        """
        self._run(lambda channel: declare(channel, queue))

    def delete_queue(self, name: str) -> None:
        """Delete a queue that nobody consumes from; nothing if it is not there.

        Raises:
            BrokerError: it is in use, or the connection was lost.
        """

        def steps(channel: Channel) -> Steps:
            yield lambda done: channel.queue_delete(name, if_unused=True, callback=done)

        self._run(steps)

    def delete_exchange(self, name: str) -> None:
        """Delete an exchange that nothing is bound to; nothing if it is not there.

        Raises:
            BrokerError: it is in use, or the connection was lost.
        """

        def steps(channel: Channel) -> Steps:
            yield lambda done: channel.exchange_delete(name, if_unused=True, callback=done)

        self._run(steps)

    def fetch(self, queue: str, *, wait: float = 0.0, ack: bool = True) -> Delivery | None:
        """Return the first message of a queue; None if there is none.

        Args:
            queue: its name.
            wait: seconds to wait for one to come.
            ack: take it out of the queue; it stays where it was otherwise.

        Raises:
            BrokerError: there is no such queue, or the connection was lost.
        """
        fetched: list[Delivery] = []

        def steps(channel: Channel) -> Steps:
            # What is not acknowledged goes back when the channel is closed.
            answer = yield lambda done: channel.queue_declare(queue, passive=True, callback=done)
            if not answer.method.message_count and not wait:
                return
            yield lambda done: channel.basic_qos(prefetch_count=1, callback=done)
            yield lambda done: channel.basic_consume(queue, lambda *_: None, callback=done)
            if not self._delivered:
                end = time.monotonic() + (wait or _SOON_SECONDS)
                yield lambda done: self._wait_delivered(end, done)
            if self._delivered:
                fetched.append(self._delivered[0])
                if ack and self._link.connection is not None:
                    tag = self._delivered[0].tag
                    self._link.connection.write(ack_frame(_CHANNEL, tag, False))

        self._run(steps, extra=wait)
        return fetched[0] if fetched else None

    def _run(self, make_steps: Callable[[Channel], Steps], extra: float = 0.0) -> None:
        done: Future[None] = Future()
        self._ask(lambda: self._begin(make_steps, done), done, extra)

    # The link's thread: the session

    def begin(self, connection: Connection) -> None:
        """A channel is opened for each errand."""
        self._link.came_up()

    def end(self, error: ThreadkoError) -> None:
        """Whoever waits for an errand waits in vain."""
        self._finish(BrokerUnavailable(f"the connection was lost: {error}"))

    def abandon(self, error: ThreadkoError | None, killed: bool) -> None:
        """Let nobody wait in vain."""
        self._finish(error or BrokerUnavailable("the connection has ended"))

    def on_deliver(
        self,
        tag: int,
        redelivered: bool,
        exchange: str,
        routing_key: str,
        header: bytes,
        body: bytes,
    ) -> None:
        """Keep a message."""
        delivery = Delivery(1, tag, redelivered, exchange, routing_key, header, body)
        self._delivered.append(delivery)
        if self._on_delivered is not None:
            self._on_delivered()

    # The link's thread: the work

    def _begin(self, make_steps: Callable[[Channel], Steps], done: Future[None]) -> None:
        connection = self._link.connection
        self._running = done
        if connection is None or not connection.is_open:
            self._finish(BrokerUnavailable("the connection was lost"))
            return
        self._delivered = []
        is_through: list[bool] = []

        def conversation(channel: Channel) -> Steps:
            yield from make_steps(channel)
            is_through.append(True)
            channel.close()

        def closed(_channel: Channel, reason: BaseException) -> None:
            self._on_delivered = None
            self._finish(None if is_through else translate(reason, self._link.parameters))

        connection.open_channel(
            _CHANNEL,
            self,
            on_open=lambda channel: run_steps(conversation(channel), channel),
            on_close=closed,
        )

    def _finish(self, error: Exception | None) -> None:
        running, self._running = self._running, None
        if running is None:
            return
        with suppress(InvalidStateError):
            if error is None:
                running.set_result(None)
            else:
                running.set_exception(error)

    def _wait_delivered(self, end: float, done: Callable[..., None]) -> None:
        def go_on(*_: Any) -> None:
            self._link.cancel_timer(timer)
            self._on_delivered = None
            done()

        timer = self._link.call_at(end, go_on)
        self._on_delivered = go_on
