"""Requests in and replies out: the wire side of an RPC service, on an ``IntakeLink``.

The worker hands its reply over and goes on. The request is acknowledged when the broker has
confirmed the reply: the two travel on different channels, and when a connection breaks right behind
them RabbitMQ may carry out the acknowledgement and forget the reply (measured: one in ten), so that
nobody would answer the call any more. Acknowledgements leave along with the next reply, or a moment
later. The link keeps each reply until it is confirmed, and sends it again after a lost connection:
the caller drops a second one, and a request that comes again meanwhile is not run again.

Threads that meet here: ``settle`` may be called by any thread, ``replace`` by the link's alone.
"""

import logging
import time
from collections.abc import Callable
from functools import partial

from threadko.amqp.entities import Queue
from threadko.amqp.intake import IntakeLink, Settling
from threadko.amqp.message import Delivery, find_correlation_id
from threadko.amqp.parameters import BrokerParameters
from threadko.concurrency.threads import start_thread, thread_name
from threadko.concurrency.timers import Timer
from threadko.exceptions import PublishFailed, ThreadkoError
from threadko.utils.redaction import one_line

__all__ = ["Reply", "RequestLink"]

_log = logging.getLogger(__name__)

# Guessed: longer than a busy caller takes to its next request, so that no acknowledgement costs a
# write of its own, and too short for anybody to wait for the place in the prefetch.
_ACK_DELAY_SECONDS = 0.005


class Reply(Settling):
    """A reply on its way, and the delivery that it settles.

    Args:
        substitute: makes the reply that says instead that the broker refused this one; it is the
            user's serializer that encodes it, so it is called on a thread of its own.
    """

    __slots__ = ("request_link", "substitute")

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
        self.settles = None
        self.request_link: RequestLink | None = None

    def on_confirmed(self) -> None:
        """The broker has it, so that the request can go."""
        if self.request_link is not None:
            self.request_link.note_answered(self)

    def on_failed(self, error: Exception) -> None:
        """The broker refused it: say so to the caller instead, once."""
        target = one_line(self.routing_key)
        link = self.request_link
        if link is None:
            return
        if self.substitute is None:
            _log.error("the broker refused a reply to %s, twice: %s", target, error)
            link.note_answered(self)
        else:
            _log.error("the broker refused a reply to %s: %s", target, error)
            refusal = PublishFailed(f"the broker refused the reply: {error}")
            link.replace(self, partial(self.substitute, refusal))


class RequestLink(IntakeLink):
    """A service's connection for requests.

    Args:
        parameters: the broker.
        name: of the connection's thread.
        queue: where the requests come from; declared anew when the exchange of a reply is missing.
        prefetch: requests that may be under way or wait in this process.
        on_request: takes each request, on the link's thread; raises ``ContainerStopped`` to have
            it handed back.
        watchdog: seconds between checks whether requests wait that do not come; 0 for none.
    """

    def __init__(
        self,
        parameters: BrokerParameters,
        *,
        name: str,
        queue: Queue,
        prefetch: int,
        on_request: Callable[[Delivery], None],
        watchdog: float = 0.0,
    ) -> None:
        # Touched by the link's thread alone.
        self._substitutes = 0  # being made in place of refused replies
        self._answered: list[Delivery] = []  # to be acknowledged
        self._ack_timer: Timer | None = None
        # Not confirmed yet, of requests that were taken on a channel which is lost; by receiver.
        self._kept: dict[tuple[str, str | None], Reply] = {}
        # A fourth of the prefetch may wait for its acknowledgement to be written.
        self._most_answered = prefetch // 4
        super().__init__(
            parameters,
            name=name,
            queue=queue,
            prefetch=prefetch,
            on_delivery=on_request,
            restore=queue,
            watchdog=watchdog,
        )

    def settle(self, delivery: Delivery, reply: Reply | None) -> None:
        """Send the reply, if there is one, and acknowledge the request; any thread."""
        self._link.post(partial(self._settle, delivery, reply))

    # The link's thread

    def turn(self) -> None:
        """Acknowledge what is answered along with what is written anyway, or a little later."""
        if not self._answered:
            return
        connection = self._link.connection
        if len(self._answered) > self._most_answered or (
            connection is not None and connection.has_output
        ):
            self._acknowledge()
        elif self._ack_timer is None:
            self._ack_timer = self._link.call_at(
                time.monotonic() + _ACK_DELAY_SECONDS, self._ack_late
            )

    def end(self, error: ThreadkoError) -> None:
        """Keep the replies that nobody has confirmed, and know their requests when they return."""
        super().end(error)
        self._keep_replies()

    def note_answered(self, reply: Reply) -> None:
        """The request of ``reply`` is done with."""
        delivery, reply.settles = reply.settles, None
        if delivery is not None:
            self._answered.append(delivery)
        if self._kept:
            self._kept.pop(_address(reply), None)

    def replace(self, refused: Reply, make_reply: Callable[[], Reply]) -> None:
        """Make a reply on a thread of its own and send it in place of the refused one."""

        def make() -> None:
            reply = None
            try:
                reply = make_reply()
                reply.request_link = self
            except Exception:
                _log.exception("no reply could be made in place of the one that was refused")
            finally:
                self._link.post(partial(self._substitute, refused, reply))

        start_thread(make, thread_name("rpc", "substitute"))
        self._substitutes += 1

    def _take(self, delivery: Delivery) -> None:
        reply = self._find_kept(delivery) if delivery.redelivered and self._kept else None
        if reply is None:
            super()._take(delivery)
        elif reply.settles is None or reply.settles.generation != delivery.generation:
            reply.settles = delivery
        else:
            # Its caller had sent the request twice. The other copy stays until the confirm comes.
            self._answered.append(delivery)

    def _deliveries_closed(self, reason: BaseException) -> None:
        super()._deliveries_closed(reason)
        self._keep_replies()

    def _keep_replies(self) -> None:
        """All requests come again: know those that have a reply."""
        self._answered.clear()
        self._kept = {_address(reply): reply for reply in self._sending if isinstance(reply, Reply)}

    def _find_kept(self, delivery: Delivery) -> Reply | None:
        try:
            properties = delivery.properties
        except ValueError:
            return None
        reply = self._kept.get((properties.reply_to or "", properties.correlation_id))
        return None if reply is None or reply.settled else reply

    def _acknowledge(self) -> None:
        answered, self._answered = self._answered, []
        for delivery in answered:
            self._deliveries.ack(delivery)

    def _ack_late(self) -> None:
        self._ack_timer = None
        self._acknowledge()

    def _drained(self) -> None:
        self._acknowledge()
        super()._drained()

    def _substitute(self, refused: Reply, reply: Reply | None) -> None:
        self._substitutes -= 1
        if reply is None:
            self.note_answered(refused)
        else:
            reply.settles, refused.settles = refused.settles, None
            self._sending.send(reply)
        if self._finishing:
            self._sending.drain(self._drained)

    def _has_more_to_send(self) -> bool:
        return self._substitutes > 0

    def _settle(self, delivery: Delivery, reply: Reply | None) -> None:
        if reply is None:
            self._deliveries.ack(delivery)
            return
        reply.settles = delivery
        reply.request_link = self
        if delivery.generation != self._deliveries.generation:
            self._kept[_address(reply)] = reply
        self._sending.send(reply)


def _address(reply: Reply) -> tuple[str, str | None]:
    return reply.routing_key, find_correlation_id(reply.header)
