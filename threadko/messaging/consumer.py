"""The `consume` entrypoint: messages of any queue.

Threads that meet here: each `consume` method has a connection of its own, whose thread puts every
message into the container's waiting line and does nothing else with it. The rest of a message's
life is in one worker thread: decoding, the worker, and settling, which happens exactly once. A
message that failed is settled when the broker has confirmed its copy in a delay or dead queue, so
that it is lost nowhere; should the connection break in between, it may be there twice. That of an
abandoned worker is left to the broker, which gives it to somebody else.

Order of stopping: `Consumer.cancel` (no more messages, those that wait go back), the workers end
and settle, and the connection is flushed and closed.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property, partial
from typing import Any, cast

from threadko.amqp.consume import Message
from threadko.amqp.delays import (
    Forward,
    Retry,
    count_failures,
    dead_queue,
    delay_before_queue,
    make_dead,
    make_retry,
    to_milliseconds,
)
from threadko.amqp.entities import Queue, as_queue
from threadko.amqp.intake import IntakeLink, Settling
from threadko.amqp.message import FRAME_OVERHEAD, HEADER_OVERHEAD, Delivery, Properties
from threadko.amqp.options import ConsumerOptions
from threadko.amqp.parameters import BrokerParameters
from threadko.concurrency.deadline import Deadline
from threadko.concurrency.slots import Line
from threadko.concurrency.threads import thread_name
from threadko.configuration.settings import BrokerSettings, ContainerSettings
from threadko.exceptions import ConfigurationError, DecodeError, EncodeError, WorkerKilled
from threadko.extensions import (
    Entrypoint,
    ExcInfo,
    Extension,
    WorkerContext,
)
from threadko.messaging.headers import decode_from_headers
from threadko.serialization import Serialization
from threadko.utils.redaction import one_line
from threadko.utils.safelog import describe_error, log_safely

__all__ = ["Consumer", "consume"]

_log = logging.getLogger(__name__)

_CLOSE_SECONDS = 5.0  # for flushing and closing when all workers have ended


class _Forwarded(Settling):
    """A failed message on its way to a delay or dead queue, and the delivery that it settles."""

    __slots__ = ("_delivery", "_link")

    def __init__(self, forward: Forward, delivery: Delivery, link: IntakeLink) -> None:
        super().__init__(
            exchange="",
            routing_key=forward.queue.name,
            header=forward.header,
            body=forward.body,
            # When the connection is lost, the message itself comes again.
            resend=False,
            declare_first=(forward.queue,),
        )
        self.settles = self._delivery = delivery
        self._link = link

    def on_confirmed(self) -> None:
        """The broker has the copy, so that the message can go."""
        self._link.ack(self._delivery)

    def on_failed(self, error: Exception) -> None:
        """It stays where it was."""
        name = one_line(self.routing_key)
        _log.error("a failed message could not be moved to %s, and goes back: %s", name, error)
        self._link.back_off(self._delivery)


class _Intake(Extension):
    """A consumer's connection: a part of its own, for it closes after the workers have ended."""

    link: IntakeLink | None = None

    def find_trouble(self) -> str | None:
        """Say why no messages come, if none do."""
        return None if self.link is None else self.link.trouble()

    def answer_ping(self, answer: Callable[[], object]) -> None:
        """Ask the connection's thread."""
        if self.link is None:
            answer()
        else:
            self.link.ping(answer)

    def stop(self) -> None:
        """Flush what was sent and settled, and close."""
        if self.link is not None:
            self.link.stop(_CLOSE_SECONDS)

    def kill(self) -> None:
        """Drop the connection: the broker gives the messages to somebody else."""
        if self.link is not None:
            self.link.kill()


