"""The context of one worker: which call runs, of which service, on whose behalf.

Made by the thread that asks for the worker, used by the worker's own thread, and marked as
abandoned by whichever thread kills the container. Here, and not with the containers, because
every extension is handed one.
"""

import threading
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from threadko.constants import CALL_ID_STACK_CONTEXT_KEY
from threadko.context import extend_call_id_stack, new_call_id

__all__ = ["Message", "MessageProperties", "WorkerContext", "WorkerSource"]


class MessageProperties(Protocol):
    """What a context reads of a message's properties."""

    @property
    def message_id(self) -> str | None: ...

    @property
    def headers(self) -> Mapping[str, Any] | None: ...


class Message(Protocol):
    """What a context reads of the message that its worker handles; only when it is asked."""

    @property
    def redelivered(self) -> bool: ...

    @property
    def properties(self) -> MessageProperties: ...


class WorkerSource(Protocol):
    """What a context reads of the entrypoint that fired its worker."""

    @property
    def method_name(self) -> str: ...

    @property
    def expected_exceptions(self) -> type[BaseException] | tuple[type[BaseException], ...]: ...

    @property
    def sensitive_arguments(self) -> str | Iterable[str]: ...


class WorkerContext:
    """One call of a service method.

    `data` (also under the name `context_data`) is what travels on with every call that the worker
    makes: a copy of what was given, with `call_id_stack` extended by this call's id. `service` is
    None until the worker has made its instance.
    """

    def __init__(
        self,
        container: Any,
        service: Any,
        entrypoint: Any,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        data: Mapping[str, Any] | None = None,
        *,
        message: Message | None = None,
    ) -> None:
        self.container = container
        self.service = service
        self.entrypoint = entrypoint
        self.service_name: str = container.service_name
        self.args: tuple[Any, ...] = () if args is None else tuple(args)
        self.kwargs: dict[str, Any] = {} if kwargs is None else dict(kwargs)
        #: Whether the container was killed meanwhile: what the worker still does has no effect.
        self.abandoned = False
        #: The message that the worker handles, None if it was spawned without one.
        self.message = message
        self.call_id = f"{self.service_name}.{entrypoint.method_name}.{new_call_id()}"
        # A copy, or the calls of one caller would pile up in the caller's own dict.
        self.data: dict[str, Any] = {} if data is None else dict(data)
        self._incoming = self.data.get(CALL_ID_STACK_CONTEXT_KEY)
        self.call_id_stack = extend_call_id_stack(
            self._incoming, self.call_id, container.parent_calls_tracked
        )
        self.data[CALL_ID_STACK_CONTEXT_KEY] = self.call_id_stack

    @property
    def context_data(self) -> dict[str, Any]:
        """The same dict as `data`."""
        return self.data

    @property
    def origin_call_id(self) -> str | None:
        """The id of the call that began it all, None if that is this one."""
        parents = self._parents()
        return parents[0] if parents else None

    @property
    def immediate_parent_call_id(self) -> str | None:
        """The id of the call that made this one, None if no call did."""
        parents = self._parents()
        return parents[-1] if parents else None

    @property
    def redelivered(self) -> bool:
        """Whether the message was delivered before, so that the work may be done already."""
        return self.message is not None and self.message.redelivered

    @property
    def message_id(self) -> str | None:
        """The id that the publisher gave to the message, None without one."""
        return None if self.message is None else self.message.properties.message_id

    @property
    def headers(self) -> Mapping[str, Any]:
        """All headers of the message, as an override of `handle_message` left them; or none."""
        return {} if self.message is None else self.message.properties.headers or {}

    @property
    def cancelled(self) -> threading.Event:
        """An event that is set when the worker is abandoned, for long loops to leave early."""
        # Most workers never ask, and an event costs more than the rest of the context.
        # `setdefault` is one step, so two threads that ask get one event.
        event: threading.Event = self.__dict__.setdefault("_cancelled", threading.Event())
        if self.abandoned:
            event.set()
        return event

    def abandon(self) -> None:
        """Mark the worker: nothing that it still does has an effect. Any thread, any number."""
        # In this order, and `cancelled` in the other: whoever comes second sets the event.
        self.abandoned = True
        event = self.__dict__.get("_cancelled")
        if event is not None:
            event.set()

    def _parents(self) -> list[str]:
        stack = self._incoming
        if not isinstance(stack, (list, tuple)):
            return []
        return [call_id for call_id in stack if isinstance(call_id, str)]

    def __repr__(self) -> str:
        method = self.entrypoint.method_name
        return f"<{type(self).__name__} {self.service_name}.{method} at {id(self):#x}>"
