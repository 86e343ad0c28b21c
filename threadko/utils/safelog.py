"""Logging where nothing may be raised: beside the answer to a call, or in the middle of an end.

A handler or filter of the host's can raise, and so can the text of an exception or of an object
of the user's. Plain functions, for any thread.
"""

import logging
from typing import Any

__all__ = ["describe_error", "log_safely"]

_MAX_TEXT = 1_000  # guessed: characters of an error's own text that say what was meant


def log_safely(
    logger: logging.Logger,
    level: int,
    message: str,
    *args: Any,
    exc_info: BaseException | None = None,
) -> None:
    """Log as `logger.log` does; what that raises is dropped, for there is no other place for it."""
    try:
        logger.log(level, message, *args, exc_info=exc_info, stacklevel=2)
    except BaseException:
        try:
            logger.log(level, "a message could not be logged in full: %s", message)
        except BaseException:
            return


def describe_error(error: BaseException) -> str:
    """Return type and text of an error, in one line's length; never raises."""
    name = type(error).__name__
    try:
        text = str(error)
    except BaseException:
        return f"{name} (without a text)"
    return f"{name}: {text[:_MAX_TEXT]}"
