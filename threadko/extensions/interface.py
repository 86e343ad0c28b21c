"""What an extension may use of its container, as a protocol.

The containers stand two floors higher, so they cannot be imported here; extensions are typed
against this page instead. `run_worker` and `begin_worker` belong to threads that hold a slot;
everything else may be called by any thread.
"""

from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Protocol

from threadko.concurrency.slots import Line
from threadko.concurrency.stopping import StopEvent
from threadko.concurrency.threads import ManagedThread
from threadko.extensions.worker import Message, WorkerContext

__all__ = ["Container", "ExcInfo", "HandleResult", "Settle", "WorkerSteps"]

ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]

#: Makes the outcome of a call, and returns it. It is called a second time, with the error, when
#: the outcome turns into one later on.
HandleResult = Callable[[WorkerContext, Any, "ExcInfo | None"], "tuple[Any, ExcInfo | None]"]

#: Lets the outcome leave: reply and ack, HTTP response.
Settle = Callable[[WorkerContext, Any, "ExcInfo | None"], object]


class WorkerSteps(Protocol):
    """A worker whose outcome takes its time to leave; one thread at a time.

    `call`, `report` and `end` once each, in this order; `run`, `fail` and `replace`
    in between.
    """

    @property
    def abandoned(self) -> bool:
        """Whether nothing that this worker does may be seen any more."""

    def call(self) -> None:
        """Set the dependencies up, run the method and make its outcome."""

    def run(self, function: Callable[..., Any], *args: Any) -> Any:
        """Run a part of the worker: whatever makes its outcome piece by piece."""

    def fail(self, error: BaseException) -> None:
        """Make `error` the outcome, though a part of another may have left."""

    def replace(self, error: BaseException) -> None:
        """Make `error` the outcome, of which nothing has left."""

    def report(self, settle: Settle) -> None:
        """Tell the dependencies of the outcome, then let it leave."""

    def end(self) -> None:
        """Tear the dependencies down."""


class Container(Protocol):
    """The container of a service, as its extensions see it."""

    service_cls: type
    service_name: str
    max_workers: int
    serializer: str
    accept: list[str]
    parent_calls_tracked: int
    #: Set when the container begins to stop, or is killed: for the loops of users to leave.
    stopping: StopEvent
    #: The bound shared extensions, by sharing key.
    shared_extensions: dict[Any, Any]

    @property
    def config(self) -> Mapping[str, Any]:
        """The configuration of this container, whether global or its own."""

    @property
    def being_killed(self) -> bool:
        """Whether `kill()` was called."""

    def spawn_worker(
        self,
        entrypoint: Any,
        args: Iterable[Any] | None,
        kwargs: Mapping[str, Any] | None,
        context_data: Mapping[str, Any] | None = None,
        handle_result: HandleResult | None = None,
    ) -> WorkerContext:
        """Run a worker on a thread of the pool, and return when it has begun."""

    def run_worker(
        self,
        entrypoint: Any,
        args: Iterable[Any] | None,
        kwargs: Mapping[str, Any] | None,
        *,
        context_data: Mapping[str, Any] | None = None,
        handle_result: HandleResult | None = None,
        settle: Settle | None = None,
        message: Message | None = None,
    ) -> WorkerContext:
        """Run a worker in this thread, which holds a slot, from its beginning to its end."""

    def begin_worker(
        self,
        entrypoint: Any,
        args: Iterable[Any] | None,
        kwargs: Mapping[str, Any] | None,
        *,
        context_data: Mapping[str, Any] | None = None,
        handle_result: HandleResult | None = None,
    ) -> WorkerSteps:
        """Return a worker that this thread, which holds a slot, runs step by step to its end."""

    def open_line(self, name: str) -> Line:
        """Return a new waiting line for one source of work."""

    def spawn_managed_thread(
        self, fn: Callable[[], object], identifier: str | None = None
    ) -> ManagedThread:
        """Run `fn` in a thread of its own; an exception that leaves it kills the container."""

    def stop(self) -> None:
        """Stop gracefully."""

    def kill(self, exc_info: Any = None) -> None:
        """Stop at once, without waiting for anyone's code; `wait()` then raises the exception."""
