"""Declaring exchanges and queues while somebody waits for it.

``wait`` and ``fail`` may be called by any thread, ``run`` and ``detach`` by the link's alone. A
declaration has a channel of its own, for a refusal closes the channel. It ends once: declared,
refused, failed by whoever stops, or lost with the connection, which ``wait`` tells apart.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import suppress

from threadko.amqp.connection import Channel, ChannelHandler
from threadko.amqp.entities import Exchange, Queue
from threadko.amqp.errors import translate
from threadko.amqp.link import Link
from threadko.amqp.topology import Steps, declare, run_steps
from threadko.concurrency.deadline import Deadline
from threadko.exceptions import BrokerUnavailable

__all__ = ["Declaration"]


class Declaration(ChannelHandler):
    """Exchanges and queues that are declared once, on one connection."""

    def __init__(self, link: Link, entities: Sequence[Exchange | Queue]) -> None:
        self._link = link
        self._entities = tuple(entities)
        self._outcome: Future[bool] = Future()  # whether it is done; False: try again

    def wait(self, deadline: Deadline) -> bool:
        """Wait for the end; False if the connection was lost, and it is to be tried on the next.

        Raises:
            BrokerRefused: the broker refuses one of them.
            BrokerUnavailable: the deadline has passed.
            ThreadkoError: whatever `fail` was given.
        """
        try:
            return self._outcome.result(deadline.remaining())
        except FutureTimeoutError as error:
            raise BrokerUnavailable("the broker did not answer a declaration in time") from error

    def fail(self, error: Exception) -> None:
        """Let `wait` raise, unless it is over."""
        with suppress(InvalidStateError):
            self._outcome.set_exception(error)

    def detach(self) -> None:
        """The connection is gone."""
        self._end(False)

    def run(self, number: int, release: Callable[[], None]) -> None:
        """Declare on channel ``number``; ``release`` is called when it is free again."""
        connection = self._link.connection
        if connection is None or not connection.is_open:
            self._end(False)
            release()
            return

        def closed(_channel: Channel, reason: BaseException) -> None:
            release()
            if self._link.connection is None or not self._link.connection.is_open:
                self._end(False)
            else:
                self.fail(translate(reason, self._link.parameters))

        connection.open_channel(
            number,
            self,
            on_open=lambda channel: run_steps(self._steps(channel), channel),
            on_close=closed,
        )

    def _steps(self, channel: Channel) -> Steps:
        for entity in self._entities:
            yield from declare(channel, entity)
        self._end(True)
        channel.close()

    def _end(self, done: bool) -> None:
        with suppress(InvalidStateError):
            self._outcome.set_result(done)
