"""Clients for programs that are no services: one client, shared by all threads of the program.

``start`` and ``stop`` may be called from any thread, and again after each other. Stopping flushes
what was sent, closes the connection, and fails the calls that still wait.
"""

import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Generic, TypeVar

from threadko.amqp.parameters import BrokerParameters
from threadko.concurrency.deadline import Deadline
from threadko.concurrency.threads import thread_name
from threadko.configuration import config as global_config
from threadko.configuration.settings import BrokerSettings, ContainerSettings, RpcSettings
from threadko.context import extend_call_id_stack, new_id
from threadko.rpc.calls import RpcCall
from threadko.rpc.client import Client, ServiceClient
from threadko.rpc.replies import CallLink, start_call

__all__ = ["ClusterRpcClient", "ServiceRpcClient"]

_CALLER = "standalone_rpc_client"
_CLOSE_SECONDS = 5.0

_Target = TypeVar("_Target", Client, ServiceClient)


class _RpcClient(Generic[_Target]):
    """The life of a client: its connection, between ``start`` and ``stop``."""

    def __init__(
        self,
        *,
        context_data: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        uri: str | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        values = dict(global_config if config is None else config)
        if uri is not None:
            values["AMQP_URI"] = uri
        self._broker = BrokerSettings.from_config(values)
        self._settings = RpcSettings.from_config(values)
        workers = ContainerSettings.from_config(values)
        self._serializer = workers.serializer
        self._accept = workers.accept
        self._parents_tracked = workers.parent_calls_tracked
        self._timeout = self._settings.timeout if timeout is None else timeout
        # Who gives each call so long does not mean to wait for its connection for ever.
        connect = self._broker.start_timeout
        self._start_timeout = self._timeout if connect is None else connect
        self._context_data = dict(context_data or {})
        self._id = new_id()
        self._lock = threading.Lock()  # guards _link
        self._link: CallLink | None = None

    @property
    def pending(self) -> int:
        """How many calls wait for a reply."""
        link = self._link
        return 0 if link is None else link.pending

    def start(self) -> _Target:
        """Connect and return the client; the one that it has if it is started already.

        Raises:
            BrokerRefused: the broker refuses this login, or what is declared.
            BrokerUnavailable: no connection within ``BROKER_START_TIMEOUT``, or, where that is not
                set, within the client's time-out.
        """
        with self._lock:
            link = self._link
            if link is None:
                link = self._link = self._make_link()
                link.start()
        try:
            link.wait_up(Deadline(self._start_timeout))
        except BaseException:
            with self._lock:
                if self._link is link:
                    self._link = None
            link.stop(0)  # not killed: what that raises is for workers, and no Exception
            raise
        return self._make_client()

    def stop(self) -> None:
        """Flush, close, and fail the calls that still wait; nothing if it is not started."""
        with self._lock:
            link, self._link = self._link, None
        if link is not None:
            link.interrupt()
            link.stop(_CLOSE_SECONDS)

    def __enter__(self) -> _Target:
        return self.start()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _make_client(self) -> _Target:
        raise NotImplementedError

    def _make_link(self) -> CallLink:
        return CallLink(
            BrokerParameters.from_uri(
                self._broker.uri,
                heartbeat=self._broker.heartbeat,
                connection_name="threadko standalone client",
            ),
            name=thread_name("standalone", "replies"),
            caller=_CALLER,
            exchange=self._settings.exchange,
            publish_timeout=self._broker.publish_timeout,
            max_message_size=self._broker.max_message_size,
        )

    def _start_call(
        self,
        service: str,
        method: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        timeout: float | None,
    ) -> RpcCall:
        link = self._link
        if link is None:
            raise RuntimeError("the client is not started: use it in a with block, or call start()")
        return start_call(
            link,
            self._serializer,
            self._accept,
            self._make_context,
            service,
            method,
            args,
            kwargs,
            timeout,
        )

    def _make_context(self) -> dict[str, Any]:
        call_id = f"{_CALLER}.{self._id}.{new_id()}"
        data = dict(self._context_data)
        data["call_id_stack"] = extend_call_id_stack(
            data.get("call_id_stack"), call_id, self._parents_tracked
        )
        return data


class ClusterRpcClient(_RpcClient[Client]):
    """Calls any service: ``with ClusterRpcClient(...) as client: client.service.method(...)``.

    Args:
        context_data: sent along with each call.
        timeout: seconds for each call, and for connecting unless ``BROKER_START_TIMEOUT`` is set;
            the configured ``RPC_TIMEOUT`` if not given.
        uri: the broker; the configured ``AMQP_URI`` if not given.
        config: to use instead of the global configuration.
    """

    def _make_client(self) -> Client:
        return Client(self._start_call, self._timeout)


class ServiceRpcClient(_RpcClient[ServiceClient]):
    """Calls one service: ``with ServiceRpcClient("name", ...) as service: service.method(...)``.

    Args:
        service_name: the name of that service; the others as ``ClusterRpcClient``.
    """

    def __init__(
        self,
        service_name: str,
        *,
        context_data: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        uri: str | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(context_data=context_data, timeout=timeout, uri=uri, config=config)
        self._service_name = service_name

    def _make_client(self) -> ServiceClient:
        return ServiceClient(self._start_call, self._service_name, self._timeout)
