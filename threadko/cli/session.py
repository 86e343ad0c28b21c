"""What `n` is in `threadko shell`: services to call, events to dispatch, the configuration.

It belongs to the thread of the shell, and so does all that it hands out. Nothing connects before
the first call, and `disconnect()` is undone by the next.
"""

from collections.abc import Mapping
from typing import Any

from threadko.configuration.settings import BrokerSettings
from threadko.exceptions import MethodNotFound, UnknownService
from threadko.rpc.calls import RpcCall
from threadko.rpc.client import Client
from threadko.standalone.events import EventDispatcher
from threadko.standalone.rpc import ClusterRpcClient

__all__ = ["Session"]

# Guessed: whoever sits there does not want to wait for a broker for ever.
_CONNECT_SECONDS = 10.0


class Session:
    """Services, events and configuration, for whoever sits at a shell.

    Args:
        config: read when something connects.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config
        self.rpc = Services(self)
        self._rpc_client: ClusterRpcClient | None = None
        self._target: Client | None = None
        self._dispatcher: EventDispatcher | None = None

    def dispatch_event(self, service_name: str, event_type: str, event_data: Any = None) -> None:
        """Dispatch an event in the name of a service; returns when the broker has it."""
        if self._dispatcher is None:
            self._dispatcher = EventDispatcher(config=self.config)
        self._dispatcher(service_name, event_type, event_data)

    def disconnect(self) -> None:
        """Close the connections; the next call opens them again."""
        client, self._rpc_client, self._target = self._rpc_client, None, None
        if client is not None:
            client.stop()
        dispatcher, self._dispatcher = self._dispatcher, None
        if dispatcher is not None:
            dispatcher.close()

    def connect(self) -> Client:
        """Return the client of all services, started if it is not."""
        if self._target is None:
            values = dict(self.config.items())
            if BrokerSettings.from_config(values).start_timeout is None:
                values["BROKER_START_TIMEOUT"] = _CONNECT_SECONDS
            client = ClusterRpcClient(config=values)
            self._target = client.start()
            self._rpc_client = client
        return self._target

    def __repr__(self) -> str:
        return "<n.rpc, n.dispatch_event(service, type, data), n.config, n.disconnect()>"


class Services:
    """All services: `n.rpc.service.method(...)`, or `n.rpc["any-service"]["method"]`.

    Completion offers those that have answered in this session.
    """

    def __init__(self, session: Session) -> None:
        self.__session = session
        self.__answered: dict[str, dict[str, None]] = {}

    def __getattr__(self, name: str) -> "Service":
        return self[_check(name)]

    def __getitem__(self, name: str) -> "Service":
        return Service(self.__session, name, self.__answered)

    def __dir__(self) -> list[str]:
        return list(self.__answered)

    def __repr__(self) -> str:
        return "<services: n.rpc.service.method(...)>"


class Service:
    """One service, whether or not there is one."""

    def __init__(self, session: Session, name: str, answered: dict[str, dict[str, None]]) -> None:
        self.__session = session
        self.__name = name
        self.__answered = answered

    def __getattr__(self, name: str) -> "Method":
        return self[_check(name)]

    def __getitem__(self, name: str) -> "Method":
        return Method(self.__session, self.__name, name, self.__answered)

    def __dir__(self) -> list[str]:
        return list(self.__answered.get(self.__name, ()))

    def __repr__(self) -> str:
        return f"<service {self.__name}: n.rpc.{self.__name}.method(...)>"


class Method:
    """One method: call it, or `call_async(...)`, or call `with_timeout(seconds)` of it."""

    def __init__(
        self,
        session: Session,
        service: str,
        method: str,
        answered: dict[str, dict[str, None]],
        timeout: tuple[float | None, ...] = (),
    ) -> None:
        self._session = session
        self._service = service
        self._method = method
        self._answered = answered
        self._timeout = timeout

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the method and return its result."""
        call = self.call_async(*args, **kwargs)
        try:
            result = call.result()
        except (UnknownService, MethodNotFound):
            raise
        except Exception:
            self._remember()  # this one came from the method
            raise
        self._remember()
        return result

    def call_async(self, *args: Any, **kwargs: Any) -> RpcCall:
        """Send the request and return its call, a future."""
        target = self._session.connect()[self._service][self._method]
        if self._timeout:
            target = target.with_timeout(*self._timeout)
        return target.call_async(*args, **kwargs)

    def with_timeout(self, timeout: float | None) -> "Method":
        """Return the same method with another time-out, in seconds; None to wait for ever."""
        return Method(self._session, self._service, self._method, self._answered, (timeout,))

    def _remember(self) -> None:
        self._answered.setdefault(self._service, {})[self._method] = None

    def __repr__(self) -> str:
        return f"<method {self._service}.{self._method}>"


def _check(name: str) -> str:
    # Interactive shells ask objects for names such as _repr_html_ and __wrapped__.
    if name.startswith("_"):
        raise AttributeError(f'{name}; a service or method of that name is reached by ["{name}"]')
    return name
