"""Dependencies that call other services: ``ServiceRpc`` and ``ClusterRpc``.

All of a container's callers share one ``ReplyListener``, with one connection and one reply queue.
It outlives the workers that may call through it: in stopping it closes with the sub-extensions,
after every worker and every dependency. Killing it raises ``WorkerKilled`` in whoever waits.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from threadko.amqp.parameters import BrokerParameters
from threadko.concurrency.deadline import Deadline
from threadko.concurrency.threads import thread_name
from threadko.configuration.settings import BrokerSettings, ContainerSettings, RpcSettings
from threadko.extensions import DependencyProvider, SharedExtension, WorkerContext
from threadko.rpc.client import Client, ServiceClient
from threadko.rpc.replies import CallLink, start_call

__all__ = ["ClusterRpc", "ReplyListener", "ServiceRpc"]

_CLOSE_SECONDS = 5.0  # for flushing requests and closing


class ReplyListener(SharedExtension):
    """A container's connection for calling other services."""

    def __init__(self) -> None:
        super().__init__()
        self._kill: Callable[[], object] = lambda: None  # until there is something to kill

    def setup(self) -> None:
        """Read the configuration."""
        container = self.container
        broker = BrokerSettings.from_config(container.config)
        rpc_settings = RpcSettings.from_config(container.config)
        workers = ContainerSettings.from_config(container.config)
        self.timeout = rpc_settings.timeout
        self.serializer = workers.serializer
        self.accept = workers.accept
        self._start_timeout = broker.start_timeout
        self.link = CallLink(
            BrokerParameters.from_uri(
                broker.uri,
                heartbeat=broker.heartbeat,
                connection_name=f"threadko {container.service_name} replies",
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

    def kill(self) -> None:
        """Close, and raise ``WorkerKilled`` in whoever waits for a reply."""
        self._kill()


class ClusterRpc(DependencyProvider):
    """Injects a client that reaches every service: ``self.rpc.service.method(...)``.

    Args:
        timeout: seconds for each call; the configured ``RPC_TIMEOUT`` if not given.
    """

    reply_listener = ReplyListener()

    def __init__(self, *, timeout: float | None = None) -> None:
        self.timeout = timeout

    def get_dependency(self, worker_ctx: WorkerContext) -> Any:
        """Return a client that sends the worker's context along."""
        return Client(*self._bind(worker_ctx))

    def _bind(self, worker_ctx: WorkerContext) -> tuple[Any, float | None]:
        listener = self.reply_listener
        start = partial(
            start_call,
            listener.link,
            listener.serializer,
            listener.accept,
            lambda: worker_ctx.context_data,
        )
        return start, listener.timeout if self.timeout is None else self.timeout


class ServiceRpc(ClusterRpc):
    """Injects a client of one service: ``self.other.method(...)``.

    Args:
        target_service: the name of that service.
        timeout: seconds for each call; the configured ``RPC_TIMEOUT`` if not given.
    """

    def __init__(self, target_service: str, *, timeout: float | None = None) -> None:
        super().__init__(timeout=timeout)
        self.target_service = target_service

    def get_dependency(self, worker_ctx: WorkerContext) -> Any:
        """Return a client that sends the worker's context along."""
        start, timeout = self._bind(worker_ctx)
        return ServiceClient(start, self.target_service, timeout)
