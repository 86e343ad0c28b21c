"""Calls that wait for their reply.

``RpcCall`` is a future; ``PendingCalls`` finds the one that a reply belongs to. Threads that meet
here::

    PendingCalls.add, pop, close        any thread
    RpcCall.resolve                     whoever popped the call's entry: the link's thread when the
                                        reply, a return, a nack or the time-out comes, the caller's
                                        when it cancels
    result, exception, cancel, ...      any thread, as with every future

Whoever pops the entry resolves the call, so it is resolved once. The link's thread stores what
came as it came; it is decoded in ``result()``, on the caller's time, and an exception is made anew
for each caller who asks, for a traceback grows each time its exception is raised.
"""

import concurrent.futures
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

from threadko.concurrency.callbacks import CallbackFuture
from threadko.concurrency.deadline import Deadline
from threadko.exceptions import RpcTimeout

__all__ = ["Failure", "PendingCalls", "RawReply", "RpcCall"]


class RawReply(NamedTuple):
    """A reply as it came: its encoded properties and its body."""

    header: bytes
    body: bytes


Failure = Callable[[], BaseException]
"""Makes a new exception, the same each time, that says why there is no reply."""


class RpcCall(CallbackFuture[Any]):
    """A call on its way: a future of its result.

    Args:
        correlation_id: of the request and its reply.
        target: ``service.method``, for messages.
        decode: turns the raw reply into the result, or raises what it says.
        forget: takes the call's entry out of the pending ones; True if it was there.
    """

    def __init__(
        self,
        correlation_id: str,
        target: str,
        *,
        decode: Callable[[RawReply], Any],
        forget: Callable[[], bool],
    ) -> None:
        super().__init__()
        self.correlation_id = correlation_id
        self.target = target
        self.client: object = None  # who is not forgotten as long as the call is known
        self._decode = decode
        self._forget = forget

    def result(self, timeout: float | None = None) -> Any:
        """Wait for the reply and return the result.

        Args:
            timeout: seconds to wait here; the call itself goes on when they have passed.

        Raises:
            RpcTimeout: no reply within ``timeout``, or within the call's own time-out.
            UnknownService: no queue takes requests for that service.
            PublishFailed: the broker did not take the request; it may have arrived all the same.
            RemoteError: the method failed, with an error that is not registered here.
            concurrent.futures.CancelledError: the call was cancelled.
        """
        try:
            outcome = super().result(Deadline(timeout).remaining())
        except concurrent.futures.TimeoutError:
            raise RpcTimeout(f"{self.target} has not answered after {timeout} s") from None
        if isinstance(outcome, RawReply):
            return self._decode(outcome)
        raise outcome()

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait for the reply and return the error it brings, or None.

        Raises the same as ``result`` for what is not the outcome of the call: its own time-out
        here, and cancelling.
        """
        try:
            outcome = super().result(Deadline(timeout).remaining())
        except concurrent.futures.TimeoutError:
            raise RpcTimeout(f"{self.target} has not answered after {timeout} s") from None
        if not isinstance(outcome, RawReply):
            error: BaseException = outcome()
            if not isinstance(error, Exception):
                raise error  # WorkerKilled, which is no outcome of the call
            return error
        try:
            self._decode(outcome)
        except Exception as error:
            return error
        return None

    def cancel(self) -> bool:
        """Give up waiting; the request itself may already be under way, and is then carried out."""
        if not self._forget():
            return self.cancelled()
        self._forget = _forgotten
        cancelled = super().cancel()
        self.set_running_or_notify_cancel()
        return cancelled

    def resolve(self, outcome: RawReply | Failure) -> None:
        """End the call; only for who has popped its entry."""
        # The call and its request know each other through it; parted here, so that both are freed
        # at once and not by the collector, which would be busy with nothing else.
        self._forget = _forgotten
        if self.set_running_or_notify_cancel():
            self.set_result(outcome)


def _forgotten() -> bool:
    return False


class PendingCalls:
    """The calls that wait for a reply, by correlation id."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards both fields
        self._calls: dict[str, RpcCall] = {}
        self._closed: Failure | None = None

    def __len__(self) -> int:
        return len(self._calls)

    def find_to(self, service: str) -> set[str]:
        """Return the correlation ids of those to a service."""
        with self._lock:
            calls = list(self._calls.values())
        return {call.correlation_id for call in calls if call.target.rpartition(".")[0] == service}

    def add(self, call: RpcCall) -> None:
        """Wait for a reply to ``call``; raises what ``close`` was given once it was called."""
        with self._lock:
            if self._closed is None:
                self._calls[call.correlation_id] = call
                return
            failure = self._closed
        raise failure()

    def pop(self, correlation_id: str) -> RpcCall | None:
        """Take a call out, to resolve it; None if somebody else has."""
        with self._lock:
            return self._calls.pop(correlation_id, None)

    def ids(self) -> list[str]:
        """Return the ids of all calls that wait."""
        with self._lock:
            return list(self._calls)

    def close(self, failure: Failure) -> None:
        """Fail all calls that wait, and all that come later; a second failure changes nothing."""
        with self._lock:
            # The first word counts: whoever was killed must not hear that it was merely stopped.
            self._closed = self._closed or failure
            calls = list(self._calls.values())
            self._calls.clear()
        for call in calls:
            call.resolve(failure)
