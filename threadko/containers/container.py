"""The container: one service class, its extensions and its workers, from start to end.

Any thread may call any public method, the container's own threads among them: a `stop()` from one
of those hands over to a thread of its own and returns, since what it waits for is its caller.

The order of stopping is a promise:

1. every door closes: `stopping` is set, every extension's `cancel()`, then entrypoints' `stop()`;
2. what no worker has begun goes back, and whoever waits in `spawn_worker` is refused;
3. workers end, until SHUTDOWN_TIMEOUT has passed; all that they may call through still stands;
4. dependencies stop, then all that extensions own; then managed threads and the pool.

Past the deadline, or at any time by `kill()`: workers are abandoned, and nobody is waited for. The
hooks of stopping and killing run in threads of their own, so that one that hangs holds nobody.
"""

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from types import TracebackType
from typing import Any

from threadko import serialization
from threadko.concurrency.deadline import Deadline
from threadko.concurrency.slots import Line
from threadko.concurrency.stopping import StopEvent
from threadko.concurrency.threads import (
    ManagedThread,
    run_in_thread,
    thread_name,
)
from threadko.configuration import config as global_config
from threadko.configuration.settings import ContainerSettings, RunnerSettings
from threadko.containers.exits import ProcessBound, kill_at_exit, spare_at_exit
from threadko.containers.hooks import Hooks
from threadko.containers.inspection import (
    get_service_name,
    in_start_order,
    iter_dependencies,
    iter_entrypoints,
)
from threadko.containers.lifecycle import Lifecycle, State, Step
from threadko.containers.managed import ManagedThreads
from threadko.containers.observers import Observers
from threadko.containers.offers import Offer, Offers
from threadko.containers.worker import WorkerLife, WorkerSteps
from threadko.containers.workforce import Workforce
from threadko.context import current_worker, new_call_id
from threadko.exceptions import ConfigurationError, ContainerBeingKilled, ExtensionNotFound
from threadko.extensions import (
    DependencyProvider,
    Entrypoint,
    Extension,
    HandleResult,
    Settle,
    WorkerContext,
)
from threadko.extensions.worker import Message
from threadko.utils.imports import import_from_path
from threadko.utils.safelog import log_safely

__all__ = ["ServiceContainer", "get_container_cls", "new_call_id"]

_log = logging.getLogger(__name__)

_GRACE_SECONDS = 1.0  # for managed threads that were asked to end
_LATE_SECONDS = 0.4  # past the deadline of a stop, for what is about to end by itself
_KILL_SECONDS = 5.0  # guessed: how long to wait for the kill() of all extensions


