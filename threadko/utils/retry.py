"""Another try for functions that fail now and then."""

import functools
import time
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar, overload

__all__ = ["retry"]

Params = ParamSpec("Params")
Result = TypeVar("Result")

_Exceptions = type[BaseException] | tuple[type[BaseException], ...]


@overload
def retry(
    wrapped: Callable[Params, Result],
    for_exceptions: _Exceptions = ...,
    max_attempts: int | None = ...,
    delay: float = ...,
    backoff: float = ...,
    max_delay: float | None = ...,
) -> Callable[Params, Result]: ...


@overload
def retry(
    wrapped: None = ...,
    for_exceptions: _Exceptions = ...,
    max_attempts: int | None = ...,
    delay: float = ...,
    backoff: float = ...,
    max_delay: float | None = ...,
) -> Callable[[Callable[Params, Result]], Callable[Params, Result]]: ...


def retry(
    wrapped: Callable[..., Any] | None = None,
    for_exceptions: _Exceptions = Exception,
    max_attempts: int | None = 3,
    delay: float = 1,
    backoff: float = 1,
    max_delay: float | None = None,
) -> Callable[..., Any]:
    """Call a function again when it raises: `@retry`, or `@retry(...)` with what follows.

    Each call of the function begins anew, with the first delay. The thread of the caller sleeps
    between two attempts.

    Args:
        for_exceptions: an exception class, or a tuple of them; others are passed on at once.
        max_attempts: how often to try again after the first attempt, before the exception is passed
            on; None for no limit.
        delay: seconds before the second attempt.
        backoff: what the delay is multiplied by after each further attempt.
        max_delay: seconds that no delay exceeds.

    Raises:
        ValueError: a number is below 0.
    """
    numbers = {
        "max_attempts": max_attempts,
        "delay": delay,
        "backoff": backoff,
        "max_delay": max_delay,
    }
    for name, value in numbers.items():
        if value is not None and not value >= 0:
            raise ValueError(f"{name} must be 0 or more, not {value!r}")

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            delays = _iter_delays(max_attempts, float(delay), backoff, max_delay)
            while True:
                try:
                    return function(*args, **kwargs)
                except for_exceptions:
                    seconds = next(delays, None)
                    if seconds is None:
                        raise
                # Out of the handler, or the next failure would be told as a failure to handle this.
                time.sleep(seconds)

        return call

    return decorate if wrapped is None else decorate(wrapped)


def _iter_delays(
    max_attempts: int | None, delay: float, backoff: float, max_delay: float | None
) -> Iterator[float]:
    """Yield the seconds before each further attempt."""
    attempts = 0
    while max_attempts is None or attempts < max_attempts:
        yield delay if max_delay is None else min(delay, max_delay)
        attempts += 1
        delay *= backoff