class Consumer(Entrypoint):
    """Calls a method with the body of each message of a queue; see `consume`.

    Override `handle_message` to pass other arguments, `handle_result` to see or change the
    outcome, `handle_message_processed` to settle messages in another way.

    Args:
        queue: declared with its exchanges and bindings; one of ours or of kombu's. None if a
            subclass sets `self.queue` in its `setup`, before it calls this one.
        requeue_on_error: give a failed message back to its queue; after a pause, if it had come
            back before.
        expected_exceptions: logged as warnings.
        sensitive_arguments: arguments of the method that tools must not show.
        retry: try a failed message again, after waiting in the broker.
        dead_letter: move what cannot be read, or has failed for good, to the queue
            `<queue>.dead`; without, it is logged and dropped.
        heartbeat: seconds; the configured `HEARTBEAT` if None.
        prefetch_count: messages that one instance holds; the configured number if None.
        accept: names of the serializers that are read; the configured ones if None.
        no_ack: acknowledge each message when its worker begins: it is lost if that fails.

    Raises:
        ConfigurationError: one of these cannot be used, or not with another.
    """

    intake = _Intake()

    def __init__(
        self,
        queue: Any,
        requeue_on_error: bool = False,
        expected_exceptions: type[BaseException] | Iterable[type[BaseException]] = (),
        sensitive_arguments: str | Iterable[str] = (),
        *,
        retry: Retry | None = None,
        dead_letter: bool = False,
        heartbeat: int | None = None,
        prefetch_count: int | None = None,
        accept: Sequence[str] | None = None,
        no_ack: bool = False,
        **kwargs: Any,
    ) -> None:
        # What a subclass passes may be known at the start only, with the configuration.
        is_late = queue is None and type(self) is not Consumer
        self.queue = cast(Queue, None) if is_late else as_queue(queue)
        self.requeue_on_error = requeue_on_error
        self.retry = retry
        self.dead_letter = dead_letter
        self.heartbeat = heartbeat
        self.prefetch_count = prefetch_count
        self.accept = accept
        self.no_ack = no_ack or (not is_late and self.queue.no_ack)
        self._check_options()
        super().__init__(
            expected_exceptions=expected_exceptions,
            sensitive_arguments=sensitive_arguments,
            **kwargs,
        )

    def _check_options(self) -> None:
        if self.retry is not None and not isinstance(self.retry, Retry):
            raise ConfigurationError(f"retry must be a Retry(...), not {self.retry!r}")
        if not isinstance(self.dead_letter, bool):
            raise ConfigurationError(
                f"dead_letter must be True or False, not {self.dead_letter!r}: the queue's name is"
                " that of the one consumed from, and .dead"
            )
        if self.requeue_on_error and (self.retry is not None or self.dead_letter):
            raise ConfigurationError(
                "requeue_on_error gives a message back for ever: use retry and dead_letter instead"
            )
        if self.no_ack and (self.retry is not None or self.dead_letter or self.requeue_on_error):
            raise ConfigurationError(
                "with no_ack a message is gone when its worker begins: there is no retry,"
                " dead_letter or requeue_on_error"
            )
        # Checks them; what is used are the attributes, which a subclass may set later.
        ConsumerOptions(self.heartbeat, self.prefetch_count, self.accept)

    @property
    def amqp_uri(self) -> str | tuple[str, ...]:
        """The broker, or several nodes of one."""
        return BrokerSettings.from_config(self.container.config).uri

    def setup(self) -> None:
        """Read the configuration and open a waiting line."""
        self.queue = as_queue(self.queue)  # a subclass may have set one of kombu's
        self.no_ack = self.no_ack or self.queue.no_ack
        self._check_options()
        self._check_names()
        container = self.container
        broker = BrokerSettings.from_config(container.config)
        workers = ContainerSettings.from_config(container.config)
        serialization = Serialization.from_config(container.config)
        self._serialization = (
            serialization if self.accept is None else serialization.accepting(self.accept)
        )
        self._max_message_size = broker.max_message_size
        self._start_timeout = broker.start_timeout
        self._parameters = BrokerParameters.from_uri(
            self.amqp_uri,
            heartbeat=broker.heartbeat if self.heartbeat is None else self.heartbeat,
            connection_name=f"threadko {container.service_name} {self.method_name}",
            ssl=broker.ssl,
            login_method=broker.login_method,
        )
        self._line: Line = container.open_line(self.method_name)
        self._link = self.intake.link = IntakeLink(
            self._parameters,
            name=thread_name(container.service_name, self.method_name),
            queue=self.queue,
            prefetch=self.prefetch_count or workers.prefetch_count,
            on_delivery=self._take,
            watchdog=broker.consumer_watchdog,
        )

    def _check_names(self) -> None:
        """Find out now what would be found out when a message fails."""
        if self.retry is None and not self.dead_letter:
            return
        if not self.queue.name:
            raise ConfigurationError(
                f"{self.method_name} consumes from a queue that the broker names: retry and"
                " dead_letter need a queue with a name of its own"
            )
        dead_queue(self.queue.name)
        for delay in () if self.retry is None else self.retry.delays:
            delay_before_queue(self.queue.name, to_milliseconds(delay))

    def start(self) -> None:
        """Begin to connect and declare."""
        self._link.start()

    def ready(self) -> None:
        """Wait for the connection."""
        with self.container.stopping.calling(self._link.interrupt):
            self._link.wait_up(Deadline(self._start_timeout))

    def open(self) -> None:
        """Begin to consume."""
        self._link.open()

    def cancel(self) -> None:
        """Take no more messages, and give back those that no worker has begun."""
        self._link.cancel()
        for job in self._line.close():
            if isinstance(job, partial):
                self._link.requeue(*job.args)

    def _take(self, delivery: Delivery) -> None:
        self._line.put(partial(self._work, delivery))

    def _work(self, delivery: Delivery) -> None:
        """One message's life, in a worker thread that holds a slot."""
        properties, error = Properties(), None
        try:
            properties = delivery.properties
        except ValueError as exc:
            error = DecodeError(str(exc))
        message = Message(delivery, properties, self._serialization, self._settle)
        body = None
        if error is None:
            try:
                body = message.payload
            except DecodeError as exc:
                error = exc
        try:
            if error is not None:
                self.handle_decode_error(message, error)
                return
            if self.no_ack:
                message.ack()
            self.handle_message(body, message)
        except BaseException as exc:
            log_safely(_log, logging.ERROR, "%s could not begin", self.method_name, exc_info=exc)
            if not self.container.being_killed:
                self._settle_safely(message, None, (type(exc), exc, exc.__traceback__))

    def _settle(self, delivery: Delivery, requeue: bool | None) -> None:
        if requeue is None:
            self._link.ack(delivery)
        elif requeue:
            self._link.requeue(delivery)
        else:
            self._link.reject(delivery)

    @cached_property  # a subclass may set its own
    def consumer(self) -> "Consumer":
        """What nameko settles messages with: here that is this itself."""
        return self

    def ack_message(self, message: Message) -> None:
        """Acknowledge a message; nothing if it was settled before."""
        message.ack()

    def requeue_message(self, message: Message) -> None:
        """Give a message back to its queue; nothing if it was settled before."""
        message.requeue()

    def handle_message(self, body: Any, message: Message) -> None:
        """Run a worker for a message, in the thread that called.

        An override that runs none has to settle the message.
        """
        self.run_worker((body,), {}, message)

    def run_worker(self, args: Sequence[Any], kwargs: Mapping[str, Any], message: Message) -> None:
        """Call the method of the service, and settle the message by its outcome."""
        worker_ctx = self.container.run_worker(
            self,
            args,
            kwargs,
            context_data=decode_from_headers(message.headers),
            handle_result=partial(self.handle_result, message),
            settle=self.settle,
            message=message,
        )
        if worker_ctx.abandoned:
            self._give_back(message)

    def _give_back(self, message: Message) -> None:
        """Leave a message to the broker, since its worker was ended by `WorkerKilled`."""
        if self.container.being_killed:
            return  # the end of the connection does it
        if not message.redelivered:
            message.requeue()
            return
        error = WorkerKilled(f"{self.method_name} was ended by WorkerKilled, twice")
        self.handle_message_processed(message, None, (WorkerKilled, error, None))

    def handle_result(
        self,
        message: Message,
        worker_ctx: WorkerContext,
        result: Any = None,
        exc_info: ExcInfo | None = None,
    ) -> tuple[Any, ExcInfo | None]:
        """Return the outcome that the dependencies see; the message is settled later."""
        return result, exc_info

    def settle(
        self, worker_ctx: WorkerContext, result: Any = None, exc_info: ExcInfo | None = None
    ) -> None:
        """Settle the message; called after every `worker_result`."""
        if isinstance(worker_ctx.message, Message):
            self._settle_safely(worker_ctx.message, result, exc_info)

    def _settle_safely(
        self, message: Message, result: Any = None, exc_info: ExcInfo | None = None
    ) -> None:
        """Settle a message; one that an override has failed to settle goes back."""
        try:
            self.handle_message_processed(message, result, exc_info)
        except WorkerKilled:
            raise  # whoever ran the worker gives it back
        except BaseException as error:
            log_safely(
                _log,
                logging.ERROR,
                "a message of %s could not be settled, and goes back",
                self.queue.name,
                exc_info=error,
            )
            delivery = message.take_over()
            if delivery is not None:
                self._link.back_off(delivery)

    def handle_message_processed(
        self, message: Message, result: Any = None, exc_info: ExcInfo | None = None
    ) -> None:
        """Acknowledge a message, or do with one that failed what was asked for."""
        if exc_info is None:
            message.ack()
            return
        error = exc_info[1]
        if self.requeue_on_error:
            delivery = message.take_over()
            if delivery is not None:
                self._link.back_off(delivery)
        elif self.retry is not None and isinstance(error, self.retry.exceptions):
            if count_failures(message.headers) < self.retry.max:
                self._retry(message, error)
            else:
                self._bury(message, "exhausted", error)
        elif self.retry is not None or self.dead_letter:
            self._bury(message, "failed", error)
        else:
            message.ack()

    def handle_decode_error(self, message: Message, error: DecodeError) -> None:
        """Put a message that cannot be read aside; without `dead_letter` the broker drops it."""
        if self.dead_letter:
            self._bury(message, "undecodable", error)
        else:
            _log.error("a message of %s was dropped: %s", self.queue.name, one_line(str(error)))
            message.reject()

    def _retry(self, message: Message, error: BaseException) -> None:
        retry = self.retry
        if retry is not None:
            makers: list[Callable[..., Forward]] = [partial(make_retry, retry=retry, error=error)]
            if self.dead_letter:
                makers.append(partial(make_dead, reason="failed", error=error))
            self._move(message, makers)

    def _bury(self, message: Message, reason: str, error: BaseException) -> None:
        what = "goes to its dead queue" if self.dead_letter else "is dropped"
        text = one_line(describe_error(error))
        line = "a message of %s %s, %s: %s"
        log_safely(_log, logging.ERROR, line, self.queue.name, what, reason, text)
        if not self.dead_letter:
            message.ack()
            return
        self._move(message, [partial(make_dead, reason=reason, error=error)])

    def _move(self, message: Message, makers: Sequence[Callable[..., Forward]]) -> None:
        """Send a message to where the first of `makers` that can will have it."""
        delivery = message.take_over()
        if delivery is None:
            return
        limit = self._link.frame_max
        room = limit - FRAME_OVERHEAD - HEADER_OVERHEAD if limit else None
        for make in makers:
            try:
                # It came in, so it is not too large; but its headers grow.
                forward = make(
                    delivery, queue=self.queue.name, user=self._parameters.user, room=room
                )
            except EncodeError as error:
                name = self.queue.name
                _log.error("a failed message of %s cannot be moved as it is: %s", name, error)
            else:
                self._link.send(_Forwarded(forward, delivery, self._link))
                return
        _log.error("a failed message of %s was dropped", self.queue.name)
        self._link.reject(delivery)


consume = Consumer.decorator
