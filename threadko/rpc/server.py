"""The ``rpc`` entrypoint: requests become workers, and their outcome a reply.

Threads that meet here: the connection thread puts each request into the container's waiting line
and does nothing else with it. All the rest of a request's life is in one worker thread: decoding,
finding the method, the worker itself, encoding the reply, and handing it over with the
acknowledgement. A request is settled exactly once, whatever happens on the way; that of an
abandoned worker is left to the broker, which gives it to somebody else.

Order of stopping: ``RpcConsumer.cancel`` (no more requests, those that wait go back), the workers
end and settle, ``RpcConsumer.stop`` (flush and close).
"""

import logging
from collections.abc import Callable
from functools import cached_property, partial
from typing import Any

from threadko.amqp.message import (
    Delivery,
    Properties,
    check_sendable,
    encode_reply_properties,
)
from threadko.amqp.options import ConsumerOptions
from threadko.amqp.parameters import BrokerParameters
from threadko.concurrency.deadline import Deadline
from threadko.concurrency.slots import Line
from threadko.concurrency.threads import thread_name
from threadko.configuration.settings import BrokerSettings, ContainerSettings, RpcSettings
from threadko.context import decode_headers
from threadko.exceptions import (
    ConfigurationError,
    DecodeError,
    EncodeError,
    MalformedRequest,
    MethodNotFound,
    UnserializableValueError,
    WorkerKilled,
)
from threadko.extensions import (
    Entrypoint,
    ExcInfo,
    ProviderCollector,
    SharedExtension,
    WorkerContext,
)
from threadko.rpc.protocol import (
    parse_request,
    reply_body,
    request_queue,
    rpc_exchange,
)
from threadko.rpc.requests import Reply, RequestLink
from threadko.serialization import COMPRESSION_HEADER, JSON, Encoded, Serialization
from threadko.utils.redaction import one_line
from threadko.utils.safelog import describe_error, log_safely

__all__ = ["Rpc", "RpcConsumer", "RpcMessage", "rpc"]

_log = logging.getLogger(__name__)

_CLOSE_SECONDS = 5.0  # for flushing and closing when all workers have ended
_MAX_TEXT = 1000  # characters of an error that says why another could not be sent; guessed

_UNREAD: Any = object()


class RpcMessage:
    """One request, with the reply that it gets. Belongs to its worker's thread.

    Attributes:
        properties: those of AMQP, headers among them; also to be read as a dict.
        headers: by name, the dict that ``properties`` hold if they hold one.
    """

    __slots__ = (
        "_payload",
        "_serialization",
        "delivery",
        "headers",
        "properties",
        "reply",
        "settled",
    )

    def __init__(self, delivery: Delivery, serialization: Serialization) -> None:
        self._payload = _UNREAD
        self._serialization = serialization
        self.delivery = delivery
        self.properties: Properties = delivery.properties
        # The same object, as in kombu: what is changed in one is seen in the other.
        headers = self.properties.headers
        self.headers: dict[str, Any] = {} if headers is None else headers
        self.reply: Reply | None = None
        self.settled = False

    @property
    def routing_key(self) -> str:
        """``service.method`` of the request."""
        return self.delivery.routing_key

    @property
    def redelivered(self) -> bool:
        """Whether the broker may have delivered this request before."""
        return self.delivery.redelivered

    @property
    def message_id(self) -> str | None:
        """The id that the sender gave it."""
        return self.properties.message_id

    @property
    def content_type(self) -> str | None:
        """What its body is encoded as."""
        return self.properties.content_type

    @property
    def content_encoding(self) -> str | None:
        """The character encoding of its body, or ``binary``."""
        return self.properties.content_encoding

    @property
    def delivery_info(self) -> dict[str, Any]:
        """Its ``exchange``, ``routing_key``, ``redelivered`` and ``delivery_tag``."""
        return self.delivery.info

    @property
    def body(self) -> bytes:
        """The body as it came; ``payload`` is what it means."""
        return self.delivery.body

    @property
    def payload(self) -> Any:
        """The value in the body, decoded once; ``DecodeError`` if it cannot be read."""
        if self._payload is _UNREAD:
            self._payload = self._serialization.decode(
                self.delivery.body,
                self.properties.content_type,
                self.properties.content_encoding,
                self.headers.get(COMPRESSION_HEADER),
            )
        return self._payload


