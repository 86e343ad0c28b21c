"""A queue's messages in, and what answers or replaces them out, over one connection.

``IntakeLink`` is the session of a link with two channels: deliveries are consumed and settled on
the first; the second, in confirm mode, carries what is sent in their course and nothing else, so
that a message which the broker refuses closes a channel on which no acknowledgement is under way.
Threads that meet here::

    start, wait_up, interrupt, open, cancel, ack, requeue, reject, back_off,
    send, stop, kill, trouble, ping            any thread
    on_delivery                                called on the link's thread: it may not block
    everything else                            the link's thread

Order of stopping: ``cancel()`` (no more messages), what was begun is settled, then ``stop()``,
which waits for the confirms of what was sent and closes both channels; the broker's answer to that
says that it has seen every acknowledgement. What is held by ``back_off`` goes back with it.
"""

import logging
import time
from collections.abc import Callable
from functools import partial

from threadko.amqp.confirms import ConfirmChannel, Outgoing
from threadko.amqp.connection import Connection
from threadko.amqp.consuming import ConsumerChannel
from threadko.amqp.entities import Queue
from threadko.amqp.link import Link
from threadko.amqp.message import Delivery
from threadko.amqp.parameters import BrokerParameters
from threadko.amqp.watchdog import Watchdog
from threadko.concurrency.deadline import Deadline
from threadko.exceptions import ContainerStopped, ThreadkoError

__all__ = ["IntakeLink", "Settling"]

_log = logging.getLogger(__name__)

_DELIVERIES, _SENDING, _WATCHING = 1, 2, 3  # the numbers of the channels

# Guessed: short for an error that passes, long for one that stays.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0


class Settling(Outgoing):
    """A message whose confirm settles a delivery: no worker has to do with that any more.

    Attributes:
        settles: the delivery, until it is settled.
    """

    __slots__ = ("settles",)

    settles: Delivery | None


