"""Websockets: RFC 6455 by the `websockets` library without its I/O, and one thread for all.

Threads that meet here::

    SocketLoop._run        the loop's thread: reads, writes what could not be sent at once, pings
    WebSocket.send, close  any thread; they never wait
    SocketLoop.add, ...    any thread

Each socket has a lock of its own, which guards its protocol and what it has still to send; sending
under it never waits, for the socket is non-blocking. A reader that does not keep up has its frames
queued, up to a limit; beyond that it is cut off, and nobody else notices. The selector is the
loop's: other threads post to it.

Order of stopping: `close_all` says good-bye, waits a little for the others to answer, and ends the
thread; `abort_all` does not wait.
"""

import contextlib
import logging
import selectors
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final

from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

from threadko.concurrency.deadline import Deadline
from threadko.concurrency.threads import start_thread
from threadko.utils.safelog import log_safely

__all__ = ["GOING_AWAY", "Handshake", "MAX_UNSERVED", "SocketLoop", "WebSocket", "shake_hands"]

_log = logging.getLogger(__name__)

GOING_AWAY: Final = 1001

_BAD_TEXT: Final = 1007
_CHUNK: Final = 64 * 1024
_CLOSE_SECONDS: Final = 2.0  # for the other side to answer a good-bye
#: Messages of one socket that wait to be served; with more it is not read.
MAX_UNSERVED: Final = 16
_NOT_NOW = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Handshake:
    """What became of a request to open a websocket: refused with a response, or accepted."""

    def __init__(self, protocol: ServerProtocol, response: Any) -> None:
        self.protocol = protocol
        self.status: int = response.status_code
        self.headers: list[tuple[str, str]] = list(response.headers.raw_items())
        self.body: bytes = bytes(response.body or b"")
        self._response = response

    @property
    def accepted(self) -> bool:
        """Whether the websocket is open once the response was sent."""
        return self.status == 101

    def accept(self) -> None:
        """Put the response into what the protocol has to send."""
        self.protocol.send_response(self._response)


def shake_hands(path: str, headers: Iterable[tuple[str, str]], max_size: int) -> Handshake:
    """Return the answer to a request to open a websocket."""
    protocol = ServerProtocol(max_size=max_size, logger=_log)
    lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers), "", ""]
    protocol.receive_data("\r\n".join(lines).encode("latin-1"))
    for event in protocol.events_received():
        if isinstance(event, Request):
            return Handshake(protocol, protocol.accept(event))
    return Handshake(protocol, protocol.reject(400, "This is no websocket.\n"))