class RpcConsumer(ProviderCollector, SharedExtension):
    """Takes the requests of one service, shared by all its ``rpc`` methods.

    Args:
        consumer_options: ``heartbeat``, ``prefetch_count`` and ``accept``, as of ``consume``; what
            is configured where one is not given.

    Raises:
        TypeError: there is no such option.
        ConfigurationError: an option has a value that cannot be used.
    """

    def __init__(self, **consumer_options: Any) -> None:
        super().__init__()
        self._options = ConsumerOptions.read(consumer_options)
        self._by_routing_key: dict[str, Rpc] = {}  # replaced, never changed: workers read it
        self._closers: list[Callable[[], object]] = []  # what kill() is to do, as far as set up

    @property
    def sharing_key(self) -> object:
        """Its class and its options."""
        return type(self), self._options

    def setup(self) -> None:
        """Read the configuration and open a waiting line."""
        self._check_alone()
        container = self.container
        own = self._options
        broker = BrokerSettings.from_config(container.config)
        workers = ContainerSettings.from_config(container.config)
        rpc_settings = RpcSettings.from_config(container.config)
        self._start_timeout = broker.start_timeout
        self._max_message_size = broker.max_message_size
        serialization = Serialization.from_config(container.config)
        self._serialization = (
            serialization if own.accept is None else serialization.accepting(own.accept)
        )
        self._exchange = rpc_exchange(rpc_settings.exchange)
        self._line: Line = container.open_line("rpc")
        self._link = RequestLink(
            BrokerParameters.from_uri(
                broker.uri,
                heartbeat=broker.heartbeat if own.heartbeat is None else own.heartbeat,
                connection_name=f"threadko {container.service_name} rpc",
                ssl=broker.ssl,
                login_method=broker.login_method,
            ),
            name=thread_name(container.service_name, "rpc"),
            queue=request_queue(
                container.service_name, self._exchange, rpc_settings.queue_arguments
            ),
            prefetch=own.prefetch_count or workers.prefetch_count,
            on_request=self._take,
            watchdog=broker.consumer_watchdog,
        )
        self._closers = [self._line.close, self._link.kill]

    def _check_alone(self) -> None:
        # All requests of a service are in one queue: a second consumer would be given those for
        # the methods of the first, whatever its options are.
        for other in self.container.shared_extensions.values():
            if isinstance(other, RpcConsumer) and other is not self:
                raise ConfigurationError(
                    f"the rpc methods of {self.container.service_name!r} share one queue and so"
                    f" one consumer: {_describe(other)} and {_describe(self)} cannot be both;"
                    " declare all methods by the same entrypoint class"
                )

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
        """Take no more requests, and give back those that no worker has begun."""
        self._link.cancel()
        for job in self._line.close():
            if isinstance(job, partial):
                self._link.requeue(*job.args)

    def stop(self) -> None:
        """Flush replies and acknowledgements, and close the connection."""
        self._link.stop(_CLOSE_SECONDS)

    def kill(self) -> None:
        """Drop the connection: the broker gives the requests to somebody else."""
        for close in self._closers:
            close()

    def find_trouble(self) -> str | None:
        """Say why there is no connection, if there is none."""
        return self._link.trouble()

    def answer_ping(self, answer: Callable[[], object]) -> None:
        """Ask the connection's thread."""
        self._link.ping(answer)

    def register_provider(self, provider: "Rpc") -> None:
        """Answer for one more method."""
        super().register_provider(provider)
        self._by_routing_key = {
            f"{self.container.service_name}.{rpc.method_name}": rpc for rpc in self.providers
        }

    def get_provider_for_method(self, routing_key: str) -> "Rpc":
        """Return the entrypoint for ``service.method``; ``MethodNotFound`` if there is none."""
        try:
            return self._by_routing_key[routing_key]
        except KeyError:
            raise MethodNotFound(routing_key.rpartition(".")[2]) from None

    @cached_property  # a subclass may set its own
    def consumer(self) -> "RpcConsumer":
        """What nameko settles requests with: here that is this itself."""
        return self

    def ack_message(self, message: RpcMessage) -> None:
        """Acknowledge a request that is not answered here: no reply leaves any more."""
        message.reply = None
        self.settle(message)

    def requeue_message(self, message: RpcMessage) -> None:
        """Give a request back to its queue; nothing if it was settled before."""
        if not message.settled:
            message.settled = True
            self._link.requeue(message.delivery)

    def handle_message(self, body: Any, message: RpcMessage) -> None:
        """Hand a request to its method's entrypoint; runs in a worker thread."""
        self.get_provider_for_method(message.routing_key).handle_message(body, message)

    def handle_result(
        self, message: RpcMessage, result: Any, exc_info: ExcInfo | None
    ) -> tuple[Any, ExcInfo | None]:
        """Encode the outcome as the reply to ``message``; it leaves when that is settled.

        A result that cannot be encoded makes the outcome an ``UnserializableValueError``.
        """
        error = None if exc_info is None else exc_info[1]
        if not message.properties.reply_to:
            return result, exc_info
        try:
            message.reply = self._make_reply(message, result, error)
        except EncodeError as cause:
            refused: Exception
            if error is None and not isinstance(cause, _TooLargeError):
                refused = UnserializableValueError(result)
            else:
                refused = EncodeError(str(cause)[:_MAX_TEXT])
            refused.__cause__ = cause
            exc_info = (type(refused), refused, cause.__traceback__)
            result = None
            message.reply = self._make_error_reply(message, refused)
        return result, exc_info

    def settle(self, message: RpcMessage) -> None:
        """Send the reply and acknowledge the request."""
        if not message.settled:
            message.settled = True
            self._link.settle(message.delivery, message.reply)

    def give_back(self, message: RpcMessage) -> None:
        """Leave a request to the broker, since its worker was ended by ``WorkerKilled``.

        In a killed container the end of the connection does it. Where the worker alone was ended
        the request comes again at once, and is answered with the error when it ends so again.
        """
        if message.settled:
            return
        if self.container.being_killed:
            message.settled = True
        elif not message.redelivered:
            self.requeue_message(message)
        else:
            error = WorkerKilled(f"{message.routing_key} was ended by WorkerKilled, twice")
            self.handle_result(message, None, (WorkerKilled, error, None))
            self.settle(message)

    def _take(self, delivery: Delivery) -> None:
        self._line.put(partial(self._work, delivery))

    def _work(self, delivery: Delivery) -> None:
        """One request's life, in a worker thread that holds a slot."""
        try:
            message = RpcMessage(delivery, self._serialization)
        except ValueError as error:
            # Its reply_to is among what cannot be read, so nobody can be told.
            _log.error("a request to %s was dropped: %s", one_line(delivery.routing_key), error)
            self._link.reject(delivery)
            return
        try:
            self.handle_message(_read(message), message)
        except BaseException as error:
            target, text = one_line(message.routing_key), one_line(describe_error(error))
            log_safely(_log, logging.WARNING, "a request to %s was refused: %s", target, text)
            self.handle_result(message, None, (type(error), error, error.__traceback__))
        finally:
            if not self.container.being_killed:
                self.settle(message)

    def _make_reply(self, message: RpcMessage, result: Any, error: BaseException | None) -> Reply:
        if error is None:
            content_type = message.properties.content_type
            encoded = self._serialization.encode_as(content_type, reply_body(result, None))
        else:
            encoded = self._encode_error(message, error)
        return self._pack(message, encoded, partial(self._make_error_reply, message))

    def _make_error_reply(self, message: RpcMessage, error: Exception) -> Reply:
        return self._pack(message, self._encode_error(message, error), None)

    def _encode_error(self, message: RpcMessage, error: BaseException) -> Encoded:
        body = reply_body(None, error)
        try:
            return self._serialization.encode_as(message.properties.content_type, body)
        except EncodeError:
            # The request came in a type that we cannot write, and may be refused for just that.
            return JSON.encode(body)

    def _pack(
        self,
        message: RpcMessage,
        encoded: Encoded,
        substitute: Callable[[Exception], Reply] | None,
    ) -> Reply:
        header = encode_reply_properties(
            encoded.content_type, encoded.content_encoding, message.properties.correlation_id
        )
        reply_to = message.properties.reply_to or ""
        try:
            check_sendable(
                header,
                encoded.body,
                self._link.frame_max,
                self._max_message_size,
                exchange=self._exchange.name,
                routing_key=reply_to,
            )
        except EncodeError as error:
            raise _TooLargeError(str(error)) from error
        return Reply(
            exchange=self._exchange.name,
            routing_key=reply_to,
            header=header,
            body=encoded.body,
            substitute=substitute,
        )


