"""The logging of `threadko run`. An application that embeds a container keeps its own."""

import logging.config
from collections.abc import Mapping
from typing import Any

from threadko.exceptions import ConfigurationError

__all__ = ["configure"]

FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def configure(logging_config: Mapping[str, Any] | None) -> None:
    """Set logging up from a `dictConfig` mapping; without one, INFO and above go to stderr.

    Raises `ConfigurationError` if `logging` does not accept the mapping.
    """
    if logging_config is None:
        logging.basicConfig(level=logging.INFO, format=FORMAT)
        return
    # By default dictConfig would silence every logger that exists, the framework's among them.
    complete = {"disable_existing_loggers": False, **logging_config}
    try:
        logging.config.dictConfig(complete)
    except (ValueError, TypeError, AttributeError, ImportError, KeyError, OSError) as exc:
        reason = exc if exc.__cause__ is None else f"{exc}: {exc.__cause__}"
        raise ConfigurationError(f"LOGGING is not a valid dictConfig: {reason}") from exc
