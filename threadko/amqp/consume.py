"""Consuming in any program: `Consumer`, whose callbacks run in the thread that calls `run`.

Threads that meet here::

    Consumer.run                                         one thread at a time; callbacks run in it
    Consumer.stop, wait_until_consumer_ready, ready      any thread, callbacks too
    Message.ack, reject, requeue                         any thread
    everything of _Session                               the link's thread

Order of stopping: `run` gives back the messages that no callback has had, closes the connection
when the broker has seen all that was settled, and returns. What was not settled by then goes back
to its queue.
"""

import logging
import queue
import threading
from collections.abc import Callable, Sequence
from typing import Any

from threadko.amqp.connection import Connection
from threadko.amqp.consuming import ConsumerChannel
from threadko.amqp.entities import Queue, as_queue
from threadko.amqp.link import Link
from threadko.amqp.message import Delivery, Properties
from threadko.amqp.options import ConsumerOptions
from threadko.amqp.parameters import BrokerParameters
from threadko.concurrency.deadline import Deadline
from threadko.concurrency.threads import thread_name
from threadko.exceptions import ConfigurationError, ContainerStopped, DecodeError, ThreadkoError
from threadko.serialization import COMPRESSION_HEADER, Serialization

__all__ = ["Consumer", "Message"]

_log = logging.getLogger(__name__)

_CLOSE_SECONDS = 5.0

_UNREAD: Any = object()


class Message:
    """A message that was received; it is settled once, by any thread.

    Attributes:
        body: as bytes; `payload` is what it means.
        properties: those of AMQP, headers among them; also to be read as a dict.
        headers: by name, the dict that `properties` hold if they hold one.
    """

    def __init__(
        self,
        delivery: Delivery,
        properties: Properties,
        serialization: Serialization,
        settle: Callable[[Delivery, bool | None], None],
    ) -> None:
        self.body = delivery.body
        self.properties = properties
        # Not a copy: what an extension notes in them goes along when it sends the properties on.
        self.headers = {} if properties.headers is None else properties.headers
        self.content_type = properties.content_type
        self.content_encoding = properties.content_encoding
        self._delivery = delivery
        self._payload = _UNREAD
        self._serialization = serialization
        self._settle = settle
        self._lock = threading.Lock()
        self._is_settled = False  # guarded by _lock

    @property
    def acknowledged(self) -> bool:
        """Whether it was settled, in whatever way."""
        return self._is_settled

    @property
    def redelivered(self) -> bool:
        """Whether it was delivered before, and may have been handled."""
        return self._delivery.redelivered

    @property
    def delivery_info(self) -> dict[str, Any]:
        """Its `exchange`, `routing_key`, `redelivered` and `delivery_tag`."""
        return self._delivery.info

    @property
    def payload(self) -> Any:
        """The value in the body, decoded once; `DecodeError` if it cannot be read."""
        if self._payload is _UNREAD:
            self._payload = self.decode()
        return self._payload

    def take_over(self) -> Delivery | None:
        """Return the delivery for the caller to settle; None if it was settled before."""
        with self._lock:
            was_settled, self._is_settled = self._is_settled, True
        return None if was_settled else self._delivery

    def decode(self) -> Any:
        """Return the value in the body, made anew; `DecodeError` if it cannot be read."""
        return self._serialization.decode(
            self.body,
            self.content_type,
            self.content_encoding,
            self.headers.get(COMPRESSION_HEADER),
        )

    def ack(self) -> None:
        """Tell the broker that it is done; nothing if it was settled before."""
        self._end(None)

    def reject(self, requeue: bool = False) -> None:
        """Have the broker drop it, or dead-letter it where its queue says so."""
        self._end(requeue)

    def requeue(self) -> None:
        """Give it back to its queue."""
        self._end(True)

    def _end(self, requeue: bool | None) -> None:
        delivery = self.take_over()
        if delivery is not None:
            self._settle(delivery, requeue)


