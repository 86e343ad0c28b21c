"""JSON lines between a test and the process of a peer: one line each way per exchange.

The peer's half imports the standard library only, since nameko's own environment runs it.
"""

import json
import sys
from collections.abc import Callable
from typing import Any

__all__ = ["serve", "tell"]


def tell(answer: dict[str, Any]) -> None:
    """Send one line to the process that started this one."""
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def serve(handle: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Answer each request line with what ``handle`` makes of it, until the input ends."""
    for line in sys.stdin:
        tell(handle(json.loads(line)))


if __name__ == "__main__":  # a peer that repeats what it is told, for the tests of peers
    tell({"ready": True})
    serve(lambda request: request)
