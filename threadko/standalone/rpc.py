"""Clients for programs that are no services: one client, shared by all threads of the program.

``start`` and ``stop`` may be called from any thread, and again after each other. Stopping flushes
what was sent, closes the connection, and fails the calls that still wait. A client that is
forgotten without being stopped is stopped by a thread of its own, with a ``ResourceWarning``.
"""

import os
import threading
import warnings
import weakref
from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Generic, NoReturn, TypeVar, overload

from threadko.amqp.parameters import BrokerParameters
from threadko.concurrency.deadline import Deadline
from threadko.concurrency.threads import run_in_thread, thread_name
from threadko.configuration import config as global_config
from threadko.configuration.checks import seconds
from threadko.configuration.given import as_config
from threadko.configuration.settings import BrokerSettings, ContainerSettings, RpcSettings
from threadko.context import extend_call_id_stack, new_call_id, new_id
from threadko.rpc.caller import Caller
from threadko.rpc.calls import RpcCall
from threadko.rpc.client import Client, ServiceClient
from threadko.rpc.options import read_options
from threadko.rpc.replies import CallLink
from threadko.serialization import Serialization

__all__ = ["ClusterRpcClient", "ClusterRpcProxy", "ServiceRpcClient", "ServiceRpcProxy"]

_CALLER = "standalone_rpc_client"
_CLOSE_SECONDS = 5.0

_Target = TypeVar("_Target", Client, ServiceClient)


#: All there are, for a forked child.
_clients: "weakref.WeakSet[_RpcClient[Any]]" = weakref.WeakSet()


