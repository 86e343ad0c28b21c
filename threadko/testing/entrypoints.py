"""Firing entrypoints by hand, and waiting for those that others fire.

Nothing of a container is patched: waiters are observers of it, and a hook is one more source of
work with a waiting line of its own. Any thread may fire and wait, and many may at once; a hook or
waiter is entered and left by the thread of its test. What an observer is told comes in the worker's
thread.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from threadko.concurrency.deadline import Deadline
from threadko.concurrency.slots import Line
from threadko.concurrency.threads import format_stack
from threadko.containers import ServiceContainer
from threadko.exceptions import (
    ContainerStopped,
    ExtensionNotFound,
    LifecycleError,
    WorkerKilled,
)
from threadko.extensions import Entrypoint, ExcInfo, WorkerContext
from threadko.testing.utils import get_extension, require_container
from threadko.testing.waiting import WaitResult, WaitTimeout, describe_outcome

__all__ = [
    "EntrypointWaiterTimeout",
    "Once",
    "dummy",
    "entrypoint_hook",
    "entrypoint_waiter",
    "once",
]

_KEPT = 20  # workers that are named when the right one did not come

#: Whether a worker is the one that is waited for: its context, its result, and its exc_info.
WorkerFilter = Callable[[WorkerContext, Any, "ExcInfo | None"], object]


class EntrypointWaiterTimeout(WaitTimeout):
    """No worker ended as it should within the time given."""


class WaiterResult(WaitResult):
    """What came of the worker that was waited for."""

    def __init__(self) -> None:
        super().__init__()
        #: The context of that worker, None as long as there is no result.
        self.worker_ctx: WorkerContext | None = None

    def send_from(
        self, worker_ctx: WorkerContext, result: Any, exc_info: ExcInfo | None = None
    ) -> None:
        """Hand over what came of a worker, unless that of another was before."""
        with self._lock:
            if self._sent is None:
                self.worker_ctx = worker_ctx
                self._sent = (result, exc_info)


class _Witness:
    """An observer that knows what fired meanwhile, for the text of an error; any thread."""

    def __init__(self, container: ServiceContainer) -> None:
        self._container = container
        # Single steps on it, so it needs no lock.
        self._ended: deque[tuple[WorkerContext, str]] = deque(maxlen=_KEPT)

    def on_worker_teardown(
        self, worker_ctx: WorkerContext, result: Any, exc_info: ExcInfo | None
    ) -> None:
        method = worker_ctx.entrypoint.method_name
        self._ended.append((worker_ctx, f"{method} {describe_outcome(result, exc_info)}"))

    def describe(self) -> str:
        # Those that run first: one that ends just now is then told of once, as having fired.
        running = self._container.running_workers()
        ended = dict(self._ended.copy())
        text = "nothing fired meanwhile"
        if ended:
            text = f"meanwhile fired: {'; '.join(ended.values())}"
        for worker_ctx, (thread_id, _) in running.items():
            if worker_ctx not in ended:
                method = worker_ctx.entrypoint.method_name
                text += f"\nand {method} still runs, at:\n{format_stack(thread_id)}"
        return text

    def make_timeout(self, method_name: str, timeout: float | None) -> EntrypointWaiterTimeout:
        # The first words are nameko's, for tests that compare them.
        where = f"{self._container.service_name}.{method_name}"
        return EntrypointWaiterTimeout(
            f"Timeout on {where} after {timeout} seconds; {self.describe()}"
        )


class _Wait:
    """A wait for a worker, which the end of the container ends too.

    `end`, `fail` and `on_death` may be called by any thread, `wait` by the one that waits. The
    first of them decides.
    """

    def __init__(self, container: ServiceContainer) -> None:
        self.witness = _Witness(container)
        self._container = container
        self._lock = threading.Lock()  # guards the decision: _over with _error
        self._over = threading.Event()
        self._error: BaseException | None = None

    @contextmanager
    def observing(self, observer: Any) -> Iterator[None]:
        """Be told of what happens in the container, and of its end if that was before."""
        observers = self._container.observers
        told = (observer, self.witness)
        for each in told:
            observers.add(each)
        try:
            if self._container.stopping.is_set() and not self._container.started:
                self.on_death(self._container, _find_error(self._container))
            yield
        finally:
            for each in told:
                observers.remove(each)

    def end(self) -> None:
        self._decide(None)

    def fail(self, error: BaseException) -> None:
        self._decide(error)

    def on_death(self, container: ServiceContainer, error: BaseException | None) -> None:
        ended = "was killed" if container.being_killed else "has stopped"
        self._decide(
            error
            or ContainerStopped(
                f"the container of {container.service_name!r} {ended}, so the worker that is"
                f" waited for cannot come; {self.witness.describe()}"
            )
        )

    def wait(self, timeout: float | None) -> bool:
        """Wait for the decision, and raise it if it is an error; False if it does not come."""
        if not self._over.wait(timeout):
            return False
        if self._error is not None:
            raise self._error
        return True

    def _decide(self, error: BaseException | None) -> None:
        with self._lock:
            if not self._over.is_set():
                self._error = error
                self._over.set()


def _find_error(container: ServiceContainer) -> BaseException | None:
    """Return the error that a dead container died of."""
    try:
        container.wait()
    except BaseException as error:
        return error
    return None


class entrypoint_waiter:  # noqa: N801 (a function in nameko, and used like one)
    """Leaves its block when a worker of a method has run and is torn down.

    It works whatever fires the entrypoint. The block gets a result: `get()` returns what the method
    returned or raises what it raised, `has_result` says whether it is there, `worker_ctx` is the
    context of the worker.

    Args:
        container: of the service.
        method_name: the method to wait for.
        timeout: seconds, from the beginning of the block; None for ever.
        callback: called with context, result and exc_info of each worker of the method, in the
            worker's thread; the first for which it returns something true is waited for. What it
            raises is raised at the end of the block.

    Raises:
        RuntimeError: the service has no entrypoint of that name, or this waiter has waited before.
        EntrypointWaiterTimeout: no such worker ended in time; the text says what did.
        ContainerStopped: the container ended before; if an error ended it, that is raised.
    """

    Timeout = EntrypointWaiterTimeout

    def __init__(
        self,
        container: ServiceContainer,
        method_name: str,
        timeout: float | None = 30,
        callback: WorkerFilter | None = None,
    ) -> None:
        require_container(container)
        self._container = container
        self._method_name = method_name
        self._timeout = timeout
        self._callback = callback
        self._result = WaiterResult()
        self._wait = _Wait(container)
        self._is_used = False

    def __enter__(self) -> WaiterResult:
        if self._is_used:
            raise RuntimeError("a waiter waits once; make another entrypoint_waiter")
        if not get_extension(self._container, Entrypoint, method_name=self._method_name):
            raise RuntimeError(
                f"{self._container.service_name} has no entrypoint {self._method_name!r};"
                f" {_list_entrypoints(self._container)}"
            )
        self._is_used = True
        self._deadline = Deadline(self._timeout)
        self._observing = self._wait.observing(self)
        self._observing.__enter__()
        return self._result

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            # A block that raises has its own story to tell, at once.
            if exc_type is None and not self._wait.wait(self._deadline.remaining()):
                raise self._wait.witness.make_timeout(self._method_name, self._timeout)
        finally:
            self._observing.__exit__(None, None, None)

    def on_worker_result(
        self, worker_ctx: WorkerContext, result: Any, exc_info: ExcInfo | None
    ) -> None:
        """See whether this is the worker that is waited for."""
        if worker_ctx.entrypoint.method_name != self._method_name or self._result.has_result:
            return
        if self._callback is not None:
            try:
                if not self._callback(worker_ctx, result, exc_info):
                    return
            except BaseException as error:
                self._wait.fail(error)
                return
        self._result.send_from(worker_ctx, result, exc_info)

    def on_worker_teardown(
        self, worker_ctx: WorkerContext, result: Any, exc_info: ExcInfo | None
    ) -> None:
        """Let the block be left if this is the one."""
        if worker_ctx is self._result.worker_ctx:
            self._wait.end()

    def on_death(self, container: ServiceContainer, error: BaseException | None) -> None:
        """Wait no longer."""
        self._wait.on_death(container, error)


@contextmanager
def entrypoint_hook(
    container: ServiceContainer,
    method_name: str,
    context_data: Mapping[str, Any] | None = None,
    timeout: float | None = 30,
) -> Iterator[Callable[..., Any]]:
    """Give the block a function that fires an entrypoint, whatever that usually is fired by.

    The function takes the arguments of the method, has a worker run it with all dependencies, and
    returns what it returned or raises what it raised when the worker is torn down. Nothing is
    sent: the result is the object itself. Several threads may call it at once.

    Args:
        container: of the service, started.
        method_name: the method to fire.
        context_data: for the workers; each gets a copy.
        timeout: seconds for each call; None for ever.

    Raises:
        ExtensionNotFound: the service has no entrypoint of that name.
        EntrypointWaiterTimeout: raised by the function, if its worker did not end in time; the text
            says where it is, and what else fired.
        ContainerStopped: raised by the function, if the container ended before; if an error ended
            it, that is raised.
    """
    entrypoint = get_extension(container, Entrypoint, method_name=method_name)
    if entrypoint is None:
        raise ExtensionNotFound(
            f"{container.service_name} has no entrypoint {method_name!r};"
            f" {_list_entrypoints(container)}"
        )
    line = container.open_line(f"entrypoint_hook of {method_name}")

    def hook(*args: Any, **kwargs: Any) -> Any:
        call = _HookCall(container, entrypoint, line, args, kwargs, context_data)
        return call.run(timeout)

    try:
        yield hook
    finally:
        for call in line.close():
            if isinstance(call, _HookCall):  # of another thread, which is late
                call.refuse()


class _HookCall:
    """One worker that a hook fires: run by a thread of the pool, waited for by the test's."""

    def __init__(
        self,
        container: ServiceContainer,
        entrypoint: Entrypoint,
        line: Line,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        context_data: Mapping[str, Any] | None,
    ) -> None:
        self._container = container
        self._entrypoint = entrypoint
        self._line = line
        self._args = args
        self._kwargs = kwargs
        self._context_data = dict(context_data or {})
        self._result = WaitResult()
        self._wait = _Wait(container)

    def run(self, timeout: float | None) -> Any:
        container = self._container
        if not container.started and not container.stopping.is_set():
            raise LifecycleError(
                f"the container of {container.service_name!r} has not been started; start it before"
                " its entrypoints are fired"
            )
        with self._wait.observing(self):
            self._line.put(self)
            try:
                if not self._wait.wait(timeout):
                    raise self._make_timeout(timeout)
            finally:
                self._line.withdraw(self)
        return self._result.get()

    def refuse(self) -> None:
        name = self._entrypoint.method_name
        self._wait.fail(RuntimeError(f"the block of this entrypoint_hook of {name} was left"))

    def on_death(self, container: ServiceContainer, error: BaseException | None) -> None:
        self._wait.on_death(container, error)

    def __call__(self) -> None:
        """Run the worker; in a thread that holds a slot."""
        try:
            worker_ctx = self._container.run_worker(
                self._entrypoint,
                self._args,
                self._kwargs,
                context_data=self._context_data,
                # In place of the entrypoint's own, which would settle a message that there is not.
                settle=lambda _, result, exc_info: self._result.send(result, exc_info),
            )
        except BaseException as error:
            self._wait.fail(error)
            return
        if self._result.has_result:
            self._wait.end()
        elif not self._container.being_killed:  # or its end is told by itself
            self._wait.fail(WorkerKilled(f"{worker_ctx.call_id} was ended by WorkerKilled"))

    def _make_timeout(self, timeout: float | None) -> EntrypointWaiterTimeout:
        error = self._wait.witness.make_timeout(self._entrypoint.method_name, timeout)
        if self._line.withdraw(self):
            busy = f"all {self._container.max_workers} workers are busy, so it has not begun"
            error = EntrypointWaiterTimeout(f"{error}; {busy}")
        return error


def _list_entrypoints(container: ServiceContainer) -> str:
    names = sorted({each.method_name for each in container.entrypoints})
    return f"there are: {', '.join(names)}" if names else "it has none at all"


class Once(Entrypoint):
    """Fires a method once, when the container is open, with the arguments given.

    Args:
        args, kwargs: for the method.
        expected_exceptions: as of every entrypoint.
        sensitive_arguments: as of every entrypoint.
    """

    def __init__(
        self,
        *args: Any,
        expected_exceptions: type[BaseException] | Iterable[type[BaseException]] = (),
        sensitive_arguments: str | Iterable[str] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(expected_exceptions, sensitive_arguments)
        self.args = args
        self.kwargs = kwargs

    def setup(self) -> None:
        """Open a waiting line."""
        self._line: Line = self.container.open_line(f"once {self.method_name}")

    def open(self) -> None:
        """Fire."""
        self._line.put(self._work)

    def cancel(self) -> None:
        """Let it not begin any more."""
        self._line.close()

    def _work(self) -> None:
        self.container.run_worker(self, self.args, self.kwargs)


once = Once.decorator

#: An entrypoint that nothing fires but a test.
dummy = Entrypoint.decorator