class WebSocket:
    """One open websocket."""

    def __init__(
        self, loop: "SocketLoop", sock: socket.socket, protocol: ServerProtocol, socket_id: str
    ) -> None:
        self.socket_id = socket_id
        self.sock = sock
        #: What came with the handshake, for whoever serves the messages.
        self.context: dict[str, Any] = {}
        #: Messages that wait for the one before them; owned by whoever serves them.
        self.unserved: deque[str | bytes] = deque()
        self.serving = False
        self.lock = threading.Lock()  # guards all below, and the two above
        self.protocol = protocol
        self.heard = time.monotonic()
        self.pinged = False
        self.closing: float | None = None  # when the other side has to have closed
        self.is_over = False
        self.events = 0  # what the selector waits for; the loop's
        self._loop = loop
        self._unsent: deque[bytes] = deque()
        self._ends = False  # whether nothing follows what is unsent
        self._message = bytearray()  # what has come of a message in parts
        self._is_text = True  # as its first frame says

    def send(self, text: str) -> bool:
        """Send a message, or queue it; False if the socket is closed, or is now."""
        with self.lock:
            if self.is_over or self.protocol.state is not State.OPEN:
                return False
            self.protocol.send_text(text.encode())
            self._flush()
            needs_loop = self.is_over or bool(self._unsent)
            is_sent = not self.is_over
        if needs_loop:
            self._loop.post(self)
        return is_sent

    def close(self, code: int, reason: str = "") -> None:
        """Say good-bye."""
        with self.lock:
            if self.is_over or self.protocol.state is not State.OPEN:
                return
            self.protocol.send_close(code, reason)
            self.closing = time.monotonic() + _CLOSE_SECONDS
            self._flush()
        self._loop.post(self)

    def abort(self) -> None:
        """Cut it off."""
        with self.lock:
            self._break()
        self._loop.post(self)

    @property
    def wants_to_write(self) -> bool:
        """Whether frames wait to be sent."""
        return bool(self._unsent)

    # What follows is called by the loop.

    def begin(self, rest: bytes) -> list[str | bytes]:
        """Send the answer of the handshake, and take what came behind its request."""
        with self.lock:
            return self._take(rest) if rest else self._flush()

    def read(self) -> list[str | bytes]:
        """Return the messages that have come: text, and the bytes of binary ones."""
        with self.lock:
            if self.is_over:
                return []
            try:
                # Once, however much is there: others have their turn, and who floods us waits
                # until its messages were served. (A chunk takes a whole record of TLS.)
                data = self.sock.recv(_CHUNK)
            except _NOT_NOW:
                return []
            except (OSError, ValueError):
                data = b""
            if not data:
                self.is_over = True
                return []
            return self._take(data)

    def write(self) -> None:
        """Send what waits."""
        with self.lock:
            self._flush()

    def look(self, now: float, ping_seconds: float) -> None:
        """Ping whoever is silent, and give up whoever stays so."""
        with self.lock:
            if len(self.unserved) >= MAX_UNSERVED:
                self.heard, self.pinged = now, False  # it is we who do not listen
            silent = now - self.heard
            if silent >= 2 * ping_seconds or (self.closing is not None and now >= self.closing):
                self._break()
            elif silent >= ping_seconds and not self.pinged and self._is_open():
                self.pinged = True
                self.protocol.send_ping(b"")
                self._flush()

    def _take(self, data: bytes) -> list[str | bytes]:
        self.heard = time.monotonic()
        self.pinged = False
        try:
            self.protocol.receive_data(data)
        except Exception:
            # A fault of the library or of ours, which may not cost all the others their thread.
            _log.exception("websocket %s failed", self.socket_id)
            self._break()
            return []
        messages: list[str | bytes] = []
        for event in self.protocol.events_received():
            if isinstance(event, Frame):
                message = self._assemble(event)
                if message is not None:
                    messages.append(message)
        self._flush()
        if self.protocol.close_expected() and self.closing is None:
            self.closing = time.monotonic() + _CLOSE_SECONDS
        return messages

    def _assemble(self, frame: Frame) -> str | bytes | None:
        if frame.opcode in (Opcode.TEXT, Opcode.BINARY):
            self._is_text = frame.opcode is Opcode.TEXT
            self._message[:] = frame.data
        elif frame.opcode is Opcode.CONT:
            self._message += frame.data
        else:
            return None
        if not frame.fin:
            return None
        try:
            return self._message.decode() if self._is_text else bytes(self._message)
        except UnicodeDecodeError:
            self.protocol.fail(_BAD_TEXT, "a message that is no UTF-8")
            return None
        finally:
            self._message.clear()

    def _is_open(self) -> bool:
        return not self.is_over and self.protocol.state is State.OPEN

    def _flush(self) -> list[str | bytes]:
        """Send without waiting what the protocol has to send. The lock is held."""
        for data in self.protocol.data_to_send():
            if data:
                self._unsent.append(data)
            else:
                self._ends = True
        try:
            while self._unsent:
                data = self._unsent[0]
                sent = self.sock.send(data)
                if sent < len(data):
                    self._unsent[0] = data[sent:]
                else:
                    self._unsent.popleft()
            if self._ends:
                self._ends = False
                self._send_end()
        except _NOT_NOW:
            pass
        except (OSError, ValueError):
            self._break()
        if len(self._unsent) > self._loop.max_queue:  # messages of ours, or answers to its pings
            log_safely(_log, logging.WARNING, "websocket %s does not keep up", self.socket_id)
            self._break()
        return []

    def _send_end(self) -> None:
        """Tell the other side that nothing follows; it closes the connection. The lock is held."""
        if isinstance(self.sock, ssl.SSLSocket):
            with contextlib.suppress(OSError):  # what it sends, it sends; the answer is not awaited
                self.sock.unwrap()
        socket.socket.shutdown(self.sock, socket.SHUT_WR)

    def _break(self) -> None:
        """Cut it off; the loop, which has to look at it then, forgets it. The lock is held."""
        self.is_over = True
        self._unsent.clear()
        with contextlib.suppress(OSError, ValueError):
            self.sock.shutdown(socket.SHUT_RDWR)


