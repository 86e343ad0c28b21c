"""Dependencies that call other services: ``ServiceRpc`` and ``ClusterRpc``.

All of a container's callers share one ``ReplyListener``, with one connection and one reply queue;
those that name a broker of their own share another.
It outlives the workers that may call through it: in stopping it closes with the sub-extensions,
after every worker and every dependency. Killing it raises ``WorkerKilled`` in whoever waits.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from threadko.amqp.entities import Exchange
from threadko.amqp.options import ConsumerOptions
from threadko.amqp.parameters import BrokerParameters
from threadko.concurrency.deadline import Deadline
from threadko.concurrency.threads import thread_name
from threadko.configuration import config
from threadko.configuration.settings import BrokerSettings, RpcSettings
from threadko.extensions import DependencyProvider, SharedExtension, WorkerContext
from threadko.rpc.caller import Caller
from threadko.rpc.client import Client, ServiceClient
from threadko.rpc.options import CONFIGURED, ConnectionOptions, read_options
from threadko.rpc.protocol import rpc_exchange
from threadko.rpc.replies import CallLink
from threadko.serialization import Serialization

__all__ = ["ClusterRpc", "ReplyListener", "RpcProxy", "ServiceRpc", "get_rpc_exchange"]

_CLOSE_SECONDS = 5.0  # for flushing requests and closing


def get_rpc_exchange() -> Exchange:
    """Return the exchange of requests and replies that the global configuration names."""
    return rpc_exchange(RpcSettings.from_config(config).exchange)


class ReplyListener(SharedExtension):
    """A container's connection for calling other services.

    Args:
        connection: where to, if not to the broker of the configuration.
        consumer_options: ``heartbeat`` in seconds, and ``accept``, the names of the serializers
            that are read in replies; what is configured where one is not given.
            ``prefetch_count`` has no effect: a reply is taken as soon as it is there.

    Raises:
        TypeError: there is no such option.
        ConfigurationError: an option has a value that cannot be used.
    """

    def __init__(self, connection: ConnectionOptions = CONFIGURED, **consumer_options: Any) -> None:
        super().__init__()
        self._connection = connection
        self._options = ConsumerOptions.read(consumer_options)
        self._kill: Callable[[], object] = lambda: None  # until there is something to kill

    @property
    def sharing_key(self) -> object:
        """Its class, where it connects, and its options."""
        own = self._connection
        return type(self), repr(own.uri), repr(own.ssl), own.login_method, self._options

    def connecting_to(self, connection: ConnectionOptions) -> "ReplyListener":
        """Return a declaration with the same options that connects elsewhere."""
        options = self._options
        return ReplyListener(
            connection,
            heartbeat=options.heartbeat,
            prefetch_count=options.prefetch_count,
            accept=options.accept,
        )

    def setup(self) -> None:
        """Read the configuration."""
        container = self.container
        broker = BrokerSettings.from_config(container.config)
        rpc_settings = RpcSettings.from_config(container.config)
        self.timeout = rpc_settings.timeout
        options = self._options
        serialization = Serialization.from_config(container.config)
        self.serialization = (
            serialization if options.accept is None else serialization.accepting(options.accept)
        )
        self._start_timeout = broker.start_timeout
        own = self._connection
        self.link = CallLink(
            BrokerParameters.from_uri(
                broker.uri if own.uri is None else own.uri,
                heartbeat=broker.heartbeat if options.heartbeat is None else options.heartbeat,
                connection_name=f"threadko {container.service_name} replies",
                ssl=broker.ssl if own.ssl is None else own.ssl,
                login_method=own.login_method or broker.login_method,
            ),
            name=thread_name(container.service_name, "replies"),
            caller=container.service_name,
            exchange=rpc_settings.exchange,
            publish_timeout=broker.publish_timeout,
            max_message_size=broker.max_message_size,
        )
        self._kill = self.link.kill

    def start(self) -> None:
        """Begin to connect, declare the reply queue and consume from it."""
        self.link.start()

    def ready(self) -> None:
        """Wait for the connection."""
        with self.container.stopping.calling(self.link.interrupt):
            self.link.wait_up(Deadline(self._start_timeout))

    def stop(self) -> None:
        """Flush and close: no worker is left that could call."""
        self.link.stop(_CLOSE_SECONDS)

    def find_trouble(self) -> str | None:
        """Say why there is no connection, if there is none."""
        return self.link.trouble()

    def answer_ping(self, answer: Callable[[], object]) -> None:
        """Ask the connection's thread."""
        self.link.ping(answer)

    def find_calls_to(self, service: str) -> set[str]:
        """Return the ids of the calls to a service that wait for a reply; any thread."""
        return self.link.find_calls_to(service)

    def kill(self) -> None:
        """Close, and raise ``WorkerKilled`` in whoever waits for a reply."""
        self._kill()


class ClusterRpc(DependencyProvider):
    """Injects a client that reaches every service: ``self.rpc.service.method(...)``.

    Args:
        timeout: seconds for each call; the configured ``RPC_TIMEOUT`` if not given.
        options: how requests are sent and where to, see ``rpc.options``.

    Raises:
        TypeError: there is no such option.
        ConfigurationError: an option has a value that cannot be used.
    """

    reply_listener = ReplyListener()

    def __init__(self, *, timeout: float | None = None, **options: Any) -> None:
        self.timeout = timeout
        self._options, connection = read_options(options)
        if connection:
            self.reply_listener = self.reply_listener.connecting_to(connection)

    def setup(self) -> None:
        """Make what all workers call with."""
        listener = self.reply_listener
        self._caller = Caller(listener.link, listener.serialization, self._options)

    def get_dependency(self, worker_ctx: WorkerContext) -> Any:
        """Return a client that sends the worker's context along."""
        return Client(*self._bind(worker_ctx))

    def _bind(self, worker_ctx: WorkerContext) -> tuple[Any, float | None]:
        start = partial(self._caller.start, lambda: worker_ctx.context_data)
        return start, self.reply_listener.timeout if self.timeout is None else self.timeout


class ServiceRpc(ClusterRpc):
    """Injects a client of one service: ``self.other.method(...)``.

    Args:
        target_service: the name of that service.
        timeout: seconds for each call; the configured ``RPC_TIMEOUT`` if not given.
        options: as of ``ClusterRpc``.
    """

    def __init__(
        self, target_service: str, *, timeout: float | None = None, **options: Any
    ) -> None:
        super().__init__(timeout=timeout, **options)
        self.target_service = target_service

    def get_dependency(self, worker_ctx: WorkerContext) -> Any:
        """Return a client that sends the worker's context along."""
        start, timeout = self._bind(worker_ctx)
        return ServiceClient(start, self.target_service, timeout)


#: The name that it has in nameko 2.
RpcProxy = ServiceRpc
