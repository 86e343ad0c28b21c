"""One request in a worker: from the slot that it takes to its teardown.

An exchange belongs to the thread that serves the request. A response whose body is at hand leaves
after `worker_result`, and the slot is given back when it has been sent, or as soon as the client
makes us wait. A streamed body is made inside the worker: `worker_result`, teardown and the slot
come after its iterator was closed. Its first piece is made before anything is sent, so an error up
to there is answered as that of any other method.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from werkzeug.wrappers import Response

from threadko.concurrency.deadline import Deadline
from threadko.concurrency.slots import Line
from threadko.exceptions import ContainerStopped
from threadko.extensions import Container, Entrypoint, HandleResult
from threadko.extensions.interface import WorkerSteps
from threadko.utils.safelog import log_safely

__all__ = [
    "CONNECTION",
    "EXCHANGE",
    "Exchange",
    "StreamBrokenError",
    "WorkerAbandoned",
    "refuse_for_now",
]

_log = logging.getLogger(__name__)

#: Where a WSGI environ keeps the exchange of its request, for whoever sends the response.
EXCHANGE: Final = "threadko.exchange"

#: Where one of a request to our own listener keeps its connection.
CONNECTION: Final = "threadko.connection"

_RETRY_SECONDS: Final = 1


class WorkerAbandoned(BaseException):
    """The worker was abandoned, so nothing of its outcome may be seen: close the connection."""


class StreamBrokenError(Exception):
    """A streamed body ended with an error, after its beginning was sent; it has been logged."""


def refuse_for_now(reason: str = "the service is not ready") -> Response:
    """Return the response for a request that may be sent again in a moment."""
    headers = {"Retry-After": str(_RETRY_SECONDS)}
    return Response(f"Error: {reason}\n", 503, headers)


class Exchange:
    """One request and its response, in a worker of a container.

    Args:
        line: where the requests of the container wait for a slot.
        deadline: how long this one does.
    """

    def __init__(
        self, container: Container, line: Line, entrypoint: Entrypoint, deadline: Deadline
    ) -> None:
        self.streamed = False
        #: Set by the entrypoint, once or twice; None if it came to none.
        self.response: Response | None = None
        self.container = container
        self._line = line
        self._entrypoint = entrypoint
        self._deadline = deadline
        self._worker: WorkerSteps | None = None

    def run(
        self,
        args: Iterable[Any],
        kwargs: Mapping[str, Any],
        context_data: Mapping[str, Any] | None,
        handle_result: HandleResult,
    ) -> Response:
        """Run the worker as far as its response; `finish` it when that was sent."""
        try:
            if not self._line.enter(self._deadline):
                return refuse_for_now("all workers are busy")
        except ContainerStopped:
            return refuse_for_now("the service is stopping")
        try:
            worker = self._worker = self.container.begin_worker(
                self._entrypoint,
                args,
                kwargs,
                context_data=context_data,
                handle_result=handle_result,
            )
        except BaseException:
            self._line.leave()
            raise
        worker.call()
        for is_anew in (False, True):
            response = self.response
            if response is None or not response.is_streamed or worker.abandoned:
                break
            stream = _Stream(worker, response.response)
            if is_anew or stream.begin():
                self.streamed = True
                response.response = stream
                return response
        worker.report(self._entrypoint.settle)
        if worker.abandoned:
            self.finish()
            raise WorkerAbandoned
        return self.response or Response("Error: internal server error\n", 500)

    def finish(self) -> None:
        """Tear the worker down and give its slot back; nothing happens the second time."""
        worker, self._worker = self._worker, None
        if worker is None:
            return
        try:
            if self.streamed:
                worker.report(self._entrypoint.settle)
            worker.end()
        except BaseException as error:
            log_safely(_log, logging.ERROR, "a request did not end cleanly", exc_info=error)
        finally:
            self._line.leave()


class _Stream:
    """A streamed body: each piece is made inside the worker."""

    def __init__(self, worker: WorkerSteps, body: Any) -> None:
        self._worker = worker
        self._body = body
        self._pieces: Iterator[Any] | None = None
        self._first: list[Any] = []

    def begin(self) -> bool:
        """Make the first piece; False if that failed, which is the outcome then.

        Nothing was sent so far, so the client gets the response that stands for the error.
        """
        try:
            self._first.append(self._make())
        except BaseException as error:
            self.close()
            self._worker.replace(error)
            return False
        return True

    def __iter__(self) -> "_Stream":
        return self

    def __next__(self) -> Any:
        try:
            piece = self._first.pop() if self._first else self._make()
        except BaseException as error:
            self._worker.fail(error)
            raise StreamBrokenError from error
        if self._worker.abandoned:
            raise WorkerAbandoned
        if piece is _END:
            raise StopIteration
        return piece

    def _make(self) -> Any:
        if self._pieces is None:
            self._pieces = self._worker.run(iter, self._body)
        piece = self._worker.run(next, self._pieces, _END)
        if piece is not _END and not isinstance(piece, (str, bytes)):
            kind = type(piece).__name__
            raise TypeError(f"the pieces of a body must be text or bytes, not {kind}")
        return piece

    def close(self) -> None:
        close: Callable[[], object] | None = getattr(self._body, "close", None)
        if close is None:
            return
        try:
            self._worker.run(close)
        except BaseException as error:
            self._worker.fail(error)


_END: Final = object()
