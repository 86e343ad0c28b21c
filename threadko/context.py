"""What a call carries beside its arguments: ids, context data as headers, the running worker.

Plain functions, for any thread. Headers that arrive were written by anybody: nothing in them raises
here, and what has the wrong type is left out.
"""

import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any

from threadko.constants import CALL_ID_STACK_CONTEXT_KEY, HEADER_PREFIX

__all__ = [
    "current_worker",
    "decode_headers",
    "encode_headers",
    "extend_call_id_stack",
    "new_call_id",
    "new_id",
    "take_call_ids_from",
]

_STOCK = 64
# Taking one out is a single step, so two threads never get the same id; nor do two processes.
_ids: deque[str] = deque()
os.register_at_fork(after_in_child=_ids.clear)

#: The context of the worker that runs in this thread, None outside of workers.
current_worker: ContextVar[Any] = ContextVar("threadko_current_worker", default=None)


def new_id() -> str:
    """Return a random UUID (version 4) as text."""
    while True:
        try:
            return _ids.pop()
        except IndexError:
            _ids.extend(_make_ids())


def _make_ids() -> Iterator[str]:
    """Make a stock of ids from one read of the system's random numbers.

    Every call needs several, and each read gives up the interpreter's lock: with another thread
    computing it takes 5 ms to get it back.
    """
    digits = os.urandom(16 * _STOCK).hex()
    for at in range(0, len(digits), 32):
        own = digits[at : at + 32]
        variant = "89ab"[int(own[16], 16) & 3]
        yield f"{own[:8]}-{own[8:12]}-4{own[13:16]}-{variant}{own[17:20]}-{own[20:]}"


def new_call_id() -> str:
    """Return the part of a call id that no other call has; a random UUID as a rule."""
    return _make_call_id()


def take_call_ids_from(make: Callable[[], str] | None) -> None:
    """Have another function make the ids of calls from now on, for tests; None: `new_id` again."""
    global _make_call_id
    _make_call_id = new_id if make is None else make


_make_call_id: Callable[[], str] = new_id


def encode_headers(
    context_data: Mapping[str, Any] | None, prefix: str = HEADER_PREFIX
) -> dict[str, Any]:
    """Return the headers `<prefix>.<key>` for context data; None values are left out."""
    if not context_data:
        return {}
    return {f"{prefix}.{key}": value for key, value in context_data.items() if value is not None}


def decode_headers(headers: Any, prefix: str = HEADER_PREFIX) -> dict[str, Any]:
    """Return the context data in `headers`, which may be anything that came over the wire.

    Foreign headers are left out (nameko takes them along, and passes them on with its prefix). So
    is a call id stack that is no list; of one that is, only the strings are taken.
    """
    if not isinstance(headers, Mapping):
        return {}
    start = f"{prefix}."
    data = {
        key.removeprefix(start): value
        for key, value in headers.items()
        if isinstance(key, str) and key.startswith(start)
    }
    if CALL_ID_STACK_CONTEXT_KEY in data:
        stack = data.pop(CALL_ID_STACK_CONTEXT_KEY)
        if isinstance(stack, (list, tuple)):
            data[CALL_ID_STACK_CONTEXT_KEY] = _only_strings(stack)
    return data


def extend_call_id_stack(stack: Any, call_id: str, parents_tracked: int) -> list[str]:
    """Return a new stack: the last `parents_tracked` ids of `stack`, then `call_id`."""
    parents = _only_strings(stack) if isinstance(stack, (list, tuple)) else []
    # Not `parents[-parents_tracked:]`, which is all of them for 0.
    return [*parents[max(len(parents) - parents_tracked, 0) :], call_id]


def _only_strings(items: list[Any] | tuple[Any, ...]) -> list[str]:
    return [item for item in items if isinstance(item, str)]