class _Session:
    """The link of one `run`, with a channel for each queue."""

    def __init__(
        self,
        parameters: BrokerParameters,
        queues: Sequence[Queue],
        *,
        prefetch: int,
        on_delivery: Callable[["_Session", ConsumerChannel, Delivery], None],
        on_ready: Callable[[bool], None],
    ) -> None:
        self.link = Link(parameters, name=thread_name("consumer", "connection"), session=self)
        self._on_ready = on_ready
        self._channels: list[ConsumerChannel] = []
        # Touched by the link's thread alone.
        self._standing: set[int] = set()  # numbers of the channels that stand
        self._finishing = False
        for number, each in enumerate(queues, start=1):
            self._add(number, each, prefetch, on_delivery)

    def _add(
        self, number: int, each: Queue, prefetch: int, on_delivery: Callable[..., None]
    ) -> None:
        channel = ConsumerChannel(
            self.link,
            number,
            each,
            prefetch=prefetch,
            on_delivery=lambda delivery: on_delivery(self, channel, delivery),
            on_ready=lambda: self._channel_stands(number),
            on_closed=lambda reason: self._channel_closed(number, channel, reason),
        )
        channel.consume()
        self._channels.append(channel)

    def settle(self, channel: ConsumerChannel, delivery: Delivery, requeue: bool | None) -> None:
        """Settle a delivery, if its connection still stands; for any thread."""
        if requeue is None:
            self.link.post(lambda: channel.ack(delivery))
        else:
            self.link.post(lambda: channel.reject(delivery, requeue=requeue))

    def begin(self, connection: Connection) -> None:
        """Open all channels."""
        for channel in self._channels:
            channel.open(connection)

    def end(self, error: ThreadkoError) -> None:
        """The broker takes back what is not settled."""
        self._standing.clear()
        self._on_ready(False)
        for channel in self._channels:
            channel.detach()
        if self._finishing:
            self.link.finished()

    def turn(self) -> None:
        """Nothing is saved up for the end of a turn."""

    def finish(self) -> None:
        """Close all channels, one after the other: the broker has seen everything then."""
        self._finishing = True
        self._close_next(list(self._channels))

    def _close_next(self, channels: list[ConsumerChannel]) -> None:
        if channels and self.link.is_up:
            channels.pop().close(lambda: self._close_next(channels))
        else:
            self.link.finished()

    def abandon(self, error: ThreadkoError | None, killed: bool) -> None:
        """`run` hears of it from `wait_up`, or has ended it itself."""

    def _channel_stands(self, number: int) -> None:
        self._standing.add(number)
        if len(self._standing) == len(self._channels):
            self.link.came_up()
            self._on_ready(True)

    def _channel_closed(self, number: int, channel: ConsumerChannel, why: BaseException) -> None:
        stood = number in self._standing
        self._standing.discard(number)
        connection = self.link.connection
        if stood and connection is not None and connection.is_open:
            _log.warning("%s: the broker closed a channel: %s", self.link.name, why)
            channel.open(connection)
        else:
            # Opened at once it would be closed again and again.
            self.link.reset(why if isinstance(why, Exception) else RuntimeError(repr(why)))


