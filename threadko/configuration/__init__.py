"""The global configuration, the files that it comes from and the checks of its values."""

from threadko.configuration.store import Config, config

__all__ = ["Config", "config"]
