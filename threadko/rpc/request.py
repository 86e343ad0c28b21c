"""A request on its way: a message that tells its link what becomes of it.

Made in the caller's thread, then the link's: it calls every method on its thread.
"""

from typing import Protocol

from threadko.amqp.confirms import Outgoing
from threadko.concurrency.deadline import Deadline
from threadko.concurrency.timers import Timer
from threadko.exceptions import PublishFailed, UnknownService
from threadko.rpc.calls import Failure, RpcCall

__all__ = ["Request", "RequestOwner"]


class RequestOwner(Protocol):
    """What a request tells its link, on the link's thread."""

    def note_written(self, request: "Request") -> None:
        """The request is in the write buffer."""

    def note_confirmed(self, request: "Request") -> None:
        """The broker has it."""

    def fail(self, request: "Request", failure: Failure) -> None:
        """End the call of the request with an error."""


class Request(Outgoing):
    """A request on its way, and the call that waits for its reply."""

    __slots__ = (
        "call",
        "call_link",
        "confirm_by",
        "confirms_before",
        "expires_at",
        "generation",
        "reply_timer",
        "resends",
        "service",
        "timeout",
        "written_at",
    )

    call: RpcCall
    call_link: RequestOwner

    def __init__(
        self,
        *,
        exchange: str,
        service: str,
        method: str,
        header: bytes,
        body: bytes,
        message_id: str,
        timeout: float | None,
        resends: int | None = None,
    ) -> None:
        super().__init__(
            exchange=exchange,
            routing_key=f"{service}.{method}",
            header=header,
            body=body,
            mandatory=True,
            message_id=message_id,
            resend=resends != 0,
        )
        self.service = service
        self.resends = resends  # that are left; None for as many as it takes
        self.timeout = timeout
        self.expires_at = Deadline(timeout).expires_at
        self.reply_timer: Timer | None = None
        self.confirm_by = 0.0  # monotonic seconds; set when it is handed to the link
        self.generation = 0  # of the link when it was last written; 0: not yet
        self.confirms_before = 0  # that had come when it was last written
        self.written_at = 0.0  # last; monotonic seconds

    def on_written(self) -> None:
        """Remember when, for whoever must judge why its confirm does not come."""
        if self.resends is not None:
            self.resend = self.resends > 0
            self.resends -= 1
        self.call_link.note_written(self)

    def on_confirmed(self) -> None:
        """The broker has it; its reply may take its time."""
        self.call_link.note_confirmed(self)

    def on_returned(self, code: int, text: str) -> None:
        """There is no queue for that service."""
        service = self.service
        self.call_link.fail(self, lambda: UnknownService(service))

    def on_failed(self, error: Exception) -> None:
        """The broker refused it."""
        target = self.routing_key
        self.call_link.fail(
            self, lambda: PublishFailed(f"the broker did not take the request to {target}: {error}")
        )
