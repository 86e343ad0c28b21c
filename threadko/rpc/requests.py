"""Requests in and replies out, over one connection: the wire side of an RPC service.

``RequestLink`` is the session of a link with two channels: requests are consumed and acknowledged
on the first; the second, in confirm mode, carries replies and nothing else, so that a reply which
the broker refuses closes a channel on which no acknowledgement is under way. Threads that meet
here::

    start, wait_up, interrupt, open, cancel, settle, requeue, reject, stop, kill    any thread
    on_request                                 called on the link's thread: it may not block
    everything else                            the link's thread

A reply and its acknowledgement are handed over as one callable and leave in one buffer, the reply
first. The link keeps each reply until the broker has confirmed it, and sends it again after a
lost connection: the caller drops a second one. Order of stopping: ``cancel()`` (no more requests),
``settle`` for what was begun, then ``stop()``, which waits for the confirms of the replies and
closes both channels; the broker's answer to that says that it has seen every acknowledgement.
"""

import logging
from collections.abc import Callable
from functools import partial

from threadko.amqp.confirms import ConfirmChannel, Outgoing
from threadko.amqp.connection import Connection
from threadko.amqp.consume import ConsumerChannel
from threadko.amqp.entities import Queue
from threadko.amqp.link import Link
from threadko.amqp.message import Delivery
from threadko.amqp.parameters import BrokerParameters
from threadko.concurrency.deadline import Deadline
from threadko.concurrency.threads import start_thread, thread_name
from threadko.exceptions import ContainerStopped, PublishFailed, ThreadkoError
from threadko.utils.redaction import one_line

__all__ = ["Reply", "RequestLink"]

_log = logging.getLogger(__name__)

_REQUESTS, _REPLIES = 1, 2  # the numbers of the channels


class Reply(Outgoing):
    """A reply on its way, and the delivery that it settles.

    Args:
        substitute: makes the reply that says instead that the broker refused this one; it is the
            user's serializer that encodes it, so it is called on a thread of its own.
    """

    __slots__ = ("request_link", "settles", "substitute")

    def __init__(
        self,
        *,
        exchange: str,
        routing_key: str,
        header: bytes,
        body: bytes,
        substitute: "Callable[[Exception], Reply] | None" = None,
    ) -> None:
        super().__init__(exchange=exchange, routing_key=routing_key, header=header, body=body)
        self.substitute = substitute
        self.settles: Delivery | None = None
        self.request_link: RequestLink | None = None

    def on_written(self) -> None:
        """Acknowledge the request, in the same buffer."""
        delivery, self.settles = self.settles, None
        if delivery is not None and self.request_link is not None:
            self.request_link.ack(delivery)

    def on_failed(self, error: Exception) -> None:
        """The broker refused it: say so to the caller instead, once."""
        target = one_line(self.routing_key)
        if self.substitute is None:
            _log.error("the broker refused a reply to %s, twice: %s", target, error)
        elif self.request_link is not None:
            _log.error("the broker refused a reply to %s: %s", target, error)
            refusal = PublishFailed(f"the broker refused the reply: {error}")
            self.request_link.replace(partial(self.substitute, refusal))


