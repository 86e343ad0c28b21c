"""What services may use for logs of their own."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

__all__ = ["make_timing_logger"]


def make_timing_logger(
    logger: logging.Logger, precision: int = 3, level: int = logging.DEBUG
) -> Callable[..., AbstractContextManager[None]]:
    """Return a context manager that logs how long its block took, even if the block raised.

    It is called with a message and its arguments, as a logger's methods are. The message is
    followed by the time in seconds, with `precision` digits after the point.
    """

    @contextmanager
    def log_time(msg: str, *args: object) -> Iterator[None]:
        begin = time.monotonic()
        try:
            yield
        finally:
            seconds = time.monotonic() - begin
            logger.log(level, f"{msg} in %0.{precision}fs", *args, seconds)

    return log_time
