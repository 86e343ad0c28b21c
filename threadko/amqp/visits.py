"""A short visit to a broker: a connection of one's own that is closed at the end.

Threads that meet here: ``__enter__``, ``__exit__`` and ``_ask`` belong to the thread that made the
object; everything else runs on the link's thread, and hands its outcome over in a future. The end
of the connection fails what was asked: by ``end`` and ``abandon`` of whoever makes the visit.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from types import TracebackType
from typing import TypeVar

from threadko.amqp.connection import ChannelHandler, Connection
from threadko.amqp.link import Link
from threadko.amqp.parameters import BrokerParameters
from threadko.concurrency.deadline import Deadline
from threadko.concurrency.threads import thread_name
from threadko.exceptions import BrokerUnavailable, ThreadkoError

__all__ = ["Visit"]

T = TypeVar("T")
V = TypeVar("V", bound="Visit")

_CLOSE_SECONDS = 5.0


class Visit(ChannelHandler, ABC):
    """The session of a link that one thread asks one thing after the other; a context manager.

    Args:
        parameters: the broker.
        timeout: seconds for connecting, and for each question.
        name: stands in the name of the thread.
    """

    def __init__(self, parameters: BrokerParameters, *, timeout: float, name: str) -> None:
        self._timeout = timeout
        self._link = Link(parameters, name=thread_name(name, "connection"), session=self)

    def __enter__(self: V) -> V:
        """Connect.

        Raises:
            BrokerRefused: the broker refuses this login.
            BrokerUnavailable: it does not answer in time.
        """
        self._link.start()
        try:
            self._link.wait_up(Deadline(self._timeout))
        except BaseException:
            self._link.stop(0)
            raise
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._link.stop(_CLOSE_SECONDS)

    def _ask(self, begin: Callable[[], None], answer: Future[T], extra: float = 0.0) -> T:
        """Let the link's thread begin, and wait for the answer, ``extra`` seconds longer."""
        if not self._link.post(begin):
            raise BrokerUnavailable("the connection has ended")
        try:
            return answer.result(self._timeout + extra)
        except FutureTimeoutError as error:
            raise BrokerUnavailable("the broker does not answer") from error

    # The link's thread: the session

    @abstractmethod
    def begin(self, connection: Connection) -> None:
        """Open what is needed, then ``self._link.came_up()``."""

    @abstractmethod
    def end(self, error: ThreadkoError) -> None:
        """The connection is gone: fail what was asked."""

    @abstractmethod
    def abandon(self, error: ThreadkoError | None, killed: bool) -> None:
        """No connection will follow: fail what was asked."""

    def turn(self) -> None:
        """Nothing is saved up for the end of a turn."""

    def finish(self) -> None:
        """Close; what is not settled goes back by itself."""
        self._link.finished()