class RequestLink:
    """A service's connection for requests.

    Args:
        parameters: the broker.
        name: of the connection's thread.
        queue: where the requests come from.
        prefetch: requests that may be under way or wait in this process.
        on_request: takes each request, on the link's thread; raises ``ContainerStopped`` to have
            it handed back.
    """

    def __init__(
        self,
        parameters: BrokerParameters,
        *,
        name: str,
        queue: Queue,
        prefetch: int,
        on_request: Callable[[Delivery], None],
    ) -> None:
        self._on_request = on_request
        # Touched by the link's thread alone.
        self._finishing = False
        self._substitutes = 0  # being made in place of replies that were refused
        self._has_stood = False  # the requests' channel, since it was last opened
        self._link = Link(parameters, name=name, session=self)
        self._requests = ConsumerChannel(
            self._link,
            _REQUESTS,
            queue,
            prefetch=prefetch,
            on_delivery=self._take,
            on_ready=self._requests_ready,
            on_closed=self._requests_closed,
        )
        self._replies = ConfirmChannel(
            self._link, _REPLIES, on_ready=self._link.came_up, restore=queue
        )

    # Any thread

    @property
    def is_up(self) -> bool:
        """Whether the connection stands and the queue is declared."""
        return self._link.is_up

    @property
    def frame_max(self) -> int:
        """The largest frame that the broker takes, in bytes."""
        return self._link.frame_max

    def start(self) -> None:
        """Begin to connect and declare; nothing is consumed before ``open()``."""
        self._link.start()

    def wait_up(self, deadline: Deadline) -> None:
        """Wait until the connection stands; raises as ``Link.wait_up`` does."""
        self._link.wait_up(deadline)

    def interrupt(self) -> None:
        """Let ``wait_up`` give up."""
        self._link.interrupt()

    def open(self) -> None:
        """Begin to consume, now and after each reconnect."""
        self._link.post(self._requests.consume)

    def cancel(self) -> None:
        """Take no more requests; the connection stays, for what is under way."""
        self._link.post(self._requests.cancel)

    def settle(self, delivery: Delivery, reply: Reply | None) -> None:
        """Send the reply, if there is one, and acknowledge the request."""
        self._link.post(partial(self._settle, delivery, reply))

    def requeue(self, delivery: Delivery) -> None:
        """Give a request back to its queue."""
        self._link.post(lambda: self._requests.reject(delivery, requeue=True))

    def reject(self, delivery: Delivery) -> None:
        """Have the broker drop a request, or dead-letter it where the queue says so."""
        self._link.post(lambda: self._requests.reject(delivery, requeue=False))

    def stop(self, timeout: float) -> None:
        """Flush replies and acknowledgements, and close."""
        if not self._link.stop(timeout):
            _log.warning(
                "%s: closed before the broker had confirmed everything; what it has not seen is"
                " delivered again",
                self._link.name,
            )

    def kill(self) -> None:
        """Drop the connection; the broker takes back what is not acknowledged."""
        self._link.kill()

    # The link's thread

    def replace(self, make_reply: Callable[[], Reply]) -> None:
        """Make a reply on a thread of its own and send it."""

        def make() -> None:
            reply = None
            try:
                reply = make_reply()
                reply.request_link = self
            except Exception:
                _log.exception("no reply could be made in place of the one that was refused")
            finally:
                self._link.post(partial(self._substitute, reply))

        start_thread(make, thread_name("rpc", "substitute"))
        self._substitutes += 1

    def _substitute(self, reply: Reply | None) -> None:
        self._substitutes -= 1
        if reply is not None:
            self._replies.send(reply)
        if self._finishing:
            self._replies.drain(self._replies_drained)

    def begin(self, connection: Connection) -> None:
        """Open the requests' channel; the replies' follows when it stands."""
        self._has_stood = False
        self._requests.open(connection)

    def end(self, error: ThreadkoError) -> None:
        """Unconfirmed replies wait for the next connection, if there is to be one."""
        self._requests.detach()
        self._replies.detach(error)
        if self._finishing:
            # The broker has taken everything back that was not acknowledged.
            self._link.finished()

    def turn(self) -> None:
        """Nothing is saved up for the end of a turn."""

    def finish(self) -> None:
        """Wait for the confirms of the replies, then close both channels."""
        self._finishing = True
        if not self._link.is_up:
            self._link.finished()
            return
        self._requests.cancel()
        self._replies.drain(self._replies_drained)

    def _replies_drained(self) -> None:
        if not self._substitutes:  # or drained again, when the last has come
            self._replies.close(lambda: self._requests.close(self._link.finished))

    def abandon(self, error: ThreadkoError | None, killed: bool) -> None:
        """Nobody waits here for replies that were not sent."""

    def ack(self, delivery: Delivery) -> None:
        """Acknowledge a request, if its channel still stands."""
        self._requests.ack(delivery)

    def _take(self, delivery: Delivery) -> None:
        try:
            self._on_request(delivery)
        except ContainerStopped:
            self._requests.reject(delivery, requeue=True)

    def _settle(self, delivery: Delivery, reply: Reply | None) -> None:
        if reply is None:
            self._requests.ack(delivery)
            return
        reply.settles = delivery
        reply.request_link = self
        self._replies.send(reply)

    def _requests_ready(self) -> None:
        self._has_stood = True
        connection = self._link.connection
        if connection is not None and not self._replies.is_open:
            self._replies.open(connection)

    def _requests_closed(self, reason: BaseException) -> None:
        connection = self._link.connection
        has_stood, self._has_stood = self._has_stood, False
        # One that the broker closes before it stands (a queue of that name has become another)
        # would be closed again and again; a new connection comes after a pause at least.
        if has_stood and connection is not None and connection.is_open:
            # The broker's timeout for acknowledgements, say. The replies' channel is not concerned.
            _log.warning("%s: the broker closed the requests' channel: %s", self._link.name, reason)
            self._requests.open(connection)
        else:
            self._link.reset(
                reason if isinstance(reason, Exception) else RuntimeError(repr(reason))
            )
