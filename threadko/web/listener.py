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
when no worker runs any more, `end` (the threads leave, what is still open is broken off).
"""

import contextlib
import errno
import io
import logging
import select
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterable
from email.utils import formatdate
from http import HTTPStatus
from typing import Any, Final

from cheroot import connections, server, wsgi
from cheroot.errors import FatalSSLAlert
from cheroot.ssl import Adapter

from threadko.concurrency.deadline import Deadline
from threadko.concurrency.stopping import StopEvent
from threadko.concurrency.threads import start_thread
from threadko.utils.safelog import log_safely
from threadko.web.addresses import Door, UnixAddress
from threadko.web.exchange import EXCHANGE, StreamBrokenError, WorkerAbandoned
from threadko.web.parser import Limits, MalformedError, Request, RequestReader
from threadko.web.responses import check_head
from threadko.web.streams import Stream
from threadko.web.threads import RequestThreads

__all__ = ["ARRIVED", "CONNECTION", "HttpListener"]

_log = logging.getLogger(__name__)
_access_log = logging.getLogger("threadko.access")

#: Where an environ keeps the moment (monotonic seconds) at which its request was there.
ARRIVED: Final = "threadko.arrived"
#: Where an environ keeps its connection, for a protocol that takes it over.
CONNECTION: Final = "threadko.connection"

_BREATH_SECONDS: Final = 0.05  # guessed: without descriptors left, the next accept fails as well
_DRAIN_BYTES: Final = 1024 * 1024
_NEW_SECONDS: Final = 1.0  # guessed: within which the request follows a connection
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
        self._open: set[_Connection] = set()  # only added to and discarded from, each one step
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

    def close_door(self, deadline: Deadline) -> None:
        """Accept no more, and close the connections that are silent."""
        if self.closing.is_set():
            return
        self.closing.set()
        self._server.ready = False
        self._server.wake()
        if self._accepting is not None:
            self._accepting.join(deadline.remaining())
        self._server.close(deadline)
        self.door.close()
        self.is_closed = True

    def end(self) -> None:
        """Let the threads leave, and break off what is still open; waits for nobody."""
        self.threads.stop()
        self.abort(lambda connection: True)

    def abort(self, chosen: Callable[[Any], bool]) -> None:
        """Break off the connections for which `chosen` is true of what they work for now.

        It is called with the exchange of the request that is being answered, or None.
        """
        for connection in self._open.copy():
            if chosen(connection.exchange):
                connection.stream.abort()

    def waiting_connections(self) -> "list[_Connection]":
        """Return those of which nothing is being served."""
        return [connection for connection in self._open.copy() if connection.is_waiting]

    def entered(self, connection: "_Connection") -> None:
        """Note a new connection."""
        self._open.add(connection)

    def left(self, connection: "_Connection") -> None:
        """Forget a connection."""
        self._open.discard(connection)


def _serve(connection: "_Connection") -> None:
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
        self.ConnectionClass = _Connection
        self.gateway = _Gateway
        self.requests = listener.threads
        self.timeout = listener.idle_timeout
        self.keep_alive_conn_limit = None  # type: ignore[assignment]
        least = min(listener.idle_timeout, listener.request_timeout)
        self.expiration_interval = max(0.02, min(1.0, least / 4))
        self.software = "threadko"
        self.ssl_adapter = None if tls is None else _TlsAdapter(tls)
        self._waker = _Waker()

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

    def close(self, deadline: Deadline) -> None:
        """Close what lies in the selector and has nothing to say; the accept thread has left.

        A client that has just connected is about to: it would take its connection for broken.
        """
        waiting = self.listener.waiting_connections()
        spared = self._find_speaking(waiting, deadline)
        for conn in spared:
            conn.is_spared = True
        self._connections.close()
        self._waker.close()
        for conn in waiting:
            conn.is_spared = False
            if conn in spared:
                self.requests.put(conn)
            else:
                conn.close()

    def _find_speaking(self, conns: "list[_Connection]", deadline: Deadline) -> "list[_Connection]":
        """Return those of which something has come, or comes a moment after they connected."""
        poll = select.poll()
        by_number = {}
        for conn in conns:
            with contextlib.suppress(OSError, ValueError):  # broken off
                poll.register(conn.socket, select.POLLIN)
                by_number[conn.socket.fileno()] = conn
        new = {number for number, conn in by_number.items() if conn.is_new}
        remaining = deadline.remaining()
        patience = Deadline(_NEW_SECONDS if remaining is None else min(_NEW_SECONDS, remaining))
        speaking = {}
        while by_number:
            wait = 1000 * (patience.remaining() or 0.0) if new else 0
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
            conn.is_waiting = True  # the accept thread has it, and `close` comes after that
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


class _Connection(server.HTTPConnection):
    """One connection: requests in, responses out, until either side has enough."""

    def __init__(self, server: _Server, sock: socket.socket, makefile: Any = None) -> None:
        listener = server.listener
        self.listener = listener
        self.stream = Stream(sock, listener.request_timeout)
        super().__init__(server, sock, lambda *args: self.stream)
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
        return not self.has_asked and time.monotonic() < self._began + _NEW_SECONDS

    @property
    def last_used(self) -> float:
        """For cheroot, which closes what is older than a while: of any age, or of none."""
        return float("-inf") if time.monotonic() >= self._deadline else float("inf")

    @last_used.setter
    def last_used(self, moment: float) -> None:
        pass

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
        answer = _Answer(self.server, self, request)
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


class _Answer(server.HTTPRequest):
    """cheroot's request, of which only the response is left to do."""

    def __init__(self, server: _Server, conn: _Connection, request: Request) -> None:
        super().__init__(server, conn)
        self.request = request
        self.status: Any = b""  # bytes, whatever the stub says
        self.method = request.method.encode("latin-1")
        self.response_protocol = "HTTP/1.1" if request.version == 11 else "HTTP/1.0"
        self.close_connection = not request.keep_alive
        self.rfile = io.BytesIO(request.body)
        self.ready = True

    def respond(self) -> None:
        _Gateway(self).respond()