class SocketLoop:
    """The thread of all websockets of a container.

    Args:
        name: of the thread.
        max_queue: messages that may wait for one reader.
        ping_seconds: silence after which a socket is pinged; after twice that it is cut off.
        on_message: called in the loop's thread with a socket that has messages to be served in
            `unserved`; must not wait.
        on_end: called when a socket is over: in the loop's thread, or in that of an `add` which
            came too late.
    """

    def __init__(
        self,
        name: str,
        *,
        max_queue: int,
        ping_seconds: float,
        on_message: Callable[[WebSocket], object],
        on_end: Callable[[WebSocket], object],
    ) -> None:
        self.max_queue = max_queue
        self._name = name
        self._ping_seconds = ping_seconds
        self._on_message = on_message
        self._on_end = on_end
        self._sockets: dict[int, WebSocket] = {}  # by descriptor; the loop's
        self._selector = selectors.DefaultSelector()
        self._posted: deque[tuple[WebSocket, bytes | None]] = deque()  # appended by any thread
        self._wake_in, self._wake_out = socket.socketpair()
        self._wake_in.setblocking(False)
        self._wake_out.setblocking(False)
        self._stopping = False
        self._owes_goodbye = False
        self._is_over = False  # nobody takes what is posted any more
        self._deadline = Deadline(None)
        self._thread: threading.Thread | None = None

    def __len__(self) -> int:
        return len(self._sockets)

    def start(self) -> None:
        """Start the thread."""
        self._selector.register(self._wake_in, selectors.EVENT_READ, None)
        self._thread = start_thread(self._run, self._name)

    def add(self, websocket: WebSocket, rest: bytes) -> None:
        """Take a socket over; `rest` is what came behind its handshake.

        If the loop has ended meanwhile, that is the end of the socket.
        """
        self.post(websocket, rest)
        if self._is_over:  # and so nobody may come to take it
            self._refuse_posted()

    def post(self, websocket: WebSocket, rest: bytes | None = None) -> None:
        """Have the loop look at a socket: it has something to write, or may be read again."""
        self._posted.append((websocket, rest))
        self._wake()

    def close_all(self, deadline: Deadline) -> None:
        """Say good-bye on all sockets, and end the thread by the deadline.

        That much is said even if the thread gets no processor before the deadline.
        """
        self._owes_goodbye = True
        self._end(deadline)

    def abort_all(self) -> None:
        """End the thread and all sockets, without a word."""
        self._owes_goodbye = False
        self._end(Deadline(0))

    def _end(self, deadline: Deadline) -> None:
        self._deadline = deadline
        self._stopping = True
        self._wake()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            remaining = deadline.remaining()
            thread.join(None if remaining is None else remaining + 1.0)

    def _wake(self) -> None:
        with contextlib.suppress(OSError):  # full, so it wakes anyway; or over
            self._wake_out.send(b"x")

    def _run(self) -> None:
        next_look = time.monotonic()
        try:
            while not self._is_done():
                if self._stopping and self._owes_goodbye:
                    self._owes_goodbye = False
                    for websocket in list(self._sockets.values()):
                        websocket.close(GOING_AWAY, "the service stops")
                self._turn(self._find_timeout(next_look))
                now = time.monotonic()
                if now >= next_look:
                    next_look = now + min(self._ping_seconds / 2, _CLOSE_SECONDS / 2)
                    for websocket in list(self._sockets.values()):
                        websocket.look(now, self._ping_seconds)
                        self._update(websocket)
        except Exception:
            _log.exception("the thread of the websockets failed")
        finally:
            self._clean_up()

    def _is_done(self) -> bool:
        if not self._stopping:
            return False
        return not self._sockets or (self._deadline.expired and not self._owes_goodbye)

    def _find_timeout(self, next_look: float) -> float | None:
        if not self._sockets and not self._stopping:
            return None
        timeout = max(0.0, next_look - time.monotonic())
        if self._stopping:
            timeout = min(timeout, self._deadline.remaining() or 0.0)
        return timeout

    def _turn(self, timeout: float | None) -> None:
        for key, events in self._selector.select(timeout):
            if key.data is None:
                try:
                    while self._wake_in.recv(4096):
                        pass
                except OSError:
                    pass
                continue
            websocket = key.data
            if events & selectors.EVENT_WRITE:
                websocket.write()
            if events & selectors.EVENT_READ:
                self._serve(websocket, websocket.read())
            self._update(websocket)
        while self._posted:
            websocket, rest = self._posted.popleft()
            if rest is not None:
                self._register(websocket, rest)
            self._update(websocket)

    def _register(self, websocket: WebSocket, rest: bytes) -> None:
        try:
            descriptor = websocket.sock.fileno()
            self._selector.register(descriptor, selectors.EVENT_READ, websocket)
        except (OSError, ValueError, KeyError):
            self._on_end(websocket)
            return
        self._sockets[descriptor] = websocket
        websocket.events = selectors.EVENT_READ
        self._serve(websocket, websocket.begin(rest))
        if isinstance(websocket.sock, ssl.SSLSocket):
            self._serve(websocket, websocket.read())
        if self._stopping:
            websocket.close(GOING_AWAY, "the service stops")

    def _serve(self, websocket: WebSocket, messages: list[str | bytes]) -> None:
        if messages:
            with websocket.lock:
                websocket.unserved.extend(messages)
            self._on_message(websocket)

    def _update(self, websocket: WebSocket) -> None:
        """Wait for what the socket can do now, or let it go."""
        descriptor = websocket.sock.fileno()
        if self._sockets.get(descriptor) is not websocket:
            return
        with websocket.lock:
            is_over = websocket.is_over
            reading = len(websocket.unserved) < MAX_UNSERVED
        if is_over:
            del self._sockets[descriptor]
            if websocket.events:
                self._selector.unregister(descriptor)
            websocket.sock.close()
            self._on_end(websocket)
            return
        events = selectors.EVENT_WRITE if websocket.wants_to_write else 0
        events |= selectors.EVENT_READ if reading else 0
        if events == websocket.events:
            return
        if not events:
            self._selector.unregister(descriptor)
        elif websocket.events:
            self._selector.modify(descriptor, events, websocket)
        else:
            self._selector.register(descriptor, events, websocket)
        websocket.events = events

    def _clean_up(self) -> None:
        self._stopping = True
        for websocket in list(self._sockets.values()):
            websocket.abort()
            websocket.sock.close()
            self._on_end(websocket)
        self._sockets.clear()
        self._is_over = True
        self._refuse_posted()
        self._selector.close()
        self._wake_in.close()
        self._wake_out.close()

    def _refuse_posted(self) -> None:
        """Close the sockets that came too late; the loop's thread, or `add` after its end."""
        while True:
            try:
                websocket, rest = self._posted.popleft()
            except IndexError:
                return
            if rest is not None:
                if not self._deadline.expired:
                    websocket.close(GOING_AWAY, "the service stops")
                websocket.sock.close()
                self._on_end(websocket)
