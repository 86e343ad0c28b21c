"""Tells a configuration from other mappings, where callers written for nameko 2 give one."""

from collections.abc import Mapping
from typing import Any

from threadko.configuration.store import Config
from threadko.constants import AMQP_URI_CONFIG_KEY

__all__ = ["as_config"]


def as_config(value: Any) -> Mapping[str, Any] | None:
    """Return `value` if it is a configuration, None if it is something else.

    It is one if it names a broker; readers of files that are no mappings, but have keys, count.
    """
    if isinstance(value, Config):
        return value
    if not hasattr(value, "keys"):
        return None
    if all(str(key).upper() != AMQP_URI_CONFIG_KEY for key in value.keys()):  # noqa: SIM118 (no dict)
        return None
    return value if isinstance(value, Mapping) else dict(value)
