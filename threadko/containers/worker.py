"""A worker's life, all of it in one thread that holds a slot.

`service_cls()`, every `get_dependency`, every `worker_setup`, the method, `handle_result` (makes
the outcome), every `worker_result`, `settle` (the outcome leaves), every `worker_teardown`.
Dependencies come in the order of their declaration, at teardown in reverse.

* Whatever is raised before the outcome leaves becomes the outcome: one bad message or one lost
  database fails that call, not the process.
* The outcome leaves after `worker_result`, where sessions are committed: nobody is told of work
  that then fails.
* A worker that was abandoned, or is ended by `WorkerKilled`, does nothing more: no hook, no
  outcome. What it was asked for comes again from the broker.
"""

import contextvars
import logging
from collections.abc import Callable
from typing import Any

from threadko.containers.observers import Observers
from threadko.context import current_worker
from threadko.exceptions import WorkerKilled
from threadko.extensions import (
    DependencyProvider,
    ExcInfo,
    HandleResult,
    Settle,
    WorkerContext,
)
from threadko.utils.safelog import describe_error, log_safely

__all__ = ["WorkerLife", "WorkerSteps"]

_log = logging.getLogger(__name__)


class WorkerLife:
    """What all workers of a container have in common; `run` may be called by many threads."""

    def __init__(
        self,
        service_cls: type,
        dependencies: tuple[DependencyProvider, ...],
        observers: Observers,
    ) -> None:
        self.service_cls = service_cls
        self.dependencies = dependencies
        self.observers = observers

    def run(
        self, worker_ctx: WorkerContext, handle_result: HandleResult | None, settle: Settle
    ) -> None:
        """Run a worker from its beginning to its end; raises nothing."""
        # A context of its own: what a worker sets must not be seen by the next in this thread.
        contextvars.Context().run(_Worker(self, worker_ctx, handle_result).live, settle)

    def begin(
        self,
        worker_ctx: WorkerContext,
        handle_result: HandleResult | None,
        on_end: Callable[[], object],
    ) -> "WorkerSteps":
        """Return a worker that is run step by step; `on_end` is called when it has ended."""
        return WorkerSteps(_Worker(self, worker_ctx, handle_result), on_end)


class WorkerSteps:
    """A worker whose outcome takes its time to leave: a response that is streamed.

    `call`, `report` and `end` once each, in this order; `run`, `fail` and `replace` in between. One
    thread at a time. None of them raises, but `run` what its function raises.
    """

    def __init__(self, worker: "_Worker", on_end: Callable[[], object]) -> None:
        self._worker = worker
        self._on_end = on_end
        self._context = contextvars.Context()
        self._context.run(current_worker.set, worker.ctx)

    @property
    def abandoned(self) -> bool:
        """Whether nothing that this worker does may be seen any more."""
        return self._worker.ctx.abandoned

    def call(self) -> None:
        """Set the dependencies up, run the method and make its outcome."""
        if not self.abandoned:
            self._context.run(self._worker.call)

    def run(self, function: Callable[..., Any], *args: Any) -> Any:
        """Run a part of the worker: whatever makes its outcome piece by piece."""
        return self._context.run(function, *args)

    def fail(self, error: BaseException) -> None:
        """Make `error` the outcome, though a part of another may have left."""
        self._context.run(self._worker.fail, error)

    def replace(self, error: BaseException) -> None:
        """Make `error` the outcome, of which nothing has left."""
        self._context.run(self._worker.replace, error)

    def report(self, settle: Settle) -> None:
        """Tell the dependencies of the outcome, then let it leave."""
        self._context.run(self._worker.report, settle)

    def end(self) -> None:
        """Tear the dependencies down."""
        try:
            self._context.run(self._worker.end)
        finally:
            self._on_end()


