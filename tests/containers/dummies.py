"""Extensions and a container stand-in that the tests of containers and extensions share."""

import threading
from collections.abc import Callable
from typing import Any

from tests.support.timing import TIMEOUT
from threadko.containers import ServiceContainer
from threadko.extensions import DependencyProvider, Entrypoint, SharedExtension


class Dummy(Entrypoint):
    """An entrypoint that fires when a test says so."""


dummy = Dummy.decorator


class FakeContainer:
    """As much of a container as binding needs."""

    service_name = "fake"
    parent_calls_tracked = 2

    def __init__(self, service_cls: type = object) -> None:
        self.service_cls = service_cls
        self.shared_extensions: dict[Any, Any] = {}


class Journal:
    """What happened, in order; any thread may write."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def write(self, line: str) -> None:
        self.lines.append(line)


class Gate:
    """Holds a thread until the test lets it through; `reached` tells that it is there."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.released = threading.Event()

    def hold(self) -> None:
        self.reached.set()
        assert self.released.wait(TIMEOUT), "the test never opened the gate"

    def wait_reached(self) -> None:
        assert self.reached.wait(TIMEOUT), "nobody came to the gate"


class Hooked(SharedExtension):
    """A shared extension that calls a test's function in each of its hooks."""

    def __init__(self, call: Callable[[str, Any], None], name: str = "shared") -> None:
        self.call = call
        self.name = name

    @property
    def sharing_key(self) -> object:
        return type(self), self.name

    def setup(self) -> None:
        self.call(f"{self.name}.setup", self)

    def start(self) -> None:
        self.call(f"{self.name}.start", self)

    def ready(self) -> None:
        self.call(f"{self.name}.ready", self)

    def open(self) -> None:
        self.call(f"{self.name}.open", self)

    def cancel(self) -> None:
        self.call(f"{self.name}.cancel", self)

    def stop(self) -> None:
        self.call(f"{self.name}.stop", self)

    def kill(self) -> None:
        self.call(f"{self.name}.kill", self)


class HookedDependency(DependencyProvider):
    """A dependency that calls a test's function in each of its hooks."""

    def __init__(self, call: Callable[[str, Any], None], name: str = "dependency") -> None:
        self.call = call
        self.name = name

    setup, start, ready = Hooked.setup, Hooked.start, Hooked.ready
    open, cancel, stop, kill = Hooked.open, Hooked.cancel, Hooked.stop, Hooked.kill

    def get_dependency(self, worker_ctx: Any) -> Any:
        self.call(f"{self.name}.get_dependency", worker_ctx)
        return f"injected by {self.name}"

    def worker_setup(self, worker_ctx: Any) -> None:
        self.call(f"{self.name}.worker_setup", worker_ctx)

    def worker_result(self, worker_ctx: Any, result: Any = None, exc_info: Any = None) -> None:
        self.call(f"{self.name}.worker_result", (worker_ctx, result, exc_info))

    def worker_teardown(self, worker_ctx: Any) -> None:
        self.call(f"{self.name}.worker_teardown", worker_ctx)


class HookedEntrypoint(Entrypoint):
    """An entrypoint that calls a test's function in each of its hooks."""

    def __init__(self, call: Callable[[str, Any], None], **kwargs: Any) -> None:
        self.call = call
        self.name = "entrypoint"
        super().__init__(**kwargs)

    setup, start, ready = Hooked.setup, Hooked.start, Hooked.ready
    open, cancel, stop, kill = Hooked.open, Hooked.cancel, Hooked.stop, Hooked.kill

    def settle(self, worker_ctx: Any, result: Any = None, exc_info: Any = None) -> None:
        self.call("entrypoint.settle", (worker_ctx, result, exc_info))


def spawn(container: ServiceContainer, *args: Any, method: str = "method", **options: Any) -> Any:
    """Spawn a worker for the entrypoint of a method; returns its context."""
    (entrypoint,) = (item for item in container.entrypoints if item.method_name == method)
    return container.spawn_worker(entrypoint, args, {}, **options)


def in_thread(call: Callable[[], object]) -> "Call":
    """Run `call` in a thread of the test's."""
    return Call(call)


class Call:
    """A call that runs in a thread, with its outcome."""

    def __init__(self, call: Callable[[], object]) -> None:
        self._call = call
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._call()
        except BaseException as error:
            self._error = error

    @property
    def is_over(self) -> bool:
        return not self._thread.is_alive()

    def finish(self) -> BaseException | None:
        """Wait for the end; return what was raised."""
        self._thread.join(TIMEOUT)
        assert self.is_over, "the call did not return"
        return self._error
