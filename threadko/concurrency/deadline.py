"""One time limit for many waits. Unchangeable, so any thread may share it."""

import math
import threading
import time

__all__ = ["Deadline"]


class Deadline:
    """A point on the monotonic clock, `timeout` seconds after its creation; None is never.

    Made once where a public call begins and passed down, so that the waits below share one limit.
    """

    __slots__ = ("expires_at",)

    expires_at: float | None

    def __init__(self, timeout: float | None) -> None:
        if timeout is not None and math.isnan(timeout):
            raise ValueError("a timeout must be a number of seconds or None, not NaN")
        self.expires_at = None if timeout is None else time.monotonic() + timeout

    def remaining(self) -> float | None:
        """Return the seconds left, never below 0; None for ever. Any wait function takes it."""
        if self.expires_at is None:
            return None
        # Locks refuse more than TIMEOUT_MAX (and infinity) with an OverflowError.
        return min(max(self.expires_at - time.monotonic(), 0.0), threading.TIMEOUT_MAX)

    @property
    def expired(self) -> bool:
        """Whether no time is left."""
        return self.expires_at is not None and time.monotonic() >= self.expires_at

    def __repr__(self) -> str:
        return f"<Deadline remaining={self.remaining()}>"
