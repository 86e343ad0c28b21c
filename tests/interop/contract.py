"""The service that all frameworks run, and the values that must survive the wire.

One text for all: only the package's name and what injects a client differ. nameko's environments
import this too, so nothing but the standard library stands at the top.
"""

import builtins
import threading
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from importlib import import_module
from inspect import isfunction
from typing import Any
from uuid import UUID

__all__ = [
    "ARGUMENTS",
    "CHANGED",
    "CONTEXT",
    "VALUES",
    "AwkwardError",
    "Gate",
    "MuteError",
    "OutOfStockError",
    "Reduced",
    "ShelfError",
    "find_error",
    "make_service",
]

_PLUS_TWO = timezone(timedelta(hours=2))

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
    "rich": ([date(2024, 2, 29)], {"price": Decimal("9.90"), "raw": b"\x00\xff"}),
    "long": (["x" * 300_000], {"many": list(range(5_000))}),
}

#: Values that come back as they went, by what they are; compared by their repr, for the type
#: counts, and not-a-number is like nothing else.
VALUES: dict[str, Any] = {
    "none": None,
    "true": True,
    "false": False,
    "zero": 0,
    "negative": -1,
    "64 bits": 2**63,
    "200 bits": -(2**200),
    "float": 0.1,
    "whole float": 2.0,
    "negative zero": -0.0,
    "smallest float": 5e-324,
    "largest float": 1.7976931348623157e308,
    "infinity": float("inf"),
    "not a number": float("nan"),
    "empty text": "",
    "astral": "\N{SNAKE}\N{MUSICAL SYMBOL G CLEF}",
    "right to left": "\u202b\u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627\u202c",
    "combining": "e\u0301 \u0061\u030a",
    "NUL and controls": "a\x00b\x1f\x7f\u2028\u2029",
    "empty list": [],
    "empty mapping": {},
    "empty key": {"": ""},
    "nested": {"a": [{"b": [None, [True, {"c": 1.5}]]}], "d": {"e": {}}},
    "deep": [[[[[[[[[[[[[[[[[[[["bottom"]]]]]]]]]]]]]]]]]]]],
    "datetime": datetime(2024, 2, 29, 23, 59, 58),
    "datetime with microseconds": datetime(1969, 12, 31, 23, 59, 59, 1),
    "datetime in UTC": datetime(2024, 2, 29, 12, 0, tzinfo=timezone.utc),
    "datetime with an offset": datetime(2024, 2, 29, 12, 0, 0, 5, tzinfo=_PLUS_TWO),
    "date": date(1, 1, 1),
    "time": time(23, 59, 59, 999_999),
    "time with an offset": time(12, 30, tzinfo=_PLUS_TWO),
    "decimal": Decimal("1.10"),
    "decimal with an exponent": Decimal("-1E+30"),
    "decimal that is not a number": Decimal("NaN"),
    "uuid": UUID("12345678-1234-5678-9234-567812345678"),
    "bytes that are text": "čaj".encode(),
    "bytes that are none": bytes(range(256)),
    "no bytes": b"",
    "rich ones in others": {"at": [date(2024, 2, 29), {"price": Decimal("0.1"), "raw": b"\xff"}]},
}

#: Values for which JSON has only a near relation: what is sent, and what arrives.
CHANGED: dict[str, tuple[Any, Any]] = {
    "tuple": ((1, (2, 3)), [1, [2, 3]]),
    "number as a key": ({1: "one"}, {"1": "one"}),
    "true and none as keys": ({True: 1, None: 2}, {"true": 1, "null": 2}),
}

#: Context data as header tables carry it.
CONTEXT: dict[str, Any] = {
    "language": "cs",
    "user_id": 7,
    "user_agent": "Ďábel ☃ \N{SNAKE}",
    "auth_token": "s3cret",
    "float": 1.5,
    "whole float": 2.0,
    "negative": -0.125,
    "true": True,
    "false": False,
    "empty": "",
    "64 bits": 2**62,
    "list": ["a", 1, 2.5, [True], {"b": "c"}],
    "mapping": {"deep": {"er": [1.5]}},
    "64 bits below zero": -(2**63),
    "list with none": [None],
    "NUL": "a\x00b",
    "decimal": Decimal("-1.25"),
}