def _read(message: RpcMessage) -> Any:
    try:
        return message.payload
    except DecodeError as error:
        raise MalformedRequest(str(error)) from error


def _describe(consumer: RpcConsumer) -> str:
    return f"{type(consumer).__name__}({consumer._options})"


class _TooLargeError(EncodeError):
    """The reply can be encoded, but not sent."""


class Rpc(Entrypoint):
    """A method that is called over the broker; see ``rpc``.

    Override ``handle_result`` to see or change the outcome before it is encoded, ``settle`` to do
    something when it leaves.
    """

    rpc_consumer = RpcConsumer()

    def setup(self) -> None:
        """Register with the consumer of the service."""
        self.rpc_consumer.register_provider(self)

    def stop(self) -> None:
        """The consumer has closed its door already: it answers for all methods or for none."""
        self.rpc_consumer.unregister_provider(self)

    def handle_message(self, body: Any, message: RpcMessage) -> None:
        """Check a request and run a worker for it, in the thread that called.

        Raises:
            MalformedRequest: the body holds no arguments.
            IncorrectSignature: they do not fit the method.
        """
        args, kwargs = parse_request(body)
        self.check_signature(args, kwargs)
        worker_ctx = self.container.run_worker(
            self,
            args,
            kwargs,
            context_data=decode_headers(message.headers),
            handle_result=partial(self._make_outcome, message),
            settle=self.settle,
            message=message,
        )
        if worker_ctx.abandoned:
            self.rpc_consumer.give_back(message)

    def _make_outcome(
        self,
        message: RpcMessage,
        worker_ctx: WorkerContext,
        result: Any,
        exc_info: ExcInfo | None,
    ) -> tuple[Any, ExcInfo | None]:
        # Called again when a success has turned into an error: its reply must not leave, even if
        # this fails.
        message.reply = None
        return self.handle_result(message, worker_ctx, result, exc_info)

    def handle_result(
        self,
        message: RpcMessage,
        worker_ctx: WorkerContext,
        result: Any = None,
        exc_info: ExcInfo | None = None,
    ) -> tuple[Any, ExcInfo | None]:
        """Encode the outcome; returns the outcome that the dependencies see."""
        return self.rpc_consumer.handle_result(message, result, exc_info)

    def settle(
        self, worker_ctx: WorkerContext, result: Any = None, exc_info: ExcInfo | None = None
    ) -> None:
        """Let the reply leave, with the acknowledgement; called after every ``worker_result``."""
        message = worker_ctx.message
        if isinstance(message, RpcMessage) and not message.settled:
            if message.reply is None:
                # A `handle_result` of the user's has failed, or made none.
                self.rpc_consumer.handle_result(message, result, exc_info)
            self.rpc_consumer.settle(message)


rpc = Rpc.decorator
