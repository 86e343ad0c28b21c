"""What a caller holds: ``client.service.method(...)``.

The three classes have no public attribute where a name of the user's is looked up, so that every
service and every method can be reached, whatever it is called; ``client["any-service"]["method"]``
reaches those that are no Python names. They hold no state that changes: any thread may share one.
"""

from typing import Any, NoReturn, Protocol

from threadko.rpc.calls import RpcCall

__all__ = ["Client", "MethodClient", "Proxy", "ServiceClient", "StartCall"]


class StartCall(Protocol):
    """Sends a request and returns the call that waits for its reply."""

    def __call__(
        self,
        service: str,
        method: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        timeout: float | None,
    ) -> RpcCall: ...


def _refuse_special(name: str) -> None:
    # copy, pickle and inspect ask objects for dunder names, and must hear that there are none.
    if name.startswith("__") and name.endswith("__"):
        raise AttributeError(name)


class Client:
    """Reaches all services of the cluster: ``client.service.method(...)``."""

    __slots__ = ("__start", "__timeout")

    def __init__(self, start: StartCall, timeout: float | None = None) -> None:
        self.__start = start
        self.__timeout = timeout

    def __getattr__(self, name: str) -> "ServiceClient":
        _refuse_special(name)
        return self[name]

    def __getitem__(self, name: str) -> "ServiceClient":
        return ServiceClient(self.__start, name, self.__timeout)

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise ValueError("name a service and a method: client.service.method(...)")

    def __repr__(self) -> str:
        return "<Client *.*>"


class ServiceClient:
    """Reaches the methods of one service: ``client.method(...)``."""

    __slots__ = ("__service", "__start", "__timeout")

    def __init__(self, start: StartCall, service: str, timeout: float | None = None) -> None:
        self.__start = start
        self.__service = service
        self.__timeout = timeout

    def __getattr__(self, name: str) -> "MethodClient":
        _refuse_special(name)
        return self[name]

    def __getitem__(self, name: str) -> "MethodClient":
        return MethodClient(self.__start, self.__service, name, self.__timeout)

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise ValueError(f"name a method: {self.__service}.method(...)")

    def __repr__(self) -> str:
        return f"<Client {self.__service}.*>"


class MethodClient:
    """One method of one service, to be called."""

    __slots__ = ("_method", "_service", "_start", "_timeout")

    def __init__(
        self, start: StartCall, service: str, method: str, timeout: float | None = None
    ) -> None:
        self._start = start
        self._service = service
        self._method = method
        self._timeout = timeout

    @property
    def identifier(self) -> str:
        """``service.method``."""
        return f"{self._service}.{self._method}"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the method and wait for its result; raises as ``RpcCall.result`` does."""
        return self._start(self._service, self._method, args, kwargs, self._timeout).result()

    def call_async(self, *args: Any, **kwargs: Any) -> RpcCall:
        """Send the request and return its call, a ``concurrent.futures.Future``."""
        return self._start(self._service, self._method, args, kwargs, self._timeout)

    def with_timeout(self, timeout: float | None) -> "MethodClient":
        """Return the same method with another time-out, in seconds; None to wait for ever."""
        return MethodClient(self._start, self._service, self._method, timeout)

    def __repr__(self) -> str:
        return f"<Client {self.identifier}>"


#: The name that it has in nameko 2.
Proxy = Client
