"""Small tools for tests: finding extensions, comparing loosely, waiting, resources made ahead.

Any thread may call anything; what belongs to one thread says so.
"""

import queue
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from threadko.concurrency.deadline import Deadline
from threadko.concurrency.threads import start_thread, thread_name
from threadko.containers import ServiceContainer
from threadko.extensions import DependencyProvider, Entrypoint, Extension
from threadko.runners import ServiceRunner
from threadko.testing.waiting import WaitTimeout
from threadko.utils.safelog import describe_error

__all__ = [
    "ANY_PARTIAL",
    "AnyInstanceOf",
    "DummyProvider",
    "ResourcePipeline",
    "assert_stops_raising",
    "find_free_port",
    "get_container",
    "get_extension",
    "get_rabbit_connections",
    "require_container",
    "reset_rabbit_connections",
    "wait_for_call",
]

AnyExtension = TypeVar("AnyExtension", bound=Extension)
Resource = TypeVar("Resource")
Result = TypeVar("Result")

_LOOK_SECONDS = 0.01

#: Finds nothing in an extension, where None may well be the value of an attribute.
_MISSING = object()


def require_container(container: object) -> None:
    """Raise a ``TypeError`` that says what to do if this is no container, but its service say."""
    if isinstance(container, type):
        what = container.__qualname__
        raise TypeError(
            f"a container is needed here, not the class {what}: container_factory({what}) makes one"
        )
    if isinstance(container, ServiceRunner):
        raise TypeError("a container is needed here, not a runner: get_container() finds one in it")
    if not hasattr(container, "extensions"):
        raise TypeError(f"a container is needed here, not {type(container).__qualname__} objects")


def get_extension(
    container: ServiceContainer, extension_cls: type[AnyExtension], **match_attrs: Any
) -> AnyExtension | None:
    """Return the first extension of a class whose attributes have these values, None without."""
    require_container(container)
    for extension in container.extensions:
        if isinstance(extension, extension_cls) and all(
            getattr(extension, name, _MISSING) == value for name, value in match_attrs.items()
        ):
            return extension
    return None


def get_container(runner: ServiceRunner, service_cls: type) -> ServiceContainer | None:
    """Return the container of a service class in a runner, None if it has none."""
    for container in runner.containers:
        if container.service_cls is service_cls:
            return container
    return None


@contextmanager
def wait_for_call(timeout: float, mock_method: Any) -> Iterator[Any]:
    """Wait until a mock was called, then enter the block with it.

    Raises:
        WaitTimeout: it was not called within so many seconds.
    """
    deadline = Deadline(timeout)
    never = threading.Event()
    # A mock tells nobody of its calls, so it has to be asked.
    while not mock_method.called:
        if deadline.expired:
            raise WaitTimeout(f"Timeout: {mock_method!r} was not called within {timeout:g} seconds")
        never.wait(_LOOK_SECONDS)
    yield mock_method


def assert_stops_raising(
    fn: Callable[[], Result],
    exception_type: type[BaseException] | tuple[type[BaseException], ...] = Exception,
    timeout: float = 10.0,
    interval: float = 0.1,
) -> Result:
    """Call a function again and again until it raises no more, and return its result.

    Raises:
        WaitTimeout: it still raised after so many seconds; its last exception is the cause.
    """
    deadline = Deadline(timeout)
    never = threading.Event()
    while True:
        try:
            return fn()
        except exception_type as error:
            if deadline.expired:
                raise WaitTimeout(
                    f"Timeout: {fn!r} still raises after {timeout:g} seconds:"
                    f" {describe_error(error)}"
                ) from error
        never.wait(min(interval, deadline.remaining() or 0.0))


class AnyInstanceOf:
    """Equal to every instance of a class."""

    def __init__(self, cls: type | tuple[type, ...]) -> None:
        self._cls = cls

    def __eq__(self, other: object) -> bool:
        return isinstance(other, self._cls)

    def __ne__(self, other: object) -> bool:
        return not isinstance(other, self._cls)

    __hash__ = None  # type: ignore[assignment]  # how Python says it

    def __repr__(self) -> str:
        classes = self._cls if isinstance(self._cls, tuple) else (self._cls,)
        return f"<any {' or '.join(cls.__qualname__ for cls in classes)}>"


class _AnyPartial:
    """Equal to every `functools.partial`-like object: something to call, made of another."""

    def __eq__(self, other: object) -> bool:
        return callable(other) and hasattr(other, "func") and hasattr(other, "args")

    __hash__ = None  # type: ignore[assignment]  # how Python says it

    def __repr__(self) -> str:
        return "<any partial>"


