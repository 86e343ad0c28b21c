"""Looking into a dead queue, and bringing messages back: for operators, one at a time.

Threads that meet here are those of a visit: ``read``, ``replay`` and ``drop`` belong to the thread
that made the object. The messages that were read stay with this connection until they are settled;
when it ends the broker puts all others back in their order.
"""

from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeVar

from threadko.amqp.confirms import ConfirmChannel, Outgoing
from threadko.amqp.connection import Channel, Connection
from threadko.amqp.delays import dead_queue, strip_history
from threadko.amqp.errors import translate
from threadko.amqp.message import Delivery, ack_frame, encode_properties
from threadko.amqp.parameters import BrokerParameters
from threadko.amqp.topology import Steps, run_steps
from threadko.amqp.visits import Visit
from threadko.context import new_id
from threadko.exceptions import (
    BrokerUnavailable,
    PublishFailed,
    ThreadkoError,
    UndeliverableMessage,
)

__all__ = ["DeadLetters"]

T = TypeVar("T")

_LOOKING, _SENDING = 1, 2  # the numbers of the channels
_MISSING = 404


class _Replayed(Outgoing):
    """A message on its way back to its queue."""

    __slots__ = ("confirmed", "is_returned")

    def __init__(self, routing_key: str, header: bytes, body: bytes, message_id: str) -> None:
        super().__init__(
            exchange="",
            routing_key=routing_key,
            header=header,
            body=body,
            mandatory=True,
            message_id=message_id,
        )
        self.confirmed: Future[None] = Future()
        self.is_returned = False

    def on_written(self) -> None:
        """It may have come back from the connection before."""
        self.is_returned = False

    def on_returned(self, code: int, text: str) -> None:
        """There is no such queue."""
        self.is_returned = True

    def on_confirmed(self) -> None:
        """It is there, unless it came back before."""
        if self.is_returned:
            self.confirmed.set_exception(
                UndeliverableMessage(f"there is no queue {self.routing_key!r} that would have it")
            )
        else:
            self.confirmed.set_result(None)

    def on_failed(self, error: Exception) -> None:
        """It stays in the dead queue."""
        self.confirmed.set_exception(PublishFailed(f"a message could not be sent: {error}"))


class DeadLetters(Visit):
    """The messages of a queue that have failed for good; a context manager.

    Args:
        parameters: the broker.
        queue: the queue that they failed in.
        timeout: seconds for each step.

    Attributes:
        left: how many messages the last `read` left behind, since its limit was reached.
    """

    def __init__(self, parameters: BrokerParameters, queue: str, *, timeout: float = 30.0) -> None:
        super().__init__(parameters, timeout=timeout, name="dead")
        self.queue = queue
        self.left = 0
        self._name = dead_queue(queue).name
        # Touched by the link's thread alone.
        self._sending = ConfirmChannel(self._link, _SENDING, on_ready=self._link.came_up)
        self._channel: Channel | None = None
        self._found: list[Delivery] = []
        self._asked: set[Future[Any]] = set()

    def read(self, limit: int) -> list[Delivery]:
        """Return the messages, the oldest first, and keep them until they are settled.

        Args:
            limit: how many at most.

        Raises:
            LookupError: there is no dead queue.
            BrokerError: the broker refuses to show it, or the connection was lost.
        """
        return self._do(lambda done: self._read(limit, done))

    def replay(self, delivery: Delivery) -> None:
        """Put a message back into its queue, as it was before it failed for the first time.

        Raises:
            ValueError: its properties cannot be read, or not be sent again.
            UndeliverableMessage: its queue is gone; it stays where it was.
            PublishFailed: the broker did not take it; it stays where it was.
        """
        properties = delivery.properties
        headers = strip_history(properties.headers or {})
        # By its id it is known again if it comes back.
        message_id = properties.message_id or new_id()
        again = replace(properties, headers=headers, user_id=None, message_id=message_id)
        message = _Replayed(self.queue, encode_properties(again), delivery.body, message_id)
        self._ask(lambda: self._sending.send(message), message.confirmed)
        self.drop(delivery)

    def drop(self, delivery: Delivery) -> None:
        """Delete a message for good."""
        self._do(lambda done: self._drop(delivery, done))

    def _do(self, work: Callable[[Future[T]], None]) -> T:
        done: Future[T] = Future()

        def begin() -> None:
            self._asked.add(done)
            work(done)

        return self._ask(begin, done)

    # The link's thread: the session

    def begin(self, connection: Connection) -> None:
        """Open the channel for sending; the other is opened when it is needed."""
        self._sending.open(connection)

    def end(self, error: ThreadkoError) -> None:
        """What was read has gone back."""
        self._sending.detach(error)
        self._channel = None
        self._fail(BrokerUnavailable(f"the connection was lost: {error}"))

    def abandon(self, error: ThreadkoError | None, killed: bool) -> None:
        """Let nobody wait in vain."""
        self._fail(error or BrokerUnavailable("the connection has ended"))

    def _fail(self, error: Exception) -> None:
        asked, self._asked = self._asked, set()
        for done in asked:
            with suppress(InvalidStateError):
                done.set_exception(error)

    # The link's thread: the work

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
        self._found.append(Delivery(1, tag, redelivered, exchange, routing_key, header, body))

    def _read(self, limit: int, done: Future[list[Delivery]]) -> None:
        connection = self._link.connection
        if connection is None:
            self._fail(BrokerUnavailable("the connection was lost"))
            return
        self._found = []

        def closed(_channel: Channel, reason: BaseException) -> None:
            self._channel = None
            if not connection.is_open:
                return  # it takes the channel along, and end() follows
            if getattr(reason, "reply_code", None) == _MISSING:
                self._fail(LookupError(f"there is no queue {self._name}"))
            else:
                self._fail(translate(reason, self._link.parameters))

        self._channel = connection.open_channel(
            _LOOKING,
            self,
            on_open=lambda channel: run_steps(self._look(channel, limit, done), channel),
            on_close=closed,
        )

    def _look(self, channel: Channel, limit: int, done: Future[list[Delivery]]) -> Steps:
        # Never declared here: a dead queue that is not there has nothing in it.
        yield lambda ready: channel.queue_declare(self._name, passive=True, callback=ready)
        yield lambda ready: channel.basic_qos(prefetch_count=min(limit, 65535), callback=ready)
        tags: list[str] = []
        yield lambda ready: tags.append(
            channel.basic_consume(self._name, lambda *_: None, callback=ready)
        )
        left = 1
        while left and len(self._found) < limit:
            # The broker answers in order: what it has counted as delivered came before.
            answer = yield lambda ready: channel.queue_declare(
                self._name, passive=True, callback=ready
            )
            left = answer.method.message_count
        yield lambda ready: channel.basic_cancel(tags[0], callback=ready)
        self.left = left
        self._asked.discard(done)
        done.set_result(self._found[:limit])

    def _drop(self, delivery: Delivery, done: Future[None]) -> None:
        connection, channel = self._link.connection, self._channel
        if connection is None or channel is None:
            self._fail(BrokerUnavailable("the connection was lost"))
            return
        connection.write(ack_frame(_LOOKING, delivery.tag, False))

        def seen(_answer: Any) -> None:
            self._asked.discard(done)
            done.set_result(None)

        channel.queue_declare(self._name, passive=True, callback=seen)
