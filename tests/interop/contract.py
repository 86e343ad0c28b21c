"""The service that both frameworks run, and the values that must survive the wire.

One text for both: only the package's name differs. nameko's environment imports this too, so
nothing but the standard library stands at the top.
"""

from importlib import import_module
from typing import Any

__all__ = ["ARGUMENTS", "make_service"]

#: Positional and keyword arguments of one echo call each, by what they show.
ARGUMENTS: dict[str, tuple[list[Any], dict[str, Any]]] = {
    "nothing": ([], {}),
    "none": ([None], {"nothing": None}),
    "text": (["plain", ""], {"text": 'quotes " and \\ and \n'}),
    "unicode": (["žluťoučký kůň ☃"], {"emoji": "\N{SNAKE}", "clé": "naïve"}),
    "numbers": ([0, -1, 2**53, 2**80], {"true": True, "false": False}),
    "floats": ([1.5, -0.25, 1e300], {"tenth": 0.1}),
    "nested": ([[[], [1, [2, {"a": [None, {}]}]]]], {"deep": {"b": {"c": [{"d": 1.5}]}}}),
    "lookalikes": ([["args"], {"args": 1, "kwargs": 2}], {"result": None, "error": "no"}),
    "long": (["x" * 300_000], {"many": list(range(5_000))}),
}


def make_service(package: str, name: str) -> type:
    """Return the class of a service called ``name``, written for ``package``."""
    rpc: Any = import_module(f"{package}.rpc").rpc
    provider: Any = import_module(f"{package}.extensions").DependencyProvider

    class Worker(provider):  # type: ignore[misc]
        """Hands the service the context of the worker that it runs in."""

        def get_dependency(self, worker_ctx: Any) -> Any:
            return worker_ctx

    class Service:
        worker = Worker()

        @rpc
        def echo(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
            return {"args": list(args), "kwargs": kwargs}

        @rpc
        def result(self, value: Any) -> Any:
            return value

        @rpc
        def one(self, a: Any) -> Any:
            return a

        @rpc
        def fail(self, *args: Any) -> None:
            raise ValueError(*args)

        @rpc
        def context(self) -> dict[str, Any]:
            return {"data": dict(self.worker.data), "call_id": self.worker.call_id}

    Service.name = name  # type: ignore[attr-defined]
    return Service