#: Equal to every `functools.partial`.
ANY_PARTIAL = _AnyPartial()


class DummyProvider(DependencyProvider, Entrypoint):
    """An extension that is anything and does nothing, for tests of what handles extensions."""

    def __init__(self, method_name: str | None = None) -> None:
        super().__init__()
        self.method_name = method_name or ""

    def bind(self, container: Any, name: str) -> Any:  # type: ignore[override]  # any kind's name
        """Return a clone under that name."""
        instance = Extension.bind(self, container)
        instance.attr_name = instance.method_name = name
        return instance


def find_free_port(host: str = "127.0.0.1") -> int:
    """Return a port of an address on this machine that nobody listens on just now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as sock:
        sock.bind((host, 0))
        port: int = sock.getsockname()[1]
        return port


def get_rabbit_connections(vhost: str, rabbit_manager: Any) -> list[dict[str, Any]]:
    """Return the connections to a vhost of a RabbitMQ, as its management API shows them."""
    return [each for each in rabbit_manager.get_connections() or () if each.get("vhost") == vhost]


def reset_rabbit_connections(vhost: str, rabbit_manager: Any) -> None:
    """Have a RabbitMQ close all connections to a vhost."""
    for connection in get_rabbit_connections(vhost, rabbit_manager):
        rabbit_manager.delete_connection(connection["name"])


class ResourcePipeline(Generic[Resource]):
    """Makes resources ahead of those who need them, and destroys them behind their backs.

    `run` belongs to one thread; `get` may be called by any thread while it runs. One thread
    creates, another destroys. What `create` raises is raised by the `get` that comes upon it. Order
    of stopping: no more is created, then all that was created and not destroyed yet is.

    Args:
        create: returns a new resource.
        destroy: is given each of them at its end.
        size: how many are kept ready.
        end_timeout: seconds for those to be destroyed that are left at the end.

    Raises:
        RuntimeError: a size below 1, with which nobody would ever get one.
    """

    def __init__(
        self,
        create: Callable[[], Resource],
        destroy: Callable[[Resource], object],
        size: int = 3,
        *,
        end_timeout: float = 30.0,
    ) -> None:
        if size < 1:
            raise RuntimeError(f"a pipeline keeps at least 1 resource ready, not {size}")
        self._create = create
        self._destroy = destroy
        self._end_timeout = end_timeout
        self._wanted = threading.Semaphore(size)
        self._ready: queue.SimpleQueue[tuple[Resource | None, BaseException | None]]
        self._ready = queue.SimpleQueue()
        self._used: queue.SimpleQueue[tuple[Resource | None, bool]] = queue.SimpleQueue()
        self._over = threading.Event()
        self._errors: list[BaseException] = []  # of `destroy`; read when its thread has ended

    @contextmanager
    def run(self) -> Iterator["ResourcePipeline[Resource]"]:
        """Make resources as long as the block runs, and destroy all at its end.

        Raises:
            BaseException: what `destroy` raised first; all others were destroyed all the same.
        """
        creator = start_thread(self._keep_creating, thread_name("pipeline", "create"))
        destroyer = start_thread(self._keep_destroying, thread_name("pipeline", "destroy"))
        try:
            yield self
        finally:
            self._over.set()
            self._wanted.release()
            deadline = Deadline(self._end_timeout)
            creator.join(deadline.remaining())
            while not self._ready.empty():
                resource, error = self._ready.get()
                if error is None:
                    self._used.put((resource, False))
            self._used.put((None, True))
            destroyer.join(deadline.remaining())
        if destroyer.is_alive() or creator.is_alive():
            raise WaitTimeout(f"Timeout: resources are still being made or destroyed by {self!r}")
        if self._errors:
            raise self._errors[0]

    @contextmanager
    def get(self) -> Iterator[Resource]:
        """Have a resource while the block runs.

        Raises:
            BaseException: what `create` raised.
        """
        resource, error = self._ready.get()
        self._wanted.release()
        if error is not None:
            raise error
        try:
            yield resource  # type: ignore[misc]  # there, as no error is
        finally:
            self._used.put((resource, False))

    def _keep_creating(self) -> None:
        while True:
            self._wanted.acquire()
            if self._over.is_set():
                return
            try:
                self._ready.put((self._create(), None))
            except BaseException as error:
                self._ready.put((None, error))

    def _keep_destroying(self) -> None:
        while True:
            resource, is_last = self._used.get()
            if is_last:
                return
            try:
                self._destroy(resource)  # type: ignore[arg-type]  # None comes last only
            except BaseException as error:
                self._errors.append(error)
