"""The loop of a process that calls services, the same for every framework: see `answer_calls`.

nameko's environments import this too, so nothing but the standard library stands at the top.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Any

from tests.interop.lines import pack, serve, tell, unpack

__all__ = ["answer_calls"]

OpenClient = Callable[[dict[str, Any]], AbstractContextManager[Any]]


class _Calls:
    """The calls that were begun and not ended yet, each with its client."""

    def __init__(self, open_client: OpenClient) -> None:
        self._open_client = open_client
        self._begun: list[tuple[ExitStack, list[Any]]] = []

    def begin(self, request: dict[str, Any]) -> None:
        """Open a client and send a request for each of the given arguments."""
        with ExitStack() as stack:
            target = stack.enter_context(self._open_client(request))
            if not request["bound"]:
                target = target[request["service"]]
            method = getattr(target, request["method"])
            calls = [
                method.call_async(*args, **kwargs) for args, kwargs in unpack(request["arguments"])
            ]
            self._begun.append((stack.pop_all(), calls))

    def end(self) -> list[Any]:
        """Return the results of what was begun first, or raise the error of one of them."""
        stack, calls = self._begun.pop(0)
        with stack:
            return [call.result() for call in calls]


def answer_calls(open_client: OpenClient, deserialize: Callable[[Any], BaseException]) -> None:
    """Make the calls that each line asks for, until the input ends.

    ``open_client`` is given the request: ``service``, ``method``, ``arguments`` (packed pairs),
    ``context`` (packed), ``bound``, ``config`` and ``timeout``. The answer is ``{"results": ...}``,
    or ``{"raised": {...}}`` with what the exception is.
    """
    calls = _Calls(open_client)

    def handle(request: dict[str, Any]) -> dict[str, Any]:
        try:
            match request["do"]:
                case "begin":
                    calls.begin(request)
                    return {}
                case "end":
                    return {"results": pack(calls.end())}
                case "deserialize":
                    return {"raised": _describe(deserialize(request["error"]))}
        except Exception as error:
            return {"raised": _describe(error)}
        raise ValueError(request["do"])

    tell({"ready": True})
    serve(handle)


def _describe(error: BaseException) -> dict[str, Any]:
    """Tell what an exception is, in values that JSON carries."""
    return {
        "classes": [f"{each.__module__}.{each.__name__}" for each in type(error).__mro__],
        "arguments": pack(error.args),
        "text": str(error),
        "exc_type": getattr(error, "exc_type", None),
        "value": getattr(error, "value", None),
    }
