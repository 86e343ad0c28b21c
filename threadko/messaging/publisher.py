"""The `Publisher` dependency: messages to any exchange.

Publishers share one connection for each broker and container. It outlives the workers and the
dependencies that may publish on it; killing it raises `WorkerKilled` in whoever waits for a
confirm. It is flushed and closed when the container's dependencies have stopped.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from threadko.amqp import publish
from threadko.amqp.entities import Exchange, Queue, as_exchange, as_queue
from threadko.amqp.parameters import BrokerParameters
from threadko.amqp.publishing import PublishLink
from threadko.concurrency.deadline import Deadline
from threadko.concurrency.threads import thread_name
from threadko.configuration.settings import BrokerSettings
from threadko.extensions import (
    DependencyProvider,
    SharedExtension,
    WorkerContext,
)
from threadko.messaging.headers import encode_to_headers
from threadko.serialization import Serialization

__all__ = ["Publisher", "PublisherConnection"]

_CLOSE_SECONDS = 5.0  # for flushing and closing when all workers have ended


class PublisherConnection(SharedExtension):
    """A container's connection for publishing to one broker."""

    def __init__(self, uri: Any = None, ssl: Any = None, login_method: str | None = None) -> None:
        super().__init__()
        self._own = uri, ssl, login_method
        self._kill: Callable[[], object] = lambda: None  # until there is something to kill

    @property
    def sharing_key(self) -> object:
        """Its class, and where it connects."""
        return type(self), repr(self._own)

    def setup(self) -> None:
        """Read the configuration."""
        container = self.container
        broker = BrokerSettings.from_config(container.config)
        uri, ssl, login_method = self._own
        self.uri = broker.uri if uri is None else uri
        self.serialization = Serialization.from_config(container.config)
        self._start_timeout = broker.start_timeout
        self.link = PublishLink(
            BrokerParameters.from_uri(
                self.uri,
                heartbeat=broker.heartbeat,
                connection_name=f"threadko {container.service_name} publisher",
                ssl=broker.ssl if ssl is None else ssl,
                login_method=login_method or broker.login_method,
            ),
            name=thread_name(container.service_name, "publisher"),
            window=broker.publish_window,
            timeout=broker.publish_timeout,
            max_message_size=broker.max_message_size,
        )
        self._kill = self.link.kill

    def start(self) -> None:
        """Begin to connect."""
        self.link.start()

    def ready(self) -> None:
        """Wait for the connection."""
        self.declare(())

    def declare(self, entities: Sequence[Exchange | Queue]) -> None:
        """Declare exchanges and queues, while the container starts."""
        with self.container.stopping.calling(self.link.interrupt):
            deadline = Deadline(self._start_timeout)
            self.link.wait_up(deadline)
            if entities:
                self.link.declare(entities, deadline)

    def find_trouble(self) -> str | None:
        """Say why there is no connection, if there is none."""
        return self.link.trouble()

    def answer_ping(self, answer: Callable[[], object]) -> None:
        """Ask the connection's thread."""
        self.link.ping(answer)

    def stop(self) -> None:
        """Wait for what is under way and close: no worker is left that could publish."""
        self.link.stop(_CLOSE_SECONDS)

    def kill(self) -> None:
        """Close, and raise `WorkerKilled` in whoever waits for a confirm."""
        self._kill()


class Publisher(DependencyProvider):
    """Injects `publish(payload, **options)`, which returns when the broker has the message.

    The worker's context data goes along as headers. Options are those of
    `threadko.amqp.publish.Publisher`; those of the call win over those given here.

    Args:
        exchange: where to; an `Exchange` is declared at start. The default exchange if None.
        declare: exchanges and queues that are declared at start.
        publisher_options: for all messages; `uri`, `ssl` and `login_method` for another broker.

    Raises:
        TypeError: there is no such option.
        ConfigurationError: one of them cannot be used.
    """

    publisher_cls: type[publish.Publisher] = publish.Publisher

    connection = PublisherConnection()

    def __init__(
        self,
        exchange: Any = None,
        declare: Sequence[Any] | None = None,
        **publisher_options: Any,
    ) -> None:
        self.exchange = _read_exchange(exchange)
        publish.check_values({"declare": declare})
        self.declare = [_read_entity(each) for each in declare or ()]
        self.options = dict(publisher_options)
        own = [self.options.pop(name, None) for name in ("uri", "ssl", "login_method")]
        if any(value is not None for value in own):
            self.connection = PublisherConnection(*own)
        publish.check_options(self.options)
        publish.check_values(self.options)

    def setup(self) -> None:
        """Make what all workers publish with."""
        self.publisher = self.publisher_cls(
            self.connection.uri,
            exchange=self.exchange,
            declare=self.declare,
            serialization=self.connection.serialization,
            link=self.connection.link,
            **self.options,
        )

    def ready(self) -> None:
        """Declare the exchange and all that is to be declared."""
        self.connection.declare(
            [*self.declare, *([self.exchange] if isinstance(self.exchange, Exchange) else ())]
        )

    def get_message_headers(self, worker_ctx: WorkerContext) -> dict[str, Any]:
        """Return the headers that a worker's messages carry: its context data."""
        return encode_to_headers(worker_ctx.context_data)

    def get_dependency(self, worker_ctx: WorkerContext) -> Callable[..., None]:
        """Return `publish`, which sends the worker's context along."""
        return partial(self._publish, worker_ctx)

    def _publish(self, worker_ctx: WorkerContext, payload: Any, **options: Any) -> None:
        # Now, for the worker may have changed its context data.
        context = self.get_message_headers(worker_ctx)
        extra = {**(options.pop("extra_headers", None) or {}), **context}
        self.publisher.publish(payload, extra_headers=extra, **options)


def _read_exchange(value: Any) -> Exchange | str | None:
    return value if value is None or isinstance(value, str) else as_exchange(value)


def _read_entity(value: Any) -> Exchange | Queue:
    if isinstance(value, (Exchange, Queue)):
        return value
    return as_queue(value) if hasattr(value, "routing_key") else as_exchange(value)
