"""Between cheroot's request and a WSGI application: the environ, and a response as it is sent.

All of it is the request thread's that has the connection in hand.
"""

import io
import logging
import sys
import time
from collections.abc import Iterable
from email.utils import formatdate
from typing import Any, Final

from cheroot import server, wsgi

from threadko.utils.safelog import log_safely
from threadko.web.exchange import CONNECTION, EXCHANGE, StreamBrokenError, WorkerAbandoned
from threadko.web.parser import Request
from threadko.web.responses import check_head

__all__ = ["ARRIVED", "Answer"]

_log = logging.getLogger(__name__)

#: Where an environ keeps the moment (monotonic seconds) at which its request was there.
ARRIVED: Final = "threadko.arrived"


class Answer(server.HTTPRequest):
    """cheroot's request, of which only the response is left to do."""

    def __init__(self, server: Any, conn: Any, request: Request) -> None:
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

    def get_environ(self) -> dict[str, Any]:  # type: ignore[override]  # cheroot's is wider
        answer = self.req
        request: Request = answer.request
        connection = answer.conn
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
