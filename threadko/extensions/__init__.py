"""What extensions are made of: the base classes, and what a container hands them."""

from threadko.extensions.base import (
    Extension,
    SharedExtension,
    declared_members,
    is_extension,
    iter_extensions,
)
from threadko.extensions.collector import ProviderCollector
from threadko.extensions.dependency import DependencyProvider, is_dependency
from threadko.extensions.entrypoint import (
    ENTRYPOINT_EXTENSIONS_ATTR,
    Entrypoint,
    is_entrypoint,
    register_entrypoint,
)
from threadko.extensions.interface import Container, ExcInfo, HandleResult, Settle
from threadko.extensions.worker import WorkerContext

__all__ = [
    "Container",
    "DependencyProvider",
    "ENTRYPOINT_EXTENSIONS_ATTR",
    "Entrypoint",
    "ExcInfo",
    "Extension",
    "HandleResult",
    "ProviderCollector",
    "Settle",
    "SharedExtension",
    "WorkerContext",
    "declared_members",
    "is_dependency",
    "is_entrypoint",
    "is_extension",
    "iter_extensions",
    "register_entrypoint",
]
