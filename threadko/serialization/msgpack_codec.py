"""MessagePack, with the options of the peers: text and bytes stay apart, keys are text."""

from typing import Any

import msgpack

__all__ = ["dump", "load"]


def dump(value: Any) -> bytes:
    """Return a value as MessagePack."""
    body: bytes = msgpack.packb(value, use_bin_type=True)
    return body


def load(body: bytes) -> Any:
    """Return the value in MessagePack."""
    return msgpack.unpackb(body, raw=False)