class ServiceContainer:
    """Runs one service.

    Args:
        service_cls: the class of the service.
        config: what its extensions read as `container.config`; the global configuration if None.
    """

    def __init__(self, service_cls: type, config: Mapping[str, Any] | None = None) -> None:
        self.service_cls = service_cls
        self.service_name = get_service_name(service_cls)
        self._config: Mapping[str, Any] = global_config if config is None else config
        settings = ContainerSettings.from_config(self._config)
        self.max_workers = settings.max_workers
        self.serializer, self.accept = serialization.setup(self._config)
        self.parent_calls_tracked = settings.parent_calls_tracked
        self._shutdown_timeout = settings.shutdown_timeout

        #: Set when the container begins to stop, or is killed: for the loops of users to leave.
        self.stopping = StopEvent()
        self.shared_extensions: dict[Any, Any] = {}
        self.dependencies: tuple[DependencyProvider, ...] = tuple(
            declared.bind(self, name) for name, declared in iter_dependencies(service_cls)
        )
        self.entrypoints: tuple[Entrypoint, ...] = tuple(
            declared.bind(self, name) for name, declared in iter_entrypoints(service_cls)
        )
        self._replacing = threading.Lock()  # guards the change of these, before the start
        self._ordered, self.subextensions = self._find_extensions()

        self.observers = Observers()
        self._life = Lifecycle(self.service_name)
        self._died = threading.Event()
        self._over = threading.Event()  # dead, and the observers have been told
        # Both are written once, before _died is set.
        self._error: BaseException | None = None
        self._traceback: TracebackType | None = None
        self._hooks = Hooks(self.service_name)
        self._managed = ManagedThreads(self.service_name, self._on_thread_error)
        self._worker_life = WorkerLife(service_cls, self.dependencies, self.observers)
        self._workers = Workforce(
            self.service_name,
            self.max_workers,
            self._worker_life,
            self._life.refusal,
            stuck_warning=settings.stuck_warning,
            find_own_calls=self._find_own_calls,
        )
        self._worker_threads = (
            self._workers.live
        )  # nameko's name, which extensions for metrics read
        self._process = ProcessBound(f"the container of {self.service_name!r}")
        #: Called between the halves of `start()`, where the services of a runner meet.
        self.before_open: Callable[[], object] = lambda: None
        # A subclass's sees each worker of the entrypoints, as it does in nameko.
        is_overridden = type(self).spawn_worker is not ServiceContainer.spawn_worker
        self._offers = Offers(
            (lambda *args, **kwargs: self.spawn_worker(*args, **kwargs))
            if is_overridden
            else self._take_offer,
            f"{type(self).__qualname__}.spawn_worker",
        )

    @property
    def config(self) -> Mapping[str, Any]:
        """The configuration that the extensions read."""
        return self._config

    @property
    def extensions(self) -> tuple[Extension, ...]:
        """All extensions, in the order in which they start."""
        return self._ordered

    @property
    def interface(self) -> "ServiceContainer":
        """What extensions are bound to: the container itself."""
        return self

    @property
    def started(self) -> bool:
        """Whether `start()` has begun and the container is not dead."""
        return self._life.state is not State.NEW and not self._died.is_set()

    @property
    def being_killed(self) -> bool:
        """Whether the container was killed, or is just being."""
        return self._life.state is State.KILLED

    @property
    def is_running(self) -> bool:
        """Whether work is let in: `start()` has returned, and nothing ends it."""
        return self._life.state is State.RUNNING

    @property
    def state_name(self) -> str:
        """The name of its state: new, starting, prepared, opening, running, stopping, ..."""
        return self._life.state.name.lower()

    def running_workers(self) -> Mapping[WorkerContext, tuple[int, float]]:
        """Return the workers that run now, with their threads' ids and when they began.

        That is in monotonic seconds.
        """
        return self._workers.running()

    def _find_extensions(self) -> tuple[tuple[Extension, ...], tuple[Extension, ...]]:
        """Return all extensions in the order in which they start, and those owned by others."""
        # Entrypoints last: what they fire finds everything else standing.
        declared = (*self.dependencies, *self.entrypoints)
        ordered = in_start_order(declared)
        ids = {id(extension) for extension in declared}
        return ordered, tuple(extension for extension in ordered if id(extension) not in ids)

    def replace_extensions(self, replacements: Iterable[tuple[Any, Any]]) -> None:
        """Have other dependencies or entrypoints than the class declares, before `start()`.

        What only those that go were using, shared extensions among it, goes with them.

        Args:
            replacements: pairs of a bound dependency or entrypoint, and the one that takes its
                place, None if it goes without.

        Raises:
            RuntimeError: the container was started, stopped or killed already.
            ExtensionNotFound: one of those to be replaced is not in the container.
        """
        with self._replacing:
            if self._life.state is not State.NEW:
                raise RuntimeError(
                    f"the container of {self.service_name!r} was started already; its extensions"
                    " can be replaced before that only"
                )
            # By identity, for an extension of the user's may compare as it likes.
            present = {id(each) for each in (*self.dependencies, *self.entrypoints)}
            by_id = {}
            for old, new in replacements:
                if id(old) not in present:
                    raise ExtensionNotFound(f"{old!r} is not in {self!r}")
                by_id[id(old)] = new
            before = self._ordered
            self.dependencies = _replaced(self.dependencies, by_id)
            self.entrypoints = _replaced(self.entrypoints, by_id)
            self._ordered, self.subextensions = self._find_extensions()
            self._worker_life.dependencies = self.dependencies
            gone = {id(each) for each in before} - {id(each) for each in self._ordered}
            for key, shared in list(self.shared_extensions.items()):
                if id(shared) in gone:
                    del self.shared_extensions[key]

    # Starting

    def start(self) -> None:
        """Start the service and let work in; raises what a hook raises, with nothing left alive.

        Raises:
            ContainerStopped: `stop()` was called before or meanwhile.
            LifecycleError: the container was started or killed before, or made in the process of
                which this one is a fork.
        """
        self.prepare()
        self.before_open()
        self.open()

    def prepare(self) -> None:
        """Do the first half of `start()`: all extensions stand, and no work comes in yet."""
        with self._starting(Step.START, Step.READY):
            kill_at_exit(self)
            self._workers.start()
            for hook in ("setup", "start", "ready"):
                if not self._hooks.run_starting(self._ordered, hook, self.stopping):
                    raise self._life.refusal()

    def open(self) -> None:
        """Do the second half of `start()`: let work in."""
        with self._starting(Step.OPEN, Step.OPENED):
            self._workers.open()
            if not self._hooks.run_starting(self._ordered, "open", self.stopping):
                raise self._life.refusal()
        log_safely(_log, logging.INFO, "service %s runs", self.service_name)

    @contextmanager
    def _starting(self, first: Step, last: Step) -> Iterator[None]:
        """Go through one half of `start()`, and undo all of it if that does not succeed."""
        self._process.check()
        if self._life.take(first) is None:
            refusal = self._life.refusal()
            if first is Step.OPEN and self.stopping.is_set() and not self.owns_current_thread():
                # Stopped between the halves: whoever did that is still about it.
                self._died.wait(self._shutdown_timeout)
            raise refusal
        with self._hooks.marked():
            try:
                yield
                if self._life.take(last) is None:
                    raise self._life.refusal()
            except BaseException as error:
                if self._life.state is State.STOPPING and isinstance(error, Exception):
                    self._stop_start(error, opening=first is Step.OPEN)
                self._fail_start(error)

    def _stop_start(self, error: Exception, opening: bool) -> None:
        """Undo a start that `stop()` has overtaken, and raise `ContainerStopped`."""
        refusal = self._life.refusal()
        if opening:
            # Workers may run, and are waited for as in any other stop.
            self._stop_alone(State.RUNNING, Deadline(self._shutdown_timeout))
        else:
            self._end_at_once()
            self._end_threads()
            self._finish_stop()
        if not self.being_killed:
            raise refusal from (None if type(error) is type(refusal) else error)

    def _fail_start(self, error: BaseException) -> None:
        """Undo a start that has failed or was killed, and raise why."""
        if self._life.take(Step.KILL) is not None:
            self._end_at_once()
            self._end_threads()
            self._die(error)
            raise error
        # Somebody else has killed all but what was inside a hook of this thread.
        self._hooks.run_kill()
        self._died.wait(_KILL_SECONDS)
        spare_at_exit(self)  # it may have died before this start wanted it to be killed
        raise self._error or self._life.refusal() from (None if error is self._error else error)

    # Stopping

    def stop(self, timeout: float | None = None) -> None:
        """Stop gracefully, in the order that stands at the top, and return when all has ended.

        Past `timeout` seconds (None: SHUTDOWN_TIMEOUT) it turns into `kill()`. It returns at once
        if it is called by a thread that it would wait for, or in a forked child, where nothing
        runs.

        Raises:
            Exception: the first that a hook raised; everything else has been done all the same.
        """
        if self._process.is_foreign:
            return
        deadline = Deadline(self._shutdown_timeout if timeout is None else timeout)
        errors: list[BaseException] = []
        try:
            self._begin_stop(deadline, errors)
        except BaseException:
            self.kill()  # this stop was interrupted, and nobody else would end it
            raise
        if errors:
            raise errors[0]

    def _begin_stop(self, deadline: Deadline, errors: list[BaseException]) -> None:
        previous = self._life.take(Step.STOP)
        self.stopping.set()
        if previous is State.NEW:
            self._die(None)
        elif self._over.is_set():
            return
        elif self.owns_current_thread():
            if self._died.is_set():
                return
            name = thread_name(self.service_name, "stop")
            run_in_thread(partial(self._stop_alone, previous, deadline), name)
        else:
            self._carry_out_stop(previous, deadline, errors)

    def stop_within(self, timeout: float | None) -> None:
        """Call `stop()`, a subclass's too, with this in place of SHUTDOWN_TIMEOUT."""
        if timeout is not None:
            self._shutdown_timeout = timeout
        self.stop()

    def _stop_alone(self, previous: State | None, deadline: Deadline) -> None:
        errors: list[BaseException] = []
        try:
            self._carry_out_stop(previous, deadline, errors)
            if errors:
                raise errors[0]
        except BaseException:
            self.kill()  # does nothing to what has ended
            _log.exception("service %s did not stop cleanly", self.service_name)

    def _carry_out_stop(
        self, previous: State | None, deadline: Deadline, errors: list[BaseException]
    ) -> None:
        """Stop what was in the state `previous`, or wait for whoever has that to do.

        `errors` get what its hooks raise.
        """
        limit = deadline.remaining()
        thread = None
        if previous in (State.PREPARED, State.RUNNING):
            name = thread_name(self.service_name, "shutdown")
            thread = run_in_thread(partial(self._shut_down, deadline, errors), name)
            limit = None if limit is None else limit + _LATE_SECONDS
        if not self._over.wait(limit):
            # A hook that hangs, of this stop or of another, or of a start that does not listen.
            log_safely(_log, logging.ERROR, "service %s does not stop in time", self.service_name)
            self._hooks.log_stacks()
            self.kill()
        elif thread is not None and not self.being_killed:
            thread.join(_LATE_SECONDS)  # all that it had to do is done

    def _shut_down(self, deadline: Deadline, errors: list[BaseException]) -> None:
        log_safely(_log, logging.INFO, "service %s stops", self.service_name)
        try:
            self._hooks.run_stopping(self._ordered[::-1], "cancel", errors)
            self._hooks.run_stopping(self.entrypoints[::-1], "stop", errors)
            self._workers.close()
            if self._workers.wait_idle(deadline):
                self._hooks.run_stopping(self.dependencies[::-1], "stop", errors)
                self._hooks.run_stopping(self.subextensions[::-1], "stop", errors)
                self._end_threads()
            elif not self.being_killed:
                self._workers.log_stacks()
                self.kill()
        except BaseException as error:
            errors.append(error)
            self.kill()
        self._finish_stop()

    def _end_threads(self) -> None:
        self._managed.close()
        self._managed.join(Deadline(_GRACE_SECONDS))
        self._workers.shut_down()

    def _finish_stop(self) -> None:
        if self._life.take(Step.STOPPED) is None:
            self._over.wait(_KILL_SECONDS)  # killed meanwhile
        else:
            log_safely(_log, logging.INFO, "service %s has stopped", self.service_name)
            self._die(None)

    # Killing

    def kill(self, exc_info: Any = None) -> None:
        """End at once: abandon the workers, close everything, wait for nobody's code.

        Args:
            exc_info: an exception, or the triple with one, which `wait()` then raises.
        """
        if self._process.is_foreign:
            return  # the connections are the parent's
        error = exc_info[1] if isinstance(exc_info, tuple) else exc_info
        if self._life.take(Step.KILL) is None:
            if not self.owns_current_thread():
                self._over.wait(_KILL_SECONDS)
            return
        level = logging.WARNING if error is None else logging.ERROR
        log_safely(_log, level, "service %s is killed", self.service_name, exc_info=error)
        try:
            self._end_at_once()
        finally:
            self._die(error)  # even if a Ctrl-C comes in between, or `wait()` would never return

    def _end_at_once(self) -> None:
        self.stopping.set()
        self._workers.kill()
        self._managed.close()
        hooks = run_in_thread(self._hooks.run_kill, thread_name(self.service_name, "kill"))
        if hooks is not None:
            hooks.join(_KILL_SECONDS)
            if hooks.is_alive():
                self._hooks.log_stacks()

    def _die(self, error: BaseException | None) -> None:
        self._error = error
        self._traceback = None if error is None else error.__traceback__
        self._died.set()
        spare_at_exit(self)
        with self._hooks.marked():  # an observer that stops what is dead must not wait for itself
            self.observers.tell(self.observers.on_death, self, error)
        self._over.set()

    def wait(self) -> None:
        """Wait until the container has ended, and raise the error that ended it, if one did.

        Raises `LifecycleError` in a forked child, which would wait for ever.
        """
        self._process.check()
        self._died.wait()
        if self._error is not None:
            # Each raise adds to the traceback of this one object, so begin from the original.
            raise self._error.with_traceback(self._traceback)

    # Work

    def spawn_worker(
        self,
        entrypoint: Any,
        args: Iterable[Any] | None,
        kwargs: Mapping[str, Any] | None,
        context_data: Mapping[str, Any] | None = None,
        handle_result: HandleResult | None = None,
    ) -> WorkerContext:
        """Run a worker on a thread of the pool, and return its context when it has begun.

        Waits while every slot is taken, and until the container is open. An override sees the
        workers of all entrypoints; those of ours already hold a slot, and have run to their end
        when this returns to it, so it is to call this in the same thread.

        Raises:
            WorkerPoolFull: called by a worker of this container while every slot is taken.
            ContainerStopped: the container stops or has stopped.
            ContainerBeingKilled: the container was killed.
            LifecycleError: it was never started, or this is the thread that is starting it, or
                the container was made in the process of which this one is a fork.
        """
        self._process.check()
        offered = self._take_offer(entrypoint, args, kwargs, context_data, handle_result)
        if offered is not None:
            return offered
        if self._life.state is not State.RUNNING and self._never_begins():
            raise self._life.refusal()
        worker_ctx = WorkerContext(self, None, entrypoint, args, kwargs, context_data)
        self._workers.spawn(worker_ctx, handle_result, entrypoint.settle)
        return worker_ctx

    def _never_begins(self) -> bool:
        state = self._life.state
        if state is State.STARTING:
            return self._hooks.run_in_current_thread()  # it would wait for itself
        return state is State.NEW or self.stopping.is_set()

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
        """Run a worker to its end in this thread, which holds a slot; see `containers.worker`.

        `settle` is called in place of the entrypoint's. In a killed container nothing runs, and
        the context comes back as abandoned.
        """

        def run(worker_ctx: WorkerContext, handle_result: HandleResult | None) -> None:
            self._workers.run(worker_ctx, handle_result, settle or entrypoint.settle)

        offer = Offer(run, message)
        return self._offers.offer(
            offer, entrypoint, args, kwargs, context_data=context_data, handle_result=handle_result
        )

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
        begun: list[WorkerSteps] = []

        def begin(worker_ctx: WorkerContext, handle_result: HandleResult | None) -> None:
            begun.append(self._workers.begin(worker_ctx, handle_result))

        offer = Offer(begin)
        self._offers.offer(
            offer, entrypoint, args, kwargs, context_data=context_data, handle_result=handle_result
        )
        return begun[0]

    def _take_offer(
        self,
        entrypoint: Any,
        args: Iterable[Any] | None,
        kwargs: Mapping[str, Any] | None,
        context_data: Mapping[str, Any] | None = None,
        handle_result: HandleResult | None = None,
    ) -> WorkerContext | None:
        """Run what is offered to this thread, if anything is, and return its context."""
        offer = self._offers.take()
        if offer is None:
            return None
        worker_ctx = offer.worker_ctx = WorkerContext(
            self, None, entrypoint, args, kwargs, context_data, message=offer.message
        )
        offer.run(worker_ctx, handle_result)
        return worker_ctx

    def open_line(self, name: str) -> Line:
        """Return a new waiting line for one source of work; its owner closes it in `cancel()`."""
        return self._workers.open_line(name)

    def spawn_managed_thread(
        self, fn: Callable[[], object], identifier: str | None = None
    ) -> ManagedThread:
        """Run `fn` in a thread of its own; an exception that leaves it kills the container.

        Raises:
            ContainerStopped: the container has stopped.
            ContainerBeingKilled: the container was killed.
            LifecycleError: it was made in the process of which this one is a fork.
        """
        self._process.check()

        def run() -> None:
            try:
                fn()
            except ContainerBeingKilled:
                # Its `spawn_worker` was refused: the usual end of a loop that looks for nothing.
                if not self.stopping.is_set():
                    raise

        handle = self._managed.spawn(run, identifier or getattr(fn, "__name__", None))
        if handle is None:
            raise self._life.refusal()
        return handle

    def _on_thread_error(self, error: BaseException) -> None:
        name = threading.current_thread().name
        if self.being_killed or self._died.is_set():
            what = "thread %s failed after its container had ended"
            log_safely(_log, logging.ERROR, what, name, exc_info=error)
        else:
            log_safely(_log, logging.ERROR, "thread %s failed, which ends its container", name)
            self.kill(error)

    def _find_own_calls(self) -> set[str]:
        """Return the ids of the calls of this service to itself that wait for a reply."""
        calls: set[str] = set()
        for extension in self._ordered:
            # By shape, for calls are made by extensions that are not known here.
            find = getattr(extension, "find_calls_to", None)
            if find is not None:
                calls.update(find(self.service_name))
        return calls

    def owns_current_thread(self) -> bool:
        """Whether the container waits for the calling thread when it stops."""
        worker_ctx = current_worker.get()
        return (
            (worker_ctx is not None and worker_ctx.container is self)
            or self._workers.owns_current()
            or self._managed.owns_current()
            or self._hooks.run_in_current_thread()
        )

    def __repr__(self) -> str:
        state = self._life.state.name.lower()
        return f"<{type(self).__name__} {self.service_name} {state} at {id(self):#x}>"


def _replaced(extensions: tuple[Any, ...], replacements: Mapping[int, Any]) -> tuple[Any, ...]:
    taken = (replacements.get(id(extension), extension) for extension in extensions)
    return tuple(extension for extension in taken if extension is not None)


def get_container_cls(config: Mapping[str, Any] | None = None) -> type[ServiceContainer]:
    """Return the class that SERVICE_CONTAINER_CLS names, `ServiceContainer` if it names none."""
    path = RunnerSettings.from_config(global_config if config is None else config).container_cls
    if path is None:
        return ServiceContainer
    try:
        found = import_from_path(path)
    except ImportError as exc:
        raise ConfigurationError(f"SERVICE_CONTAINER_CLS cannot be imported: {exc}") from exc
    if not (isinstance(found, type) and issubclass(found, ServiceContainer)):
        raise ConfigurationError(f"SERVICE_CONTAINER_CLS {path!r} is no kind of ServiceContainer")
    return found
