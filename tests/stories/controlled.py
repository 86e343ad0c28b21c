"""What a service in a process of its own tells its test, and hears from it; see `Process`."""

import sys
import threading
from collections import defaultdict

__all__ = ["tell", "wait_for"]

_changed = threading.Condition()  # guards _heard
_heard: dict[str, bool] = defaultdict(bool)


def tell(line: object) -> None:
    """Write a line on stdout, in one write, or lines of threads would mix."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def wait_for(word: str) -> None:
    """Wait until the test has told us a word, now or earlier.

    Looks up now and then: a signal that comes between the last check of the interpreter and the
    lock of a wait without a timeout is not handled before the next one, 9 times in 542,000.
    """
    with _changed:
        while not _changed.wait_for(lambda: _heard[word], timeout=0.1):
            pass


def _listen() -> None:
    for line in sys.stdin:
        with _changed:
            _heard[line.strip()] = True
            _changed.notify_all()


threading.Thread(target=_listen, name="orders", daemon=True).start()
