"""The development broker's sockets: one selector loop, in one thread.

Threads that meet here::

    start, stop, add_vhost, remove_vhost, list_connections, drop_connections,
    block, unblock, delay_confirms, uri, uri_for          any thread
    serve                                                 the thread that becomes the broker's
    everything else                                       the broker's thread

Other threads put a callable into a queue and wake the loop by a socket pair; they wait until it has
run. The loop sleeps in the selector until a socket, a timer or such a call is due. Order of
stopping: the listener is closed, each client gets a `connection.close` and the chance to read it,
then all sockets are closed and the thread ends.
"""

import contextlib
import errno
import heapq
import itertools
import logging
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from types import TracebackType
from typing import Any, cast
from urllib.parse import quote

from threadko.devbroker.channel import Channel
from threadko.devbroker.session import Session
from threadko.devbroker.vhost import Clock, VHost

__all__ = ["DevBroker"]

_log = logging.getLogger(__name__)

_RECEIVE_BYTES = 1 << 18
_BACKLOG = 1024
_LONGEST_WAIT_SECONDS = 86400.0  # the system counts in 32 bits of milliseconds
_CALL_SECONDS = 30.0
_GOODBYE_SECONDS = 0.2  # for clients to read that they are sent away
_LOGIN_SECONDS = 10.0
_LOOPBACK = ("localhost", "::1")


class _Client:
    """A socket and its session."""

    def __init__(self, sock: socket.socket, session: Session, now: float, address: str) -> None:
        self.sock = sock
        self.address = address
        self.session = session
        self.pending = memoryview(b"")
        self.events = selectors.EVENT_READ
        self.heard = now
        self.spoke = now
        self.is_stalled = False  # it does not read, and somebody looks whether it goes on
        self.is_leaving = False  # it was told that it is over, and has so long to answer