class Consumer:
    """Takes messages from queues, and passes each to callbacks, until it is stopped.

    A lost connection is made anew; what was not settled comes again.

    Args:
        amqp_uri: the broker, or several nodes of one.
        ssl: as `AMQP_SSL`.
        login_method: PLAIN, AMQPLAIN or EXTERNAL.
        queues: declared, with exchanges and bindings, whenever the connection is made.
        callbacks: each is called with the decoded body and the `Message`, in `run`'s thread; one
            of them has to settle the message.
        heartbeat: seconds.
        prefetch_count: messages that may be unsettled, for each queue; 0 for no limit.
        accept: names of the serializers that are read; the configured ones if None.
        no_ack: settle each message before its callbacks are called.

    Raises:
        ConfigurationError: one of these cannot be used.
    """

    def __init__(
        self,
        amqp_uri: str | Sequence[str],
        ssl: Any = None,
        login_method: str | None = None,
        queues: Sequence[Any] | None = None,
        callbacks: Sequence[Callable[[Any, Message], object]] | None = None,
        heartbeat: int | None = None,
        prefetch_count: int | None = None,
        accept: Sequence[str] | None = None,
        *,
        no_ack: bool = False,
        serialization: Serialization | None = None,
    ) -> None:
        self.amqp_uri = amqp_uri
        self.queues = [as_queue(each) for each in queues or ()]
        self.callbacks = list(callbacks or ())
        self.ready = threading.Event()
        ConsumerOptions(heartbeat, prefetch_count, accept)  # raises where one cannot be used
        self._parameters = BrokerParameters.from_uri(
            amqp_uri,
            20 if heartbeat is None else heartbeat,
            "threadko consumer",
            ssl=ssl,
            login_method=login_method,
        )
        if not self.queues:
            raise ConfigurationError("a consumer needs at least one queue")
        self._prefetch = 10 if prefetch_count is None else prefetch_count
        serialization = serialization or Serialization.from_config()
        self._serialization = serialization if accept is None else serialization.accepting(accept)
        self._no_ack = no_ack
        self._lock = threading.Lock()  # guards the fields from here to the blank line
        self._link: Link | None = None
        self._should_stop = False
        self._inbox: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()

    @property
    def should_stop(self) -> bool:
        """Whether `stop` was called, and `run` did not begin again since."""
        return self._should_stop

    def run(self) -> None:
        """Consume until `stop` is called, or a callback raises: that is raised here.

        A `stop` that was called before is for this run, and ends it at once.

        Raises:
            BrokerRefused: the broker refuses this login, or what is declared.
            RuntimeError: another thread is in here.
        """
        with self._lock:
            if self._link is not None:
                raise RuntimeError("the consumer is running in another thread already")
            session = _Session(
                self._parameters,
                self.queues,
                prefetch=self._prefetch,
                on_delivery=self._receive,
                on_ready=self._note_ready,
            )
            self._link = session.link
            self._inbox = queue.SimpleQueue()
            stopped = self._should_stop
        try:
            if not stopped:
                session.link.start()
                self._work(session.link)
        finally:
            session.link.stop(_CLOSE_SECONDS)
            self.ready.clear()
            with self._lock:
                self._link = None
                self._should_stop = False

    def _work(self, link: Link) -> None:
        try:
            link.wait_up(Deadline(None))
        except ContainerStopped:
            return
        # stop() ends this wait as well.
        while (work := self._inbox.get()) is not None and not self._should_stop:
            work()

    def stop(self) -> None:
        """Let `run` return once the callback that runs is done; does not wait."""
        with self._lock:
            self._should_stop = True
            if self._link is not None:
                self._link.interrupt()
            self._inbox.put(None)

    def wait_until_consumer_ready(self, timeout: float | None = None) -> bool:
        """Wait until the queues are declared and consumed from; False if `timeout` passed."""
        return self.ready.wait(timeout)

    def on_message(self, body: Any, message: Message) -> None:
        """Call the callbacks with a message, or give it back when all is to stop."""
        if self.should_stop:
            self.requeue_message(message)
            return
        for callback in self.callbacks:
            callback(body, message)

    def on_decode_error(self, message: Message, error: DecodeError) -> None:
        """Have the broker drop (or dead-letter) a message that cannot be read."""
        _log.error("a message was rejected: %s", error)
        message.reject()

    def ack_message(self, message: Message) -> None:
        """Acknowledge a message, if the connection on which it came still stands."""
        message.ack()

    def requeue_message(self, message: Message) -> None:
        """Give a message back, if the connection on which it came still stands."""
        message.requeue()

    def _note_ready(self, is_ready: bool) -> None:
        if is_ready:
            self.ready.set()
        else:
            self.ready.clear()

    def _receive(self, session: _Session, channel: ConsumerChannel, delivery: Delivery) -> None:
        self._inbox.put(lambda: self._handle(session, channel, delivery))

    def _handle(self, session: _Session, channel: ConsumerChannel, delivery: Delivery) -> None:
        def settle(settled: Delivery, requeue: bool | None) -> None:
            session.settle(channel, settled, requeue)

        error: DecodeError | None = None
        body = None
        try:
            properties = delivery.properties
        except ValueError as exc:
            properties, error = Properties(), DecodeError(str(exc))
        message = Message(delivery, properties, self._serialization, settle)
        if error is None:
            try:
                body = message.payload
            except DecodeError as exc:
                error = exc
        if error is not None:
            self.on_decode_error(message, error)
            return
        if self._no_ack or channel.queue.no_ack:
            message.ack()
        self.on_message(body, message)
