"""Dependencies that need nothing but the container."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from threadko.extensions import DependencyProvider, WorkerContext

__all__ = ["Config"]


class Config(DependencyProvider):
    """Injects the configuration of the container, as it was when the container was started.

    It cannot be changed through this. `from threadko import config` is the global one, which
    changes.
    """

    def setup(self) -> None:
        """Keep the configuration."""
        self._config: Mapping[str, Any] = MappingProxyType(dict(self.container.config.items()))

    def get_dependency(self, worker_ctx: WorkerContext) -> Mapping[str, Any]:
        """Return the configuration."""
        return self._config
