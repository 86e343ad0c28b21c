"""One address of a process: cheroot's server, with what it lacks put in at its extension points.

Threads that meet here::

    the accept thread      cheroot's selector: new connections, those that are silent, and
                           those whose deadline has passed; it never reads, and never waits
    request threads        one connection each, from the first byte of what has come to the end of
                           the response; then the connection goes back to the selector
    join, close, leave     the threads that start, stop or kill containers

A connection belongs to whoever has it in hand: the selector or one request thread. A request that
has come in part goes back to the selector, so dawdling senders hold no thread. Only `abort` comes
from outside.

Order of stopping: `close_door` (no accept, silent connections are closed, answers say so), then,
when no worker runs any more, `end` (the threads leave, and what is still open is broken off).
"""

import contextlib
import errno
import logging
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, Final

from cheroot import connections, wsgi
from cheroot.errors import FatalSSLAlert
from cheroot.ssl import Adapter

from threadko.concurrency.deadline import Deadline
from threadko.concurrency.stopping import StopEvent
from threadko.concurrency.threads import start_thread
from threadko.utils.safelog import log_safely
from threadko.web.addresses import Door, UnixAddress
from threadko.web.connection import NEW_SECONDS, HttpConnection
from threadko.web.parser import Limits
from threadko.web.threads import RequestThreads

__all__ = ["HttpListener"]

_log = logging.getLogger(__name__)

_BREATH_SECONDS: Final = 0.05  # guessed: without descriptors left, the next accept fails as well
_EXHAUSTED: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class HttpListener:
    """Serves HTTP at one address, for a WSGI application.

    Args:
        door: the listening socket; closed by `close_door`.
        app: called for each request, in a request thread.
        limits: of a request's size.
        request_timeout: seconds to send a request in all, and to take a part of a response.
        idle_timeout: seconds that a connection may be silent.
        max_connections: those beyond get 503.
        tls: a server's context, for HTTPS.
        logs_access: whether each request is told to the access log.
    """

    def __init__(
        self,
        door: Door,
        app: Callable[..., Iterable[bytes]],
        *,
        limits: Limits,
        request_timeout: float,
        idle_timeout: float,
        max_connections: int,
        tls: ssl.SSLContext | None = None,
        logs_access: bool = True,
    ) -> None:
        self.door = door
        self.logs_access = logs_access
        self.limits = limits
        self.request_timeout = request_timeout
        self.idle_timeout = idle_timeout
        self.max_connections = max_connections
        self.is_unix = isinstance(door.address, UnixAddress)
        self.threads = RequestThreads(f"threadko-http-{door.address}", _serve)
        self.closing = StopEvent()
        self.is_closed = False
        self._open: set[HttpConnection] = set()  # only added to and discarded from, each one step
        self._server = _Server(self, app, tls)
        self._accepting: threading.Thread | None = None

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._open)

    def start(self) -> None:
        """Begin to accept."""
        self._server.prepare()
        name = f"threadko-http-{self.door.address}-accept"
        self._accepting = start_thread(self._server.serve, name)

    def close_door(self, deadline: Deadline, patience: float = NEW_SECONDS) -> None:
        """Accept no more, and close the connections that are silent.

        Those that are new have so many seconds to say something.
        """
        if self.closing.is_set():
            return
        self.closing.set()
        self._server.ready = False
        self._server.wake()
        if self._accepting is not None:
            self._accepting.join(deadline.remaining())
        self._server.close(patience)
        self.door.close()
        self.is_closed = True

    def end(self, timeout: float = 0) -> None:
        """Let the threads leave, and break off what is still open so many seconds later.

        That is time for answers that no worker gives. Clients that do not read theirs get none.
        """
        self.threads.stop()
        self.threads.join(timeout)
        self.abort(lambda connection: True)

    def abort(self, chosen: Callable[[Any], bool]) -> None:
        """Break off the connections for which `chosen` is true of what they work for now.

        It is called with the exchange of the request that is being answered, or None.
        """
        for connection in self._open.copy():
            if chosen(connection.exchange):
                connection.stream.abort()

    def waiting_connections(self) -> list[HttpConnection]:
        """Return those of which nothing is being served."""
        return [connection for connection in self._open.copy() if connection.is_waiting]

    def entered(self, connection: HttpConnection) -> None:
        """Note a new connection."""
        self._open.add(connection)

    def left(self, connection: HttpConnection) -> None:
        """Forget a connection."""
        self._open.discard(connection)


def _serve(connection: HttpConnection) -> None:
    keep = False
    try:
        keep = connection.communicate()
    finally:
        if not keep:
            connection.close()
        elif connection.has_more:
            connection.listener.threads.put(connection)
        else:
            connection.server.put_conn(connection)


class _DoorClosedError(Exception):
    """Ends cheroot's loop, from the inside."""


class _Waker:
    """What lies in the selector to end its sleep."""

    last_used: Any = property(lambda self: float("inf"), lambda self, moment: None)

    def __init__(self) -> None:
        self.socket, self._other = socket.socketpair()
        self.rfile = self

    def wake(self) -> None:
        with contextlib.suppress(OSError):
            self._other.send(b"x")

    def has_data(self) -> bool:
        return False

    def close(self) -> None:
        self.socket.close()
        self._other.close()


