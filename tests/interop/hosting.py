"""The loop of a process that hosts the contract's service, the same for every framework.

nameko's environments import this too, so nothing but the standard library stands at the top.
"""

import json
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from tests.interop.contract import Gate, make_service
from tests.interop.lines import pack, serve, tell

__all__ = ["Order", "host"]


@dataclass(frozen=True)
class Order:
    """What to run: the second argument of a service's process, in JSON."""

    name: str
    config: dict[str, Any]
    options: dict[str, Any]  # of the publisher that its client sends with
    timeout: float

    @classmethod
    def from_json(cls, text: str) -> "Order":
        return cls(**json.loads(text))


def host(
    package: str,
    order: Order,
    cluster: Any,
    make_container: Callable[[type], Any],
    lines: Iterable[str] | None = None,
) -> None:
    """Start the service, then do what each line asks for; stop it when the input ends."""
    gate = Gate()
    executed: list[Any] = []
    service = make_service(package, order.name, cluster, gate, executed, order.timeout)
    container = make_container(service)
    stopping: threading.Thread | None = None

    def handle(request: dict[str, Any]) -> dict[str, Any]:
        nonlocal container, stopping
        match request["do"]:
            case "start":
                container = make_container(service)
                container.start()
            case "begin stop":
                stopping = threading.Thread(target=container.stop)
                stopping.start()
            case "stop":
                container.stop()
                if stopping is not None:
                    stopping.join(order.timeout)
            case "await hold":
                return {"begun": gate.begun.wait(order.timeout)}
            case "open":
                gate.open.set()
            case "executed":
                return {"executed": pack(executed)}
            case unknown:
                raise ValueError(unknown)
        return {}

    container.start()
    tell({"ready": True})
    serve(handle, lines)
    gate.open.set()
    container.stop()
