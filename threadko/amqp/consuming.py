"""Taking messages from a queue: one channel with one consumer, on a link's thread.

``ConsumerChannel`` belongs to the thread of its link. Other threads hold ``Delivery`` objects and
hand them back through ``Link.post``. A delivery knows the generation of the channel it came on:
delivery tags start again at 1 on a new channel, so an acknowledgement that comes after a reconnect
would settle somebody else's message, and is dropped instead. The broker has given that message
back to the queue by then.
"""

import logging
from collections.abc import Callable

from threadko.amqp.connection import Channel, ChannelHandler, Connection
from threadko.amqp.entities import Queue
from threadko.amqp.link import Expectation, Link
from threadko.amqp.message import Delivery, ack_frame, reject_frame
from threadko.amqp.topology import Steps, declare_queue, run_steps
from threadko.concurrency.timers import Timer

__all__ = ["ConsumerChannel"]

_log = logging.getLogger(__name__)


class ConsumerChannel(ChannelHandler):
    """Declares a queue, and consumes from it once it is told to.

    Args:
        link: whose thread owns this channel.
        number: of the channel.
        queue: declared, with its exchanges and bindings, each time the channel opens.
        prefetch: unacknowledged messages that the broker may send; 0 for no limit.
        on_delivery: takes each message, on the link's thread.
        on_ready: called each time the channel stands, declared and, if wanted, consuming.
        on_closed: called when the broker closes the channel, with its reason.
        on_cancelled: called when the broker cancels the consumer: its queue is gone.
    """

    def __init__(
        self,
        link: Link,
        number: int,
        queue: Queue,
        *,
        prefetch: int,
        on_delivery: Callable[[Delivery], None],
        on_ready: Callable[[], None],
        on_closed: Callable[[BaseException], None],
        on_cancelled: Callable[[], None] | None = None,
    ) -> None:
        self.queue = queue
        self.generation = 0  # counts the channels; deliveries of an earlier one are not settled
        self.delivered = 0  # counts the messages that were passed on, of all channels
        self.held = 0  # of this channel, and not settled one by one
        self._link = link
        self._number = number
        self._prefetch = prefetch
        self._on_delivery = on_delivery
        self._on_ready = on_ready
        self._on_closed = on_closed
        self._on_cancelled = on_cancelled
        self._channel: Channel | None = None
        self._consumer_tag: str | None = None
        self._consuming = False  # is to consume, now and after each reconnect
        self._consumers = 0  # that there were, for their tags
        self._cancelling = False
        self._registered = False  # the broker has agreed; read by any thread
        self._prepared = False  # the queue is declared on this channel
        self._closing: Callable[[], None] | None = None
        self._answer = Expectation(link, f"what was asked about queue {queue.name}")
        self._reporting: Timer | None = None  # that the broker closed the channel

    @property
    def is_open(self) -> bool:
        """Whether the channel stands, so that deliveries can be settled on it."""
        return self._channel is not None and self._channel.is_open

    @property
    def is_registered(self) -> bool:
        """Whether the broker sends messages, as far as is known; for any thread."""
        return self._registered

    def open(self, connection: Connection) -> None:
        """Open the channel on a new connection, or anew on the same one."""
        self.generation += 1
        self.held = 0
        self._consumer_tag = None
        self._cancelling = False
        self._registered = False
        self._prepared = False
        self._answer.begin()
        self._channel = connection.open_channel(
            self._number, self, on_open=self._opened, on_close=self._closed
        )

    def detach(self) -> None:
        """The connection is gone, and the channel with it."""
        self._answer.end()
        self._channel = None
        self._consumer_tag = None
        self._registered = False
        self.generation += 1
        self._do_not_report()
        self._done_closing()

    def consume(self) -> None:
        """Begin to consume, now and after each reconnect."""
        self._consuming = True
        if self.is_open and self._prepared and self._consumer_tag is None:
            run_steps(self._start_consuming(), self._channel)

    def cancel(self) -> None:
        """Take no more messages: cancel the consumer and hand back what is still on its way."""
        self._consuming = False
        self._registered = False
        if self._channel is None or not self._channel.is_open or self._consumer_tag is None:
            return
        if not self._cancelling:
            self._cancelling = True
            self._channel.basic_cancel(self._consumer_tag, callback=self._cancelled)

    def ack(self, delivery: Delivery) -> None:
        """Acknowledge a delivery, if its channel still stands."""
        if self._settles(delivery):
            self.held -= 1
            self._write(ack_frame(self._number, delivery.tag, False))

    def reject(self, delivery: Delivery, *, requeue: bool) -> None:
        """Hand a delivery back to its queue, or have the broker drop it."""
        if self._settles(delivery):
            self.held -= 1
            self._write(reject_frame(self._number, delivery.tag, requeue))

    def ack_up_to(self, tag: int) -> None:
        """Acknowledge all deliveries of this generation up to ``tag``."""
        self._write(ack_frame(self._number, tag, True))

    def close(self, done: Callable[[], None]) -> None:
        """Close the channel; ``done`` is called when the broker has confirmed that it did.

        The broker answers in order, so its answer means that it has seen every acknowledgement
        written before; an empty write buffer would prove nothing of the kind.
        """
        self._do_not_report()
        self._answer.end()
        channel = self._channel
        if channel is None or channel.is_closed or channel.is_closing:
            done()
            return
        self._closing = done
        if channel.is_open:
            channel.close()
        # else when it has opened

    # What the connection calls

    def on_deliver(
        self,
        tag: int,
        redelivered: bool,
        exchange: str,
        routing_key: str,
        header: bytes,
        body: bytes,
    ) -> None:
        """Pass a message on; one that comes after cancelling goes back at once."""
        delivery = Delivery(self.generation, tag, redelivered, exchange, routing_key, header, body)
        self.delivered += 1
        self.held += 1
        if self._consuming:
            self._on_delivery(delivery)
        else:
            self.reject(delivery, requeue=True)

    def _opened(self, channel: Channel) -> None:
        if self._closing is not None:
            channel.close()
            return
        channel.add_on_cancel_callback(lambda _frame: self._cancelled_by_broker())
        run_steps(self._prepare(channel), channel)

    def _prepare(self, channel: Channel) -> Steps:
        yield from declare_queue(channel, self.queue)
        if self._prefetch:
            yield lambda done: channel.basic_qos(prefetch_count=self._prefetch, callback=done)
        self._prepared = True
        if self._consuming and self._consumer_tag is None:
            yield from self._start_consuming()
        self._answer.end()
        self._on_ready()

    def _start_consuming(self) -> Steps:
        self._answer.begin()
        channel = self._channel
        assert channel is not None, "called with the channel open"
        self._consumers += 1  # pika knows a tag until its cancelling is done, and longer
        tag = f"{self._link.name}-{self._consumers}"
        self._consumer_tag = tag
        yield lambda done: channel.basic_consume(
            self.queue.name,
            on_message_callback=lambda *_: None,  # deliveries come through on_deliver
            consumer_tag=tag,
            arguments=dict(self.queue.consumer_arguments or {}),
            callback=done,
        )
        self._answer.end()
        self._registered = self._consuming
        if not self._consuming:  # cancelled while the broker was asked
            self.cancel()

    def _cancelled(self, _frame: object) -> None:
        self._consumer_tag = None
        self._cancelling = False
        if self._consuming:  # told to consume again meanwhile
            run_steps(self._start_consuming(), self._channel)

    def _cancelled_by_broker(self) -> None:
        self._consumer_tag = None
        self._registered = False
        if not self._consuming or self._channel is None:
            return
        _log.warning("queue %s is gone: it is declared again", self.queue.name)
        if self._on_cancelled is not None:
            self._on_cancelled()
        self._prepared = False
        self._answer.begin()
        run_steps(self._prepare(self._channel), self._channel)

    def _closed(self, channel: Channel, reason: BaseException) -> None:
        if channel is not self._channel:
            return
        self._answer.end()
        self._channel = None
        self._consumer_tag = None
        self._registered = False
        self.generation += 1
        if self._closing is not None:
            self._done_closing()
        elif self._link.connection is not None and self._link.connection.is_open:
            # Not now: after this callback pika forgets the channel of this number, even a new one.
            self._reporting = self._link.call_at(0.0, lambda: self._report_closed(reason))

    def _report_closed(self, reason: BaseException) -> None:
        self._reporting = None
        if self._channel is None:
            self._on_closed(reason)

    def _do_not_report(self) -> None:
        if self._reporting is not None:
            self._link.cancel_timer(self._reporting)
            self._reporting = None

    def _done_closing(self) -> None:
        done, self._closing = self._closing, None
        if done is not None:
            done()

    def _settles(self, delivery: Delivery) -> bool:
        return delivery.generation == self.generation and self.is_open

    def _write(self, frame: bytes) -> None:
        if self._link.connection is not None:
            self._link.connection.write(frame)
