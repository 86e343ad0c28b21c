"""Dependency providers: what a worker finds under an attribute of its service instance.

`get_dependency` and the three hooks run in the worker's thread, many at once for different
workers, so a provider that keeps something per worker keeps it by worker context.
"""

from typing import TYPE_CHECKING, Any, cast

from threadko.extensions.base import Extension
from threadko.extensions.interface import Container, ExcInfo
from threadko.extensions.worker import WorkerContext

__all__ = ["DependencyProvider", "is_dependency"]


class DependencyProvider(Extension):
    """Injects something into every service instance, under the attribute that it is declared as."""

    #: The attribute, once bound. A declaration has it too then, for decorators that it makes for
    #: methods of its class: they know no clone, and look up what was injected.
    attr_name: str = cast(str, None)

    if TYPE_CHECKING:
        # The attribute holds the provider on the class, and what it injects on an instance. Which
        # type that is depends on the provider; without this, `self.attribute` is the provider.
        def __get__(self, instance: object, owner: type | None = None) -> Any: ...

    # The parameter has nameko's name for this kind of extension.
    def bind(self, container: Container, attr_name: str) -> Any:  # type: ignore[override]
        """Return a clone that injects under that name."""
        instance = super().bind(container)
        instance.attr_name = self.attr_name = attr_name
        return instance

    def get_dependency(self, worker_ctx: WorkerContext) -> Any:
        """Return what this worker gets injected."""

    def worker_setup(self, worker_ctx: WorkerContext) -> None:
        """Called before the method runs."""

    def worker_result(
        self, worker_ctx: WorkerContext, result: Any = None, exc_info: ExcInfo | None = None
    ) -> None:
        """Called with the outcome, before it leaves; an exception turns it into an error."""

    def worker_teardown(self, worker_ctx: WorkerContext) -> None:
        """Called at the end, when the outcome has left, if `worker_setup` succeeded."""


def is_dependency(value: object) -> bool:
    """Whether `value` is a dependency provider."""
    return issubclass(type(value), DependencyProvider)
