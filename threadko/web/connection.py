"""One connection: requests in, responses out.

It belongs to whoever has it in hand: the selector of its listener or one request thread. A request
that has come in part goes back to the selector, so dawdling senders hold no thread.
"""

import logging
import select
import socket
import time
from http import HTTPStatus
from typing import Any, Final, Protocol

from threadko.utils.safelog import log_safely
from threadko.web.exchange import StreamBrokenError, WorkerAbandoned
from threadko.web.gateway import Answer
from threadko.web.parser import Limits, MalformedError, Request, RequestReader
from threadko.web.streams import Stream
from threadko.web.threads import RequestThreads

__all__ = ["HttpConnection", "NEW_SECONDS"]

_log = logging.getLogger(__name__)
_access_log = logging.getLogger("threadko.access")

_DRAIN_BYTES: Final = 1024 * 1024
#: Guessed: within which the request follows a connection.
NEW_SECONDS: Final = 1.0


class _Listener(Protocol):
    limits: Limits
    request_timeout: float
    idle_timeout: float
    logs_access: bool
    threads: RequestThreads

    def entered(self, connection: Any) -> None: ...

    def left(self, connection: Any) -> None: ...


class HttpConnection:
    """One connection: requests in, responses out, until either side has enough.

    In the shape of cheroot's, whose selector and responses work with it.
    """

    # Set by cheroot's selector.
    remote_addr: str | None = None
    remote_port: int | None = None
    ssl_env: Any = None

    def __init__(self, server: Any, sock: socket.socket, makefile: Any = None) -> None:
        listener: _Listener = server.listener
        self.server = server
        self.socket = sock
        self.listener = listener
        self.stream = self.rfile = self.wfile = Stream(sock, listener.request_timeout)
        #: Whether another protocol has taken the socket over.
        self.linger = False
        self.reader = RequestReader(listener.limits)
        self.spoken = False
        self.has_asked = False
        #: When what is to be answered next was there.
        self.arrived = time.monotonic()
        #: Whether a part of what has come is still to be answered, but it is the turn of others.
        self.has_more = False
        #: What the request that is being answered runs in; set by whoever begins it.
        self.exchange: Any = None
        self._began = time.monotonic()
        self._deadline = self._began + listener.idle_timeout
        self._is_closed = False
        #: Whether it lies in the selector.
        self.is_waiting = False
        #: Whether cheroot is not to close it with the others.
        self.is_spared = False
        listener.entered(self)

    @property
    def is_new(self) -> bool:
        """Whether its client connected just now, and has not asked for anything yet."""
        return not self.has_asked and time.monotonic() < self._began + NEW_SECONDS

    @property
    def last_used(self) -> float:
        """For cheroot, which closes what is older than a while: of any age, or of none."""
        return float("-inf") if time.monotonic() >= self._deadline else float("inf")

    @last_used.setter
    def last_used(self, moment: float) -> None:
        pass

    @property
    def has_come(self) -> bool:
        """Whether a part of a request has come."""
        return self.reader.begun

    def wait_for_more(self) -> bool:
        """Wait for more of its request as long as it is new; False if nothing comes."""
        poll = select.poll()
        try:
            poll.register(self.socket, select.POLLIN)
        except (OSError, ValueError):
            return False
        return bool(poll.poll(1000 * max(0.0, self._began + NEW_SECONDS - time.monotonic())))

    def communicate(self) -> bool:
        """Answer what has come; False if the connection is to be closed."""
        try:
            while True:
                request = self.reader.next()
                if request is not None:
                    self.has_asked = True
                    if not self._answer(request):
                        return False
                    listener, self.arrived = self.listener, time.monotonic()
                    begun = self.reader.begun
                    timeout = listener.request_timeout if begun else listener.idle_timeout
                    self._deadline = self.arrived + timeout
                    self.has_more = begun and listener.threads.is_short
                    if self.has_more:
                        return True
                    continue
                data = self.stream.receive()
                if data is None:
                    if self.reader.ask_continue():
                        self.stream.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                        self.stream.flush()
                    return True
                if not data:
                    return False
                if not self.reader.begun:
                    self._deadline = time.monotonic() + self.listener.request_timeout
                self.reader.feed(data)
        except MalformedError as error:
            self.refuse(error.status, error.reason)
        except (WorkerAbandoned, StreamBrokenError):
            pass  # what was sent so far must not look complete
        except OSError as error:
            log_safely(_log, logging.DEBUG, "a client has gone: %s", error)
        return False

    def refuse(self, status: int, reason: str, drain: bool = True) -> None:
        """Answer what is no request that could be served; the connection is closed then."""
        phrase = HTTPStatus(status).phrase
        body = f"Error: {reason}\n"
        head = [f"HTTP/1.1 {status} {phrase}", "Connection: close", f"Content-Length: {len(body)}"]
        head.append("Content-Type: text/plain; charset=utf-8")
        if status == HTTPStatus.SERVICE_UNAVAILABLE:
            head.append("Retry-After: 1")
        self.stream.send_if_possible("\r\n".join([*head, "", body]).encode())
        if drain:
            self.stream.drain(_DRAIN_BYTES)
        if self.listener.logs_access and _access_log.isEnabledFor(logging.INFO):
            log_safely(_access_log, logging.INFO, '%s "-" %d %s', self.client, status, reason)

    def take_over(self) -> tuple[socket.socket, bytes]:
        """Return the socket, and what came behind the request, for another protocol."""
        self.linger = True
        self.listener.left(self)
        return self.socket, self.reader.take_rest()

    @property
    def client(self) -> str:
        """The address of the other side, for logs."""
        return self.remote_addr or "unix"

    def close(self) -> None:
        if self._is_closed or self.is_spared:
            return
        self._is_closed = True
        self.listener.left(self)
        if self.reader.begun and not self.linger and self._deadline <= time.monotonic():
            self.refuse(408, "the request did not come in time", drain=False)
        self.stream.close()
        if not self.linger:
            self.stream.abort()
            self.socket.close()

    def _answer(self, request: Request) -> bool:
        begun = time.monotonic()
        sent_before = self.stream.sent
        answer = Answer(self.server, self, request)
        try:
            answer.respond()
        finally:
            self.exchange = None
            self.stream.on_wait = None
            if self.listener.logs_access and _access_log.isEnabledFor(logging.INFO):
                log_safely(
                    _access_log,
                    logging.INFO,
                    '%s "%s %s" %s %d %.1f ms',
                    self.client,
                    request.method,
                    _make_printable(request.target),
                    bytes(answer.status[:3]).decode("latin-1") or "-",
                    self.stream.sent - sent_before,
                    1000 * (time.monotonic() - begun),
                )
        return not answer.close_connection and not self.linger


def _make_printable(target: str) -> str:
    """Return what stands in one line, whoever reads it, and between quotes."""
    if not target.isascii():
        target = target.encode("ascii", "backslashreplace").decode()
    return target.replace('"', "%22")
