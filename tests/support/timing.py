"""The one constant that every test's deadline comes from, and waiting for what nobody tells of."""

import os
import threading
import time
from collections.abc import Callable

#: Seconds within which anything that a test waits for must happen, however busy the machine.
TIMEOUT = 20.0 * float(os.environ.get("THREADKO_TEST_TIMEOUT_SCALE", "1"))


def wait_until(
    is_true: Callable[[], object],
    what: str | Callable[[], object] = "it never came to be",
    timeout: float = 3 * TIMEOUT,
) -> None:
    """Ask again and again, where nobody tells; `what` is said, or told, when it takes too long."""
    pause = threading.Event()
    end = time.monotonic() + timeout
    while not is_true():
        assert time.monotonic() < end, what() if callable(what) else what
        pause.wait(0.01)