class DevBroker(Clock):
    """An AMQP 0-9-1 broker in this process, for development and tests; never for production.

    Nothing is kept on disk: what is declared durable ends with the broker.

    Args:
        host: the address to listen on.
        port: 0 for a free one; `port` is the real one after `start`.
        users: passwords by user; `guest` with `guest` if None.
        vhosts: virtual hosts that there are from the beginning.
        memory_limit: bytes of messages, arriving, kept or on their way out, beyond which
            publishers are held up.
        send_timeout: seconds after which a client is dropped that reads nothing of what waits for
            it, or does not confirm its end; as in RabbitMQ.
        allow_remote: let `host` be an address that other machines reach.

    Raises:
        ValueError: `host` is no loopback address, and `allow_remote` is not set.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        users: Mapping[str, str] | None = None,
        vhosts: Iterable[str] = ("/",),
        memory_limit: int = 256 << 20,
        send_timeout: float = 30.0,
        allow_remote: bool = False,
    ) -> None:
        if not allow_remote and host not in _LOOPBACK and not host.startswith("127."):
            raise ValueError(
                f"{host} can be reached from other machines, and this broker is for development"
                " only: listen on 127.0.0.1, or allow it in as many words"
            )
        self.host = host
        self.port = port
        self.vhosts: dict[str, VHost] = {}
        for name in vhosts:
            self.vhosts[name] = VHost(name, self)
        self._users = dict({"guest": "guest"} if users is None else users)
        self._memory_limit = memory_limit
        self._send_timeout = send_timeout
        self._memory = 0
        self._is_short_of_memory = False
        self._block_reason: str | None = None
        self._confirm_delay = 0.0
        self._clients: dict[Session, _Client] = {}
        self._dirty: dict[Session, None] = {}  # with output
        self._confirms: dict[Channel, None] = {}
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._timer_numbers = itertools.count()
        self._now = time.monotonic()
        self._calls: deque[Callable[[], None]] = deque()
        self._lock = threading.Lock()  # guards the fields from here to the blank line
        self._selector: selectors.BaseSelector | None = None
        self._listener: socket.socket | None = None
        self._bell: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._is_running = False

        self._is_stopping = False
        self._leave_at: float | None = None

    # Any thread

    @property
    def uri(self) -> str:
        """The address of the first vhost, with a user who may log in."""
        return self.uri_for(next(iter(self.vhosts), "/"))

    def uri_for(self, vhost: str) -> str:
        """Return the address of a vhost."""
        user, password = next(iter(self._users.items()))
        host = f"[{self.host}]" if ":" in self.host else self.host
        path = "" if vhost == "/" else quote(vhost, safe="")
        return f"amqp://{quote(user, safe='')}:{quote(password, safe='')}@{host}:{self.port}/{path}"

    def start(self) -> None:
        """Listen, and serve in a daemon thread of its own; ready when it returns.

        Raises:
            OSError: the port is taken, or the address is not this machine's.
        """
        self.listen()
        thread = threading.Thread(target=self.serve, name="threadko-devbroker-0", daemon=True)
        with self._lock:
            self._thread = thread
        thread.start()

    def listen(self) -> None:
        """Take the port; connections wait until `serve` is called."""
        with self._lock:
            if self._listener is not None:
                raise RuntimeError("the broker is started already")
            family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
            listener = socket.socket(family, socket.SOCK_STREAM)
            try:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind((self.host, self.port))
                listener.listen(_BACKLOG)
            except BaseException:
                listener.close()
                raise
            listener.setblocking(False)
            self.port = listener.getsockname()[1]
            bell, ear = socket.socketpair()
            bell.setblocking(False)
            ear.setblocking(False)
            selector = selectors.DefaultSelector()
            selector.register(listener, selectors.EVENT_READ, self._accept)
            selector.register(ear, selectors.EVENT_READ, lambda: self._hear(ear))
            self._listener, self._bell, self._selector = listener, bell, selector
            self._is_stopping = False
            self._leave_at = None
            self._is_running = True

    def stop(self, timeout: float = 5.0) -> None:
        """Say goodbye to all clients, free the port and end the thread; may be called twice."""
        self._post(self._begin_stop)
        with self._lock:
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)

    def request_stop(self) -> None:
        """Begin to stop, and do not wait: for signal handlers."""
        self._post(self._begin_stop)

    def __enter__(self) -> "DevBroker":
        self.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def add_vhost(self, name: str) -> None:
        """Add an empty vhost; nothing if it is there."""
        self._call(lambda: self.vhosts.setdefault(name, VHost(name, self)))

    def remove_vhost(self, name: str) -> None:
        """Remove a vhost with all that is in it, and close its connections."""

        def remove() -> None:
            vhost = self.vhosts.pop(name, None)
            if vhost is None:
                return
            for client in self._clients_of(vhost):
                client.session.close(320, f"vhost '{name}' is deleted")
            for queue in list(vhost.queues.values()):
                vhost.delete_queue(queue)

        self._call(remove)

    def list_connections(self, vhost: str) -> list[str]:
        """Return the names that the clients of a vhost gave to their connections, or say of each
        without one where it comes from."""

        def find() -> list[str]:
            clients = self._clients_of(self.vhosts[vhost]) if vhost in self.vhosts else []
            return [client.session.client_name or client.address for client in clients]

        return list(self._call(find))

    def drop_connections(self, vhost: str | None = None) -> int:
        """End connections, of one vhost or all, without a word; return how many."""

        def drop() -> int:
            chosen = None if vhost is None else self.vhosts.get(vhost)
            clients = [
                client
                for client in list(self._clients.values())
                if vhost is None or (client.session.is_open and client.session.vhost is chosen)
            ]
            for client in clients:
                self._forget(client)
            return len(clients)

        return int(self._call(drop))

    def block(self, reason: str = "asked for by a test") -> None:
        """Hold up publishers, as a broker that is short of memory does."""

        def block() -> None:
            self._block_reason = reason
            self._apply_block()

        self._call(block)

    def unblock(self) -> None:
        """End `block`."""

        def unblock() -> None:
            self._block_reason = None
            self._apply_block()

        self._call(unblock)

    def delay_confirms(self, seconds: float) -> None:
        """Hold back each confirm for so long; 0 ends it for those to come."""

        def delay() -> None:
            self._confirm_delay = seconds

        self._call(delay)

    def _post(self, call: Callable[[], None]) -> bool:
        with self._lock:
            if not self._is_running:
                return False
            self._calls.append(call)
            bell = self._bell
        if bell is not None:
            with contextlib.suppress(BlockingIOError, OSError):
                bell.send(b"\0")
        return True

    def _call(self, function: Callable[[], Any]) -> Any:
        """Run a function in the broker's thread, and return what it returns."""
        done = threading.Event()
        result: list[Any] = []
        errors: list[Exception] = []

        def call() -> None:
            try:
                result.append(function())
            except Exception as error:  # whatever it is, it is for the caller
                errors.append(error)
            finally:
                done.set()

        with self._lock:
            is_running = self._is_running and self._thread is not None
        if not is_running or not self._post(call):
            return function()  # nobody else is here
        if done.wait(_CALL_SECONDS) and errors:
            raise errors[0]
        if not done.wait(_CALL_SECONDS) or not result:
            raise RuntimeError("the broker has ended")
        return result[0]

    # The broker's thread: what vhosts and sessions ask

    def now(self) -> float:
        """Return the time, as it was when this turn began."""
        return self._now

    def call_at(self, when: float, callback: Callable[[], None]) -> None:
        """Call back at that time."""
        heapq.heappush(self._timers, (when, next(self._timer_numbers), callback))

    def count_bytes(self, size: int) -> None:
        """Count what queues keep, and hold up publishers when it is too much."""
        self._memory += size
        if self._is_short_of_memory:
            # Not at the very limit, or it would flap with each message.
            if self._memory < self._memory_limit * 0.8:
                self._is_short_of_memory = False
                self.call_at(self._now, self._apply_block)
        elif self._memory > self._memory_limit:
            self._is_short_of_memory = True
            _log.warning("%d bytes of messages: publishers are held up", self._memory)
            self.call_at(self._now, self._apply_block)

    def check_login(self, user: str, password: str) -> bool:
        """Whether a user may log in."""
        return self._users.get(user) == password

    def confirm_later(self, session: Session, channel: Channel) -> None:
        """Write a channel's confirms at the end of the turn."""
        self._confirms[channel] = None

    def output_is_ready(self, session: Session) -> None:
        """Write a session's output at the end of the turn."""
        self._dirty[session] = None

    def note_publisher(self, session: Session) -> None:
        """A client has begun to publish."""
        if self._blocks:
            self.call_at(self._now, self._apply_block)

    # The broker's thread: the loop

    def serve(self) -> None:
        """Serve until `stop` is called."""
        with self._lock:
            selector = self._selector
            if selector is None:
                raise RuntimeError("the broker does not listen yet")
            if self._thread is None:
                self._thread = threading.current_thread()
        try:
            while self._leave_at is None or (self._clients and self._now < self._leave_at):
                ready = selector.select(self._find_wait())
                self._now = time.monotonic()
                for key, events in ready:
                    if isinstance(key.data, _Client):
                        _guard(partial(self._serve_client, key.data, events))
                    else:
                        _guard(key.data)
                self._run_timers()
                self._finish_turn()
        finally:
            self._end()

    def _find_wait(self) -> float | None:
        times = [self._timers[0][0]] if self._timers else []
        if self._leave_at is not None:
            times.append(self._leave_at)
        if not times:
            return None
        return min(max(0.0, min(times) - time.monotonic()), _LONGEST_WAIT_SECONDS)

    def _run_timers(self) -> None:
        while self._timers and self._timers[0][0] <= self._now:
            _, _, callback = heapq.heappop(self._timers)
            _guard(callback)

    def _finish_turn(self) -> None:
        while self._confirms or self._dirty:
            confirms, self._confirms = self._confirms, {}
            if self._confirm_delay:
                due = self._now + self._confirm_delay
                for channel in confirms:
                    self.call_at(due, channel.write_confirms)
            else:
                for channel in confirms:
                    _guard(channel.write_confirms)
            dirty, self._dirty = self._dirty, {}
            for session in dirty:
                client = self._clients.get(session)
                if client is not None:
                    _guard(partial(self._write, client))

    def _hear(self, ear: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            ear.recv(4096)
        while self._calls:
            _guard(self._calls.popleft())

    def _accept(self) -> None:
        for _ in range(_BACKLOG):
            if self._listener is None:
                return
            try:
                sock, address = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE):
                    _log.error("no descriptors are left for another connection")
                return
            sock.setblocking(False)
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            session = Session(self)
            client = _Client(sock, session, self._now, f"{address[0]}:{address[1]}")
            self._clients[session] = client
            self._require_selector().register(sock, client.events, client)
            self.call_at(self._now + _LOGIN_SECONDS, partial(self._check_login_time, client))

    def _check_login_time(self, client: _Client) -> None:
        if not client.session.is_open:
            self._forget(client)

    def _beat(self, client: _Client) -> None:
        """Send and expect signs of life, as agreed."""
        interval = client.session.heartbeat
        if not interval or client.session not in self._clients:
            return
        if self._now - client.heard > 2 * interval + 1 and not self._is_held_up(client):
            _log.warning("a client was silent for %d s and is dropped", 2 * interval)
            self._forget(client)
            return
        if self._now - client.spoke >= interval / 2:
            client.session.send_heartbeat()
        self.call_at(self._now + interval / 2, lambda: self._beat(client))

    def _serve_client(self, client: _Client, events: int) -> None:
        if client.session not in self._clients:
            return
        if events & selectors.EVENT_READ:
            try:
                data = client.sock.recv(_RECEIVE_BYTES)
            except BlockingIOError:
                data = None
            except OSError:
                data = b""
            if data == b"":
                self._forget(client)
                return
            if data:
                client.heard = self._now
                was_open = client.session.is_open
                self._feed(client, data)
                if not was_open and client.session.is_open:
                    self._beat(client)
        if events & selectors.EVENT_WRITE or client.session.has_ended:
            self._write(client)

    def _feed(self, client: _Client, data: bytes) -> None:
        try:
            client.session.receive(data)
        except Exception:
            # A fault of ours must cost this client only.
            _log.exception("a client's bytes brought about a fault in the broker")
            self._forget(client)

    def _write(self, client: _Client) -> None:
        session = client.session
        while True:
            if not client.pending:
                client.pending = memoryview(session.take_output())
                if not client.pending:
                    break
            try:
                sent = client.sock.send(client.pending)
            except BlockingIOError:
                break
            except OSError:
                self._forget(client)
                return
            client.pending = client.pending[sent:]
            client.spoke = self._now
            session.note_written(sent)
        if session.is_closing and not client.is_leaving:
            client.is_leaving = True
            self.call_at(self._now + self._send_timeout, partial(self._forget, client))
        if client.pending and not client.is_stalled:
            client.is_stalled = True
            self.call_at(self._now + self._send_timeout, partial(self._check_stall, client))
        if session.has_ended and not client.pending:
            self._forget(client)
        elif session.has_ended and not session.is_writable and len(client.pending) > 1 << 20:
            self._forget(client)  # it does not read, and never will
        else:
            self._watch(client)

    def _check_stall(self, client: _Client) -> None:
        """Drop a client that has read nothing for too long: what waits for it takes memory."""
        due = client.spoke + self._send_timeout
        client.is_stalled = bool(client.pending) and due > self._now
        if client.is_stalled:
            self.call_at(due, partial(self._check_stall, client))
        elif client.pending and client.session in self._clients:
            _log.warning("a client has read nothing for %g s and is dropped", self._send_timeout)
            self._forget(client)

    def _watch(self, client: _Client) -> None:
        events = selectors.EVENT_WRITE if client.pending else 0
        if not self._is_held_up(client) and not client.session.has_ended:
            events |= selectors.EVENT_READ
        if events == client.events:
            return
        selector = self._require_selector()
        if not client.events:
            selector.register(client.sock, events, client)
        elif events:
            selector.modify(client.sock, events, client)
        else:
            selector.unregister(client.sock)
        client.events = events

    def _forget(self, client: _Client) -> None:
        """End a connection at once."""
        if self._clients.pop(client.session, None) is None:
            return
        if client.events:
            self._require_selector().unregister(client.sock)
        client.sock.close()
        client.session.end()

    def _require_selector(self) -> selectors.BaseSelector:
        return cast(selectors.BaseSelector, self._selector)

    def _clients_of(self, vhost: VHost) -> list[_Client]:
        return [
            client
            for client in self._clients.values()
            if client.session.is_open and client.session.vhost is vhost
        ]

    # Holding up publishers

    @property
    def _blocks(self) -> bool:
        return self._block_reason is not None or self._is_short_of_memory

    def _is_held_up(self, client: _Client) -> bool:
        return self._blocks and client.session.is_publisher

    def _apply_block(self) -> None:
        for client in list(self._clients.values()):
            if self._blocks and client.session.is_publisher:
                client.session.block(self._block_reason or "low on memory")
            elif not self._blocks:
                client.heard = self._now
                client.session.unblock()
            self._watch(client)

    # Ending

    def _begin_stop(self) -> None:
        if self._is_stopping:
            return
        self._is_stopping = True
        self._leave_at = self._now + _GOODBYE_SECONDS
        self._close_listener()
        for client in list(self._clients.values()):
            client.session.close(320, "broker forced connection closure with reason 'shutdown'")
            self._write(client)

    def _close_listener(self) -> None:
        with self._lock:
            listener, self._listener = self._listener, None
        if listener is not None:
            self._require_selector().unregister(listener)
            listener.close()

    def _end(self) -> None:
        self._close_listener()
        for client in list(self._clients.values()):
            _guard(partial(self._forget, client))
        with self._lock:
            self._is_running = False
            self._thread = None
            selector, self._selector = self._selector, None
            bell, self._bell = self._bell, None
        if selector is not None:
            for key in list(selector.get_map().values()):
                cast(socket.socket, key.fileobj).close()
            selector.close()
        if bell is not None:
            bell.close()
        while self._calls:  # whoever waits for one of these learns that it is over
            _guard(self._calls.popleft())
        self._timers.clear()


def _guard(call: Callable[[], object]) -> None:
    """Call, and log a fault of ours, which must not end the loop that serves everybody."""
    try:
        call()
    except Exception:
        _log.exception("a fault in the broker")