class _Gateway(wsgi.Gateway_10):
    """Between cheroot's request and a WSGI application."""

    def get_environ(self) -> dict[str, Any]:  # type: ignore[override]
        answer = self.req
        request: Request = answer.request
        connection: _Connection = answer.conn
        owner = connection.server
        bind_addr = owner.bind_addr
        is_unix = isinstance(bind_addr, str)
        return {
            "ACTUAL_SERVER_PROTOCOL": "HTTP/1.1",
            "PATH_INFO": request.path,
            "QUERY_STRING": request.query,
            "REMOTE_ADDR": connection.remote_addr or "",
            "REMOTE_PORT": str(connection.remote_port or ""),
            "REQUEST_METHOD": request.method,
            "REQUEST_URI": request.target,
            "SCRIPT_NAME": "",
            "SERVER_NAME": "localhost" if is_unix else bind_addr[0],
            "SERVER_PORT": "" if is_unix else str(bind_addr[1]),
            "SERVER_PROTOCOL": answer.response_protocol,
            "SERVER_SOFTWARE": "threadko",
            "wsgi.errors": sys.stderr,
            "wsgi.input": answer.rfile,
            "wsgi.input_terminated": True,
            "wsgi.multiprocess": False,
            "wsgi.multithread": True,
            "wsgi.run_once": False,
            "wsgi.url_scheme": "http" if owner.ssl_adapter is None else "https",
            "wsgi.version": (1, 0),
            ARRIVED: connection.arrived,
            CONNECTION: connection,
            **request.headers,
        }

    def respond(self) -> None:
        answer, connection = self.req, self.req.conn
        body: Iterable[bytes] = ()
        try:
            body = answer.server.wsgi_app(self.env, self.start_response)
            if connection.linger:
                return  # another protocol has taken the connection over
            self._send(body)
        except (OSError, WorkerAbandoned, StreamBrokenError):
            answer.close_connection = True
            raise
        except BaseException as error:
            log_safely(_log, logging.ERROR, "a request failed", exc_info=error)
            answer.close_connection = True
            if answer.sent_headers:
                raise StreamBrokenError from error
            connection.refuse(500, "internal server error")
            answer.sent_headers, answer.status = True, b"500"
        finally:
            if not connection.linger:
                self._close(body)
        if self.remaining_bytes_out and self.req.method != b"HEAD":
            status = answer.status[:3]
            if status not in (b"304", b"500"):
                answer.close_connection = True  # the client would wait for what never comes

    def _send(self, body: Iterable[bytes]) -> None:
        exchange = self.env.get(EXCHANGE)
        if exchange is not None and exchange.streamed:
            self._send_all(body, streamed=True)
            return
        stream, threads = self.req.conn.stream, self.req.conn.listener.threads
        waits = False

        def step_aside() -> None:
            nonlocal waits
            waits = True
            # Clients that do not read hold neither a worker nor the threads of those who do.
            threads.step_aside()
            if exchange is not None:
                exchange.finish()

        stream.on_wait = step_aside
        try:
            self._send_all(body, streamed=False)
        finally:
            if waits:
                threads.step_back()

    def _send_all(self, body: Iterable[bytes], *, streamed: bool) -> None:
        answer, stream = self.req, self.req.conn.stream
        for chunk in body:
            if chunk:
                self.write(chunk)
                if streamed:
                    stream.flush()
        answer.ensure_headers_sent()
        if answer.chunked_write:
            stream.write(b"0\r\n\r\n")
        # The outcome leaves before the worker is torn down and its slot is given back.
        stream.flush()

    def _close(self, body: Iterable[bytes]) -> None:
        try:
            close = getattr(body, "close", None)
            if close is not None:
                close()
        except Exception as error:
            log_safely(_log, logging.ERROR, "closing a response failed", exc_info=error)
        finally:
            exchange = self.env.get(EXCHANGE)
            if exchange is not None:
                exchange.finish()  # even if a middleware has kept the body to itself

    def write(self, chunk: bytes) -> None:
        if self.remaining_bytes_out is not None:
            self.remaining_bytes_out -= len(chunk)
            if self.remaining_bytes_out < 0:
                raise ValueError("a response is longer than its Content-Length")
        self.req.ensure_headers_sent()
        self.req.write(chunk)

    def start_response(self, status: str, headers: Any, exc_info: Any = None) -> Any:
        if not self.req.conn.linger:  # else it is not sent
            check_head(status, headers)
        for name, value in headers:
            if name.lower() == "connection" and value.lower() == "close":
                self.req.close_connection = True
        if exc_info is not None:
            self.req.outheaders.clear()
            self.remaining_bytes_out = None
        result = super().start_response(status, headers, exc_info)
        if not any(name == b"Date" for name, _ in self.req.outheaders):
            self.req.outheaders.append((b"Date", _format_date()))
        return result


_date: tuple[int, bytes] = (0, b"")  # replaced in one step by whoever needs it first


def _format_date() -> bytes:
    global _date
    now = int(time.monotonic())
    moment, text = _date
    if moment != now or not text:
        text = formatdate(usegmt=True).encode()
        _date = (now, text)
    return text
