"""What runs a service: its container, with the life of each worker."""

from threadko.containers.container import ServiceContainer, get_container_cls, new_call_id
from threadko.containers.inspection import get_service_name
from threadko.containers.observers import Observer, Observers
from threadko.extensions import WorkerContext

__all__ = [
    "Observer",
    "Observers",
    "ServiceContainer",
    "WorkerContext",
    "get_container_cls",
    "get_service_name",
    "new_call_id",
]