class _Server(wsgi.Server):
    """cheroot's server, on a socket and threads of ours."""

    def __init__(
        self,
        listener: HttpListener,
        app: Callable[..., Iterable[bytes]],
        tls: ssl.SSLContext | None,
    ) -> None:
        address = listener.door.address
        bind_addr: Any = address.path if isinstance(address, UnixAddress) else tuple(address)
        if bind_addr[0] == "":
            bind_addr = ("0.0.0.0", bind_addr[1])
        super().__init__(bind_addr, app, server_name="threadko")
        # cheroot keeps every server that ever was in a dictionary of the process.
        getattr(logging, "statistics", {}).pop(f"Cheroot HTTPServer {id(self)}", None)
        self.listener = listener
        self.ConnectionClass = HttpConnection
        self.requests = listener.threads
        self.timeout = listener.idle_timeout
        self.keep_alive_conn_limit = None  # type: ignore[assignment]  # no limit
        least = min(listener.idle_timeout, listener.request_timeout)
        self.expiration_interval = max(0.02, min(1.0, least / 4))
        self.software = "threadko"
        self.ssl_adapter = None if tls is None else _TlsAdapter(tls)
        self._waker = _Waker()
        self._connections: Any = None

    def prepare(self) -> None:
        self.listener.door.socket.setblocking(False)
        self.socket: Any = _Accepting(self.listener)
        self._connections = connections.ConnectionManager(self)
        self._connections.put(self._waker)
        self.ready = True

    def serve(self) -> None:
        while self.ready:
            try:
                self._connections.run(self.expiration_interval)
            except _DoorClosedError:
                return
            except Exception:
                if self.ready:
                    _log.exception("the web server failed, and goes on")
                    self.listener.closing.wait(_BREATH_SECONDS)

    def wake(self) -> None:
        self._waker.wake()

    def close(self, patience: float) -> None:
        """Close what lies in the selector and has nothing to say; the accept thread has left.

        A client that has just connected is about to: it would take its connection for broken.
        """
        waiting = self.listener.waiting_connections()
        spared = self._find_speaking(waiting, patience)
        for conn in spared:
            conn.is_spared = True
        if self._connections is not None:  # for want of descriptors, it never stood
            self._connections.close()
        self._waker.close()
        for conn in waiting:
            conn.is_spared = False
            if conn in spared:
                self.requests.put(conn)
            else:
                conn.close()

    def _find_speaking(self, conns: list[HttpConnection], patience: float) -> list[HttpConnection]:
        """Return those of which something has come, or comes a moment after they connected."""
        poll = select.poll()
        by_number = {}
        for conn in conns:
            with contextlib.suppress(OSError, ValueError):  # broken off
                poll.register(conn.socket, select.POLLIN)
                by_number[conn.socket.fileno()] = conn
        new = {number for number, conn in by_number.items() if conn.is_new}
        deadline = Deadline(patience)
        speaking = {}
        while by_number:
            wait = 1000 * (deadline.remaining() or 0.0) if new else 0
            found = poll.poll(wait)
            if not found:
                break
            for number, _ in found:
                poll.unregister(number)
                speaking[number] = by_number.pop(number)
                new.discard(number)
        return list(speaking.values())

    def process_conn(self, conn: Any) -> None:
        if conn is self._waker:
            raise _DoorClosedError
        if conn.spoken:
            conn.is_waiting = False
            conn.arrived = time.monotonic()
            self.requests.put(conn)
            return
        conn.spoken = True
        if self.listener.connections > self.listener.max_connections:
            conn.refuse(503, "too many connections", drain=False)
            conn.close()
        else:
            self.put_conn(conn)

    def put_conn(self, conn: Any) -> None:
        if self.ready:
            try:
                conn.is_waiting = True
                self._connections.put(conn)
                return
            except (OSError, ValueError, KeyError):
                pass  # the connection was broken off, or the server has been closed meanwhile
        elif conn.is_new:
            if not conn.has_come:
                conn.is_waiting = True  # the accept thread has it, and `close` comes after that
                return
            # A part of its request has come, and there is no selector any more: wait for the rest
            # here, as long as it is new.
            if conn.wait_for_more():
                self.requests.put(conn)
                return
        conn.close()

    def error_log(self, msg: str = "", level: int = 20, traceback: bool = False) -> None:
        _log.log(level, "%s", msg, exc_info=traceback)


class _Accepting:
    """The listening socket as cheroot sees it, which must not end its turn with an error.

    Those that are connected come after it in a turn: without descriptors they would never be
    served again, and so never give theirs back.
    """

    def __init__(self, listener: HttpListener) -> None:
        self._listener = listener
        self._complained = Deadline(0)

    def fileno(self) -> int:
        return self._listener.door.socket.fileno()

    def accept(self) -> tuple[socket.socket, Any]:
        try:
            return self._listener.door.socket.accept()
        except (BlockingIOError, InterruptedError):
            raise
        except OSError as error:
            if self._complained.expired and not self._listener.closing.is_set():
                self._complained = Deadline(10.0)
                what = "no descriptors are left" if error.errno in _EXHAUSTED else "cannot accept"
                log_safely(_log, logging.ERROR, "web server: %s: %s", what, error)
            # It would be asked again at once; the others wait as long as this thread does.
            self._listener.closing.wait(_BREATH_SECONDS)
            raise BlockingIOError(errno.EAGAIN, "later") from error


class _TlsAdapter(Adapter):
    """TLS whose handshake is done by the thread that reads, so it holds up nobody else."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.context = context

    def bind(self, sock: socket.socket) -> socket.socket:
        return sock

    def wrap(self, sock: socket.socket) -> tuple[socket.socket, dict[str, Any]]:
        try:
            wrapped = self.context.wrap_socket(
                sock, server_side=True, do_handshake_on_connect=False
            )
        except OSError as error:
            raise FatalSSLAlert(*error.args) from error  # gone already: no fault of the server
        return wrapped, {}

    def get_environ(self) -> dict[str, Any]:
        return {}

    def makefile(self, sock: socket.socket, mode: str = "r", bufsize: int = -1) -> Any:
        raise TypeError("a connection makes its own file, and asks no adapter for one")
