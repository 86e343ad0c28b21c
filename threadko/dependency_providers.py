"""Dependencies that need nothing but the container."""

from typing import Any

from threadko.extensions import DependencyProvider, WorkerContext

__all__ = ["Config"]


class Config(DependencyProvider):
    """Injects the configuration of the container, as it is when the worker begins.

    Each worker gets a dict of its own, so what it changes there concerns nobody else. The copy is
    shallow: a list or a mapping in it is the configuration's own, and not to be changed.
    """

    def get_dependency(self, worker_ctx: WorkerContext) -> dict[str, Any]:
        """Return a copy of the configuration as it is now."""
        # By its items: those of the global one are of one moment, its keys and values are not.
        return dict(self.container.config.items())
