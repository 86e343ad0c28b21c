"""Services under test: without their container, without some dependencies, without some doors.

`worker_factory` is for any thread; the others change a container before it is started, each change
as a whole.
"""

from collections.abc import Iterator
from typing import Any, TypeVar
from unittest import mock

from threadko.containers import ServiceContainer
from threadko.containers.inspection import iter_dependencies
from threadko.exceptions import ExtensionNotFound
from threadko.extensions import DependencyProvider, WorkerContext
from threadko.testing.entrypoints import (
    EntrypointWaiterTimeout,
    Once,
    dummy,
    entrypoint_hook,
    entrypoint_waiter,
    once,
)
from threadko.testing.utils import require_container

__all__ = [
    "EntrypointWaiterTimeout",
    "MockDependencyProvider",
    "Once",
    "dummy",
    "entrypoint_hook",
    "entrypoint_waiter",
    "once",
    "replace_dependencies",
    "restrict_entrypoints",
    "worker_factory",
]

Service = TypeVar("Service")


def worker_factory(service_cls: type[Service], **dependencies: Any) -> Service:
    """Return an instance of a service, its dependencies replaced by mocks or by what is given.

    There is no container, and nothing runs but what the test calls.

    Raises:
        ExtensionNotFound: the service has no dependency of a name that was given.
    """
    service = service_cls()
    names = [name for name, _ in iter_dependencies(service_cls)]
    _check_names(service_cls.__qualname__, dependencies, names)
    for name in names:
        if name not in dependencies:
            dependencies[name] = mock.MagicMock(name=f"{service_cls.__qualname__}.{name}")
        setattr(service, name, dependencies[name])
    return service


class MockDependencyProvider(DependencyProvider):
    """Injects one object into all workers, a `MagicMock` unless another is given."""

    def __init__(self, attr_name: str, dependency: Any = None) -> None:
        super().__init__()
        self.attr_name = attr_name
        self.dependency = mock.MagicMock(name=attr_name) if dependency is None else dependency

    def get_dependency(self, worker_ctx: WorkerContext) -> Any:
        """Return the object."""
        return self.dependency


def replace_dependencies(
    container: ServiceContainer, *dependencies: str, **dependency_map: Any
) -> Any:
    """Replace dependencies of a container that was not started yet.

    What only the replaced ones were using goes with them, their connection to the broker say.

    Args:
        container: of the service.
        dependencies: names of those to be replaced by mocks.
        dependency_map: what takes the place of others, by their names.

    Returns:
        The mock, if one name was given for one; an iterator of the mocks otherwise.

    Raises:
        RuntimeError: the container was started, or a name was given twice.
        ExtensionNotFound: the service has no dependency of that name.
    """
    require_container(container)
    names = [*dependencies, *dependency_map]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise RuntimeError(
            f"each dependency can be replaced once, and twice is: {', '.join(twice)}"
        )
    present = {each.attr_name: each for each in container.dependencies}
    _check_names(container.service_name, names, present)
    mocks = [mock.MagicMock(name=f"{container.service_name}.{name}") for name in dependencies]
    injected = {**dict(zip(dependencies, mocks, strict=True)), **dependency_map}
    container.replace_extensions(
        (present[name], _bind(container, name, value)) for name, value in injected.items()
    )
    return mocks[0] if len(mocks) == 1 else _iterate(mocks)


def restrict_entrypoints(container: ServiceContainer, *entrypoints: str) -> None:
    """Leave a container that was not started yet the entrypoints of these methods alone.

    What only the others were using goes with them, their connection to the broker say.

    Raises:
        RuntimeError: the container was started.
        ExtensionNotFound: the service has no entrypoint of that name.
    """
    require_container(container)
    present = {each.method_name for each in container.entrypoints}
    _check_names(container.service_name, entrypoints, present, "entrypoint")
    container.replace_extensions(
        (each, None) for each in container.entrypoints if each.method_name not in entrypoints
    )


def _bind(container: ServiceContainer, name: str, dependency: Any) -> MockDependencyProvider:
    # Not by `bind`, which makes a second one: the dependency may be None as well.
    provider = MockDependencyProvider(name)
    provider.dependency = dependency
    provider.container = container
    return provider


def _iterate(mocks: list[mock.MagicMock]) -> Iterator[mock.MagicMock]:
    yield from mocks


def _check_names(service: str, names: Any, present: Any, what: str = "dependency") -> None:
    unknown = sorted(set(names) - set(present))
    if unknown:
        there_are = ", ".join(sorted(present)) or "none at all"
        raise ExtensionNotFound(
            f"{service} has no {what} named {', '.join(map(repr, unknown))}; there are: {there_are}"
        )
