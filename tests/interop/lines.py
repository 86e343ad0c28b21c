"""JSON lines between a test and the process of a peer: one line each way per exchange.

The peer's half imports the standard library only, since nameko's own environment runs it. Values
that JSON has no form for, and whose type matters, travel packed: both ends are ours.
"""

import base64
import json
import pickle
import sys
from collections.abc import Callable, Iterable
from typing import Any

__all__ = ["pack", "serve", "tell", "unpack"]


def pack(value: Any) -> str:
    """Return a text that `unpack` makes the same value of, types and all."""
    return base64.b64encode(pickle.dumps(value, protocol=4)).decode("ascii")


def unpack(text: str) -> Any:
    """Return what was packed."""
    return pickle.loads(base64.b64decode(text))


def tell(answer: dict[str, Any]) -> None:
    """Send one line to the process that started this one."""
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def serve(
    handle: Callable[[dict[str, Any]], dict[str, Any]], lines: Iterable[str] | None = None
) -> None:
    """Answer each request line with what ``handle`` makes of it, until the input ends."""
    for line in sys.stdin if lines is None else lines:
        tell(handle(json.loads(line)))


if __name__ == "__main__":  # a peer that repeats what it is told, for the tests of peers
    tell({"ready": True})
    serve(lambda request: request)