class _Worker:
    """One worker: its outcome so far, and the dependencies that are set up."""

    __slots__ = ("ctx", "exc_info", "handle_result", "life", "result", "set_up")

    def __init__(
        self, life: WorkerLife, ctx: WorkerContext, handle_result: HandleResult | None
    ) -> None:
        self.life = life
        self.ctx = ctx
        self.handle_result = handle_result
        self.set_up: list[DependencyProvider] = []
        self.result: Any = None
        self.exc_info: ExcInfo | None = None

    def live(self, settle: Settle) -> None:
        current_worker.set(self.ctx)
        try:
            self.call()
            self.report(settle)
        finally:
            self.end()

    def call(self) -> None:
        self._call()
        self._make_outcome()

    def replace(self, error: BaseException) -> None:
        self.fail(error)
        self._make_error_outcome()

    def report(self, settle: Settle) -> None:
        ctx, observers = self.ctx, self.life.observers
        self._tell_result()
        if observers.on_worker_result and not ctx.abandoned:
            observers.tell(observers.on_worker_result, ctx, self.result, self.exc_info)
        if not ctx.abandoned:
            try:
                settle(ctx, self.result, self.exc_info)
            except BaseException as error:
                self._log_failure("settling", error)

    def end(self) -> None:
        ctx, observers = self.ctx, self.life.observers
        try:
            self._tear_down()
            if observers.on_worker_teardown and not ctx.abandoned:
                observers.tell(observers.on_worker_teardown, ctx, self.result, self.exc_info)
            if ctx.abandoned:
                _log.debug("%s ended after it was abandoned", ctx.call_id)
        finally:
            # A traceback refers to the frames that refer to it; freed now, not by the collector.
            self.result = self.exc_info = None

    def _call(self) -> None:
        """Make the instance, set the dependencies up and run the method."""
        ctx, life = self.ctx, self.life
        try:
            service = ctx.service = life.service_cls()
            for dependency in life.dependencies:
                setattr(service, dependency.attr_name, dependency.get_dependency(ctx))
            for dependency in life.dependencies:
                dependency.worker_setup(ctx)
                self.set_up.append(dependency)
            if life.observers.on_worker_setup and not ctx.abandoned:
                life.observers.tell(life.observers.on_worker_setup, ctx)
            if not ctx.abandoned:
                method = getattr(service, ctx.entrypoint.method_name)
                self.result = method(*ctx.args, **ctx.kwargs)
        except BaseException as error:
            self.fail(error)

    def _make_outcome(self) -> None:
        if self.handle_result is None or self.ctx.abandoned:
            return
        try:
            self.result, self.exc_info = self.handle_result(self.ctx, self.result, self.exc_info)
        except BaseException as error:
            self.fail(error)
            self._make_error_outcome()

    def _make_error_outcome(self) -> None:
        """Ask for the outcome again, since it has turned into an error."""
        if self.handle_result is None or self.ctx.abandoned:
            return
        try:
            self.result, self.exc_info = self.handle_result(self.ctx, None, self.exc_info)
        except BaseException as error:
            self._log_failure("handle_result for an error", error)

    def _tell_result(self) -> None:
        """Run `worker_result` of what is set up; the first that raises makes the outcome an error.

        Those that come after it are told of the error, so that they do not commit.
        """
        turned = False
        for dependency in self.set_up:
            if self.ctx.abandoned:
                return
            try:
                dependency.worker_result(self.ctx, self.result, self.exc_info)
            except BaseException as error:
                if self.exc_info is None:
                    turned = True
                    self.fail(error)
                else:
                    self._log_failure(f"worker_result of {_name(dependency)}", error)
        if turned:
            self._make_error_outcome()

    def _tear_down(self) -> None:
        for dependency in reversed(self.set_up):
            if self.ctx.abandoned:
                return
            try:
                dependency.worker_teardown(self.ctx)
            except BaseException as error:
                self._log_failure(f"worker_teardown of {_name(dependency)}", error)

    def fail(self, error: BaseException) -> None:
        """Make `error` the outcome."""
        ctx = self.ctx
        if self._ends_abandoned(error):
            return
        self.result = None
        self.exc_info = (type(error), error, error.__traceback__)
        if isinstance(error, ctx.entrypoint.expected_exceptions):
            text = describe_error(error)
            log_safely(_log, logging.WARNING, "%s failed as expected: %s", ctx.call_id, text)
        else:
            log_safely(_log, logging.ERROR, "%s failed", ctx.call_id, exc_info=error)

    def _log_failure(self, what: str, error: BaseException) -> None:
        if not self._ends_abandoned(error):
            log_safely(
                _log, logging.ERROR, "%s of %s failed", what, self.ctx.call_id, exc_info=error
            )

    def _ends_abandoned(self, error: BaseException) -> bool:
        if isinstance(error, WorkerKilled):
            if not self.ctx.abandoned:
                log_safely(_log, logging.WARNING, "%s was ended by WorkerKilled", self.ctx.call_id)
            self.ctx.abandon()
        return self.ctx.abandoned


def _name(dependency: DependencyProvider) -> str:
    return f"{type(dependency).__name__} {dependency.attr_name!r}"
