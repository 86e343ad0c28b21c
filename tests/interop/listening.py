"""A service that handles events, the same for every framework, and the loop of its process.

nameko's environments import this too, so nothing but the standard library stands at the top.
"""

import threading
from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any

from tests.interop.lines import serve, tell

__all__ = ["host", "make_listener"]


def make_listener(package: str, name: str, source: str, handled: list[Any]) -> type:
    """Return a service whose handlers note what they are called with.

    Args:
        handled: gets kind, data, and the context data that came along.
    """
    events: Any = import_module(f"{package}.events")
    extensions: Any = import_module(f"{package}.extensions")

    class Context(extensions.DependencyProvider):  # type: ignore[misc]
        def get_dependency(self, worker_ctx: Any) -> Any:
            return {key: value for key, value in worker_ctx.data.items() if key != "call_id_stack"}

    class Listener:
        context = Context()
        dispatch = events.EventDispatcher()

        def note(self, kind: str, data: Any) -> None:
            handled.append([kind, data, self.context])

        @events.event_handler(source, "sold")
        def pool(self, data: Any) -> None:
            self.note("pool", data)

        @events.event_handler(source, "sold", handler_type=events.SINGLETON)
        def single(self, data: Any) -> None:
            self.note("single", data)

        @events.event_handler(
            source, "sold", handler_type=events.BROADCAST, reliable_delivery=False
        )
        def all(self, data: Any) -> None:
            self.note("all", data)

        @events.event_handler(source, "relay")
        def relay(self, data: Any) -> None:
            self.dispatch("relayed", data)

    Listener.name = name  # type: ignore[attr-defined]
    return Listener


def host(
    package: str,
    uri: str,
    container: Any,
    handled: list[Any],
    dispatch: Callable[..., Any],
    lines: Iterable[str] | None = None,
) -> None:
    """Run the service, and do what each line asks for, until the input ends."""
    lock = threading.Lock()

    def handle(request: dict[str, Any]) -> dict[str, Any]:
        if request["do"] == "handled":
            with lock:
                return {"handled": list(handled)}
        for data in request["events"]:
            dispatch(request["source"], request["type"], data)
        return {"dispatched": len(request["events"])}

    container.start()
    tell({"ready": True})
    serve(handle, lines)
    container.stop()