class _RpcClient(ABC, Generic[_Target]):
    """The life of a client: its connection, between ``start`` and ``stop``."""

    def __init__(
        self,
        context_data: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        *,
        config: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        if as_config(context_data) is not None:
            # It would be sent along with each call, passwords and all.
            raise TypeError("context_data is a configuration, which is given as config=...")
        self._options, connection = read_options(options)
        values = dict((global_config if config is None else config).items())
        for key, value in (
            ("AMQP_URI", connection.uri),
            ("AMQP_SSL", connection.ssl),
            ("LOGIN_METHOD", connection.login_method),
        ):
            if value is not None:
                values[key] = value
        if timeout is not None:
            timeout = seconds()("timeout", timeout)
        self._broker = BrokerSettings.from_config(values)
        self._settings = RpcSettings.from_config(values)
        workers = ContainerSettings.from_config(values)
        self._serialization = Serialization.from_config(values)
        if self._options.serializer is not None:
            self._serialization = self._serialization.using(self._options.serializer)
        self._parents_tracked = workers.parent_calls_tracked
        self._timeout = self._settings.timeout if timeout is None else timeout
        # Who gives each call so long does not mean to wait for its connection for ever.
        connect = self._broker.start_timeout
        self._start_timeout = self._timeout if connect is None else connect
        self._context_data = dict(context_data or {})
        self._id = new_id()
        self._lock = threading.Lock()  # guards all that follows
        self._link: CallLink | None = None
        self._forgotten: weakref.finalize[..., _RpcClient[_Target]] | None = None
        self._caller: Caller | None = None
        self._is_inherited = False  # the process was forked while the client was started
        _clients.add(self)

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
            link, was_inherited = self._link, self._is_inherited
            if link is None:
                link = self._make_link()
                caller = Caller(link, self._serialization, self._options)
                # Before it is noted: one that could not be started would be waited for in vain.
                link.start()
                self._link, self._caller = link, caller
                self._is_inherited = False
                self._forgotten = weakref.finalize(self, _stop_forgotten, link, type(self).__name__)
                self._forgotten.atexit = False
        try:
            link.wait_up(Deadline(self._start_timeout))
        except BaseException:
            with self._lock:
                if self._link is link:
                    self._let_go()
                    self._is_inherited = was_inherited  # so that the next call tries again
            link.stop(0)  # not killed: what that raises is for workers, and no Exception
            raise
        return self._make_client()

    def stop(self) -> None:
        """Flush, close, and fail the calls that still wait; nothing if it is not started."""
        with self._lock:
            link = self._let_go()
            self._is_inherited = False
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

    def _let_go(self) -> CallLink | None:
        """Have no connection from now on, and return the one that there was to be ended."""
        link, self._link, self._caller = self._link, None, None
        if self._forgotten is not None:
            self._forgotten.detach()
            self._forgotten = None
        return link

    @abstractmethod
    def _make_client(self) -> _Target:
        """Return what the user calls services by."""

    def _make_link(self) -> CallLink:
        return CallLink(
            BrokerParameters.from_uri(
                self._broker.uri,
                heartbeat=self._broker.heartbeat,
                connection_name="threadko standalone client",
                ssl=self._broker.ssl,
                login_method=self._broker.login_method,
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
        # In this order, while `start` writes in the other: whoever comes second finds one of them.
        is_inherited, caller = self._is_inherited, self._caller
        if caller is None and is_inherited:
            self.start()
            caller = self._caller
        if caller is None:
            raise RuntimeError("the client is not started: use it in a with block, or call start()")
        call = caller.start(self._make_context, service, method, args, kwargs, timeout)
        call.client = self
        return call

    def _renew(self) -> None:
        """Become another client in a forked child, where no thread of the parent's runs.

        It connects when it is first used. Calls that wait are the parent's, and end there.
        """
        link = self._let_go()
        self._lock = threading.Lock()  # the other may be held for ever
        self._id = new_id()
        self._is_inherited = self._is_inherited or link is not None
        if link is not None:
            link.forget()

    def __getattr__(self, name: str) -> NoReturn:
        # What is called is what start() returns; whoever calls the wrong one should hear of it.
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        raise AttributeError(
            f"{type(self).__name__} has no {name!r}: call services through what start(), or a with"
            " block, returns"
        )

    def __getitem__(self, name: str) -> NoReturn:
        raise TypeError(
            f"{type(self).__name__} is not the client itself: call services through what start(),"
            " or a with block, returns"
        )

    def _make_context(self) -> dict[str, Any]:
        call_id = f"{_CALLER}.{self._id}.{new_call_id()}"
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
        config: to use instead of the global configuration.
        options: how requests are sent, and where to: ``uri``, ``ssl``, ``login_method``,
            ``serializer``, ``headers``, ``expiration``, ``compression`` and more, see
            ``rpc.options``.

    After a fork the child has a client of its own, which connects when it is first used.

    Raises:
        TypeError: there is no such option.
        ConfigurationError: an option has a value that cannot be used.
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
        context_data: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        *,
        config: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(context_data, timeout, config=config, **options)
        self._service_name = service_name

    def _make_client(self) -> ServiceClient:
        return ServiceClient(self._start_call, self._service_name, self._timeout)


class ClusterRpcProxy(ClusterRpcClient):
    """``ClusterRpcClient`` with the arguments that it has in nameko 2.

    Args:
        args: a configuration, which names a broker by ``AMQP_URI``, and then ``context_data`` and
            ``timeout``. Without a configuration they are those of ``ClusterRpcClient``.
        options: likewise.
    """

    @overload
    def __init__(
        self,
        config: Mapping[str, Any],
        context_data: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        **options: Any,
    ) -> None: ...

    @overload
    def __init__(
        self,
        context_data: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        *,
        config: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None: ...

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*_without_config(args, options), **options)


class ServiceRpcProxy(ServiceRpcClient):
    """``ServiceRpcClient`` with the arguments that it has in nameko 2.

    Args:
        service_name: the name of that service; the others as ``ClusterRpcProxy``.
    """

    @overload
    def __init__(
        self,
        service_name: str,
        config: Mapping[str, Any],
        context_data: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        **options: Any,
    ) -> None: ...

    @overload
    def __init__(
        self,
        service_name: str,
        context_data: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        *,
        config: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None: ...

    def __init__(self, service_name: str, *args: Any, **options: Any) -> None:
        super().__init__(service_name, *_without_config(args, options), **options)


def _without_config(args: tuple[Any, ...], options: dict[str, Any]) -> tuple[Any, ...]:
    """Move a configuration that comes first to the options, and return the other arguments."""
    config = as_config(args[0]) if args else None
    if config is None:
        return args
    if options.get("config") is not None:
        raise TypeError("the configuration is given twice")
    options["config"] = config
    return args[1:]


def _stop_forgotten(link: CallLink, name: str) -> None:
    # In a thread: the collector runs in any, which may hold what the link waits for.
    run_in_thread(lambda: link.stop(_CLOSE_SECONDS), thread_name("standalone", "release"))
    warnings.warn(
        f"a {name} was forgotten without stop(): use it in a with block, or call stop()",
        ResourceWarning,
        stacklevel=1,
    )


def _renew_all() -> None:
    for client in list(_clients):
        client._renew()


os.register_at_fork(after_in_child=_renew_all)
