"""What a service class declares: its name, its dependencies and its entrypoints.

Nothing of the class is run or evaluated: members are taken from `__dict__`, in the order in which
they are written.
"""

from collections.abc import Iterable, Iterator
from types import FunctionType
from typing import Any

from threadko.exceptions import ConfigurationError
from threadko.extensions import (
    ENTRYPOINT_EXTENSIONS_ATTR,
    DependencyProvider,
    Entrypoint,
    Extension,
    declared_members,
    is_dependency,
    iter_extensions,
)

__all__ = ["get_service_name", "in_start_order", "iter_dependencies", "iter_entrypoints"]


def get_service_name(service_cls: type) -> str:
    """Return the name of a service.

    Raises:
        ConfigurationError: it is no class, or has no attribute `name`, or that is no text.
    """
    given: object = service_cls
    if not isinstance(given, type):
        kind = type(given).__name__
        raise ConfigurationError(f"a service is a class, and no instance of {kind}")
    where = f"{service_cls.__module__}.{service_cls.__qualname__}"
    name = declared_members(service_cls).get("name")
    if name is None:
        raise ConfigurationError(f"service class {where} has no attribute 'name'; give it one")
    if not isinstance(name, str) or not name:
        raise ConfigurationError(
            f"service class {where}: attribute 'name' must be a text that is not empty,"
            f" not {name!r}"
        )
    return name


def iter_dependencies(service_cls: type) -> Iterator[tuple[str, DependencyProvider]]:
    """Yield attribute name and declaration of each dependency of a service."""
    for name, member in declared_members(service_cls).items():
        if is_dependency(member):
            yield name, member


def iter_entrypoints(service_cls: type) -> Iterator[tuple[str, Entrypoint]]:
    """Yield method name and declaration of each entrypoint of a service."""
    for name, member in declared_members(service_cls).items():
        if isinstance(member, FunctionType):
            declared: Iterable[Any] = member.__dict__.get(ENTRYPOINT_EXTENSIONS_ATTR, ())
            for entrypoint in declared:
                yield name, entrypoint


def in_start_order(extensions: Iterable[Extension]) -> tuple[Extension, ...]:
    """Return extensions and all that they own, each once and after what it owns itself."""
    ordered: dict[int, Extension] = {}
    for extension in extensions:
        for owned in iter_extensions(extension):
            ordered.setdefault(id(owned), owned)
        ordered.setdefault(id(extension), extension)
    return tuple(ordered.values())