class IntakeLink:
    """A connection that takes a queue's messages.

    Args:
        parameters: the broker.
        name: of the connection's thread.
        queue: where the messages come from.
        prefetch: messages that may be under way or wait in this process.
        on_delivery: takes each message, on the link's thread; raises ``ContainerStopped`` to have
            it handed back.
        restore: declared anew when the exchange of a message that is sent is missing.
        watchdog: seconds between checks whether messages wait that do not come; 0 for none.
    """

    def __init__(
        self,
        parameters: BrokerParameters,
        *,
        name: str,
        queue: Queue,
        prefetch: int,
        on_delivery: Callable[[Delivery], None],
        restore: Queue | None = None,
        watchdog: float = 0.0,
    ) -> None:
        self._on_delivery = on_delivery
        # Touched by the link's thread alone.
        self._finishing = False
        self._has_stood = False  # the deliveries' channel, since it was last opened
        self._pause = 0.0
        self._link = Link(parameters, name=name, session=self)
        self._deliveries = ConsumerChannel(
            self._link,
            _DELIVERIES,
            queue,
            prefetch=prefetch,
            on_delivery=self._take,
            on_ready=self._deliveries_ready,
            on_closed=self._deliveries_closed,
        )
        self._sending = ConfirmChannel(
            self._link, _SENDING, on_ready=self._link.came_up, restore=restore
        )
        self._watchdog = Watchdog(
            self._link,
            _WATCHING,
            self._deliveries,
            interval=watchdog,
            count_idle=self._count_idle,
        )

    # Any thread

    @property
    def is_up(self) -> bool:
        """Whether the connection stands and the queue is declared."""
        return self._link.is_up

    def trouble(self) -> str | None:
        """Say why no messages come at the moment; None if they do."""
        trouble = self._link.trouble()
        if trouble is None and not self._deliveries.is_registered:
            trouble = f"no consumer of {self._deliveries.queue.name}"
        return trouble

    @property
    def watchdog_resets(self) -> int:
        """How often messages waited that did not come, and the connection was made anew."""
        return self._watchdog.resets

    def ping(self, answer: Callable[[], object]) -> None:
        """Have `answer` called on the connection's thread."""
        self._link.ping(answer)

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
        self._link.post(self._deliveries.consume)

    def cancel(self) -> None:
        """Take no more messages; the connection stays, for what is under way."""
        self._link.post(self._deliveries.cancel)

    def ack(self, delivery: Delivery) -> None:
        """Acknowledge a message."""
        self._link.post(partial(self._ack, delivery))

    def requeue(self, delivery: Delivery) -> None:
        """Give a message back to its queue."""
        self._link.post(lambda: self._deliveries.reject(delivery, requeue=True))

    def reject(self, delivery: Delivery) -> None:
        """Have the broker drop a message, or dead-letter it where the queue says so."""
        self._link.post(lambda: self._deliveries.reject(delivery, requeue=False))

    def back_off(self, delivery: Delivery) -> None:
        """Give a message back whose handling failed; after a pause, if it had come back before.

        The pause doubles up to 5 seconds, and ends when a message that had come back is
        acknowledged.
        """
        self._link.post(partial(self._back_off, delivery))

    def send(self, message: Outgoing) -> None:
        """Send a message on the second channel; what becomes of it is told to the message."""
        self._link.post(partial(self._sending.send, message))

    def stop(self, timeout: float) -> None:
        """Flush what was sent and the acknowledgements, and close."""
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

    def begin(self, connection: Connection) -> None:
        """Open the deliveries' channel; the other follows when it stands."""
        self._has_stood = False
        self._deliveries.open(connection)
        if not self._finishing:
            self._watchdog.begin()

    def end(self, error: ThreadkoError) -> None:
        """Unconfirmed messages wait for the next connection, if there is to be one."""
        self._watchdog.end()
        self._deliveries.detach()
        self._sending.detach(error)
        if self._finishing:
            # The broker has taken everything back that was not acknowledged.
            self._link.finished()

    def turn(self) -> None:
        """Nothing is saved up for the end of a turn."""

    def finish(self) -> None:
        """Wait for the confirms of what was sent, then close both channels."""
        self._finishing = True
        self._watchdog.end()
        if not self._link.is_up:
            self._link.finished()
            return
        self._deliveries.cancel()
        self._sending.drain(self._drained)

    def abandon(self, error: ThreadkoError | None, killed: bool) -> None:
        """Nobody waits here for what was not sent."""

    def _count_idle(self) -> int:
        """How many messages are held that wait for a confirm alone."""
        generation = self._deliveries.generation
        return sum(
            isinstance(message, Settling)
            and message.settles is not None
            and message.settles.generation == generation
            for message in self._sending
        )

    def _has_more_to_send(self) -> bool:
        """Whether something is being made that will be sent; who makes it then drains anew."""
        return False

    def _drained(self) -> None:
        if not self._has_more_to_send():
            self._sending.close(lambda: self._deliveries.close(self._link.finished))

    def _take(self, delivery: Delivery) -> None:
        try:
            self._on_delivery(delivery)
        except ContainerStopped:
            self._deliveries.reject(delivery, requeue=True)

    def _ack(self, delivery: Delivery) -> None:
        if delivery.redelivered:
            self._pause = 0.0
        self._deliveries.ack(delivery)

    def _back_off(self, delivery: Delivery) -> None:
        pause = 0.0
        if delivery.redelivered:
            pause = self._pause = min(max(2 * self._pause, _FIRST_PAUSE), _LONGEST_PAUSE)
        give_back = partial(self._deliveries.reject, delivery, requeue=True)
        if pause:
            self._link.call_at(time.monotonic() + pause, give_back)
        else:
            give_back()

    def _deliveries_ready(self) -> None:
        self._has_stood = True
        connection = self._link.connection
        if connection is not None and not self._sending.is_open:
            self._sending.open(connection)

    def _deliveries_closed(self, reason: BaseException) -> None:
        connection = self._link.connection
        has_stood, self._has_stood = self._has_stood, False
        # One that the broker closes before it stands (a queue of that name has become another)
        # would be closed again and again; a new connection comes after a pause at least.
        if has_stood and connection is not None and connection.is_open:
            # The broker's timeout for acknowledgements, say. The other channel is not concerned.
            _log.warning(
                "%s: the broker closed the consumer's channel: %s", self._link.name, reason
            )
            self._deliveries.open(connection)
        else:
            self._link.reset(
                reason if isinstance(reason, Exception) else RuntimeError(repr(reason))
            )