class OutOfStockError(Exception):
    """Known to callers: they get instances of it."""


class AwkwardError(Exception):
    """Known to callers too, but cannot be made from its own arguments."""

    def __init__(self, code: Any, *, reason: str = "none") -> None:
        super().__init__(code, reason)


class MuteError(Exception):
    """Has no text."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


class ShelfError(Exception):
    """Can be iterated over."""

    def __iter__(self) -> Iterator[Any]:
        return iter(self.args)


class Reduced:
    """Says itself what it is in JSON."""

    def __json__(self) -> dict[str, Any]:
        return {"reduced": True}


class Gate:
    """Where workers of ``hold`` wait: one may be seen to have begun, and is let go.

    Make it after eventlet has patched ``threading``, if it does.
    """

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.open = threading.Event()


def find_error(package: str, name: str) -> type[BaseException]:
    """Return the exception class of that name: ours, the framework's or Python's."""
    for module in (globals(), vars(import_module(f"{package}.exceptions")), vars(builtins)):
        if name in module:
            found: type[BaseException] = module[name]
            return found
    raise LookupError(name)


class Contract:
    """The methods of the service, with what ``make_service`` gives its class."""

    package: str
    gate: Gate
    executed: list[Any]
    timeout: float
    worker: Any  # the context of the worker that it runs in
    cluster: Any  # a client of all services

    def echo(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return {"args": list(args), "kwargs": kwargs}

    def result(self, value: Any) -> Any:
        return value

    def one(self, a: Any) -> Any:
        return a

    def seen_as(self, value: Any) -> str:
        return repr(value)

    def fail(self, kind: str, args: list[Any]) -> None:
        raise find_error(self.package, kind)(*args)

    def unserialisable(self) -> Any:
        return {"an": object()}

    def reduced(self) -> Any:
        return Reduced()

    def context(self) -> dict[str, Any]:
        return {"data": dict(self.worker.context_data), "call_id": self.worker.call_id}

    def forward(self, service: str, method: str, args: list[Any], kwargs: Any) -> Any:
        return getattr(self.cluster[service], method)(*args, **kwargs)

    def relay(self, route: list[str]) -> list[dict[str, Any]]:
        own = {"package": self.package, **self.context()}
        return [own, *(self.cluster[route[0]].relay(route[1:]) if route else [])]

    def record(self, value: Any) -> str:
        self.executed.append(value)
        return self.package

    def hold(self, value: Any) -> str:
        self.executed.append(value)
        self.gate.begun.set()
        if not self.gate.open.wait(self.timeout):
            raise TimeoutError("nobody opened the gate")
        return self.package


def make_service(
    package: str, name: str, cluster: Any, gate: Gate, executed: list[Any], timeout: float
) -> type:
    """Return the class of a service called ``name``, written for ``package``.

    Args:
        cluster: a dependency that injects a client of all services.
        gate: where ``hold`` waits, for ``timeout`` seconds at most.
        executed: what ``record`` and ``hold`` are given goes in here.
    """
    rpc: Any = import_module(f"{package}.rpc").rpc
    provider: Any = import_module(f"{package}.extensions").DependencyProvider

    class Worker(provider):  # type: ignore[misc]
        def get_dependency(self, worker_ctx: Any) -> Any:
            return worker_ctx

    for attribute in vars(Contract).values():
        if isfunction(attribute):
            rpc(attribute)
    attributes = {
        "name": name,
        "package": package,
        "gate": gate,
        "executed": executed,
        "timeout": timeout,
        "worker": Worker(),
        "cluster": cluster,
    }
    return type("Service", (Contract,), attributes)
