"""A TCP proxy that fails on command: `cut`, `reset`, `hole`, `refuse`, `stall`, or by `arm` later.

One thread, `proxy-<port>`, owns all sockets. Every method may be called from any thread and has
taken effect when it returns; `wait_for` wakes whenever a counter changes. "Up" is from the client
to the target, "down" is back.
"""

import contextlib
import dataclasses
import selectors
import socket
import struct
import threading
import urllib.parse
from collections import deque
from collections.abc import Callable
from types import TracebackType

from tests.support.timing import TIMEOUT

__all__ = ["FAULTS", "Proxy"]

#: What `arm` does to a connection: it is closed, broken by an RST, or left open and never served.
FAULTS = ("cut", "reset", "strand")

#: Bytes that wait for a slow reader before the proxy stops taking more from the writer.
BUFFER_LIMIT = 1 << 18

_CHUNK = 1 << 16
_RESET = struct.pack("ii", 1, 0)  # linger for no time: close() sends RST, not FIN


@dataclasses.dataclass(eq=False)
class _Pipe:
    """One direction of one connection. Only the proxy's thread touches it."""

    direction: str
    source: socket.socket
    sink: socket.socket
    buffer: bytearray = dataclasses.field(default_factory=bytearray)
    ended: bool = False  # the source sends no more
    done: bool = False  # and the sink knows
    stranded: bool = False  # all that the source sends is swallowed, for ever


@dataclasses.dataclass(eq=False)
class _Fuse:
    """A fault that waits for bytes. Only the proxy's thread touches it."""

    fault: str
    left: int  # bytes that are forwarded before it
    burnt: threading.Event


@dataclasses.dataclass(eq=False)
class _Pair:
    """One connection through the proxy."""

    up: _Pipe
    down: _Pipe

    @property
    def sockets(self) -> tuple[socket.socket, socket.socket]:
        return self.up.source, self.up.sink


class Proxy:
    """Forwards connections on a free port of loopback to a target; a context manager.

    Counters: `connections` open now, `accepted` in all, `forwarded["up"]` and `swallowed["up"]`
    (and `"down"`) in bytes.
    """

    def __init__(self, target_host: str, target_port: int) -> None:
        self._target = (target_host, target_port)
        # guards the counters below; the proxy's thread writes them, anyone reads them
        self._changed = threading.Condition()
        self.connections = 0
        self.accepted = 0
        self.forwarded = {"up": 0, "down": 0}
        self.swallowed = {"up": 0, "down": 0}
        self._commands: deque[tuple[Callable[[], None], threading.Event]] = deque()
        self._open = True  # guarded by _commands_lock: a command put while open will be run
        self._commands_lock = threading.Lock()
        # all below: the proxy's thread only
        self._holes = {"up": False, "down": False}
        self._stalls = {"up": False, "down": False}
        self._fuses: dict[str, _Fuse] = {}
        self._pairs: list[_Pair] = []
        self._selector = selectors.DefaultSelector()
        self._bell, self._ear = socket.socketpair()
        self._bell.setblocking(False)
        self._ear.setblocking(False)
        self._selector.register(self._ear, selectors.EVENT_READ, None)
        self._listener = self._bind(0)
        self.host, self.port = self._listener.getsockname()
        self._listen()
        self._running = True
        self._thread = threading.Thread(target=self._run, name=f"proxy-{self.port}", daemon=True)
        self._thread.start()

    @classmethod
    def for_uri(cls, uri: str) -> "Proxy":
        """A proxy in front of the host and port that a URI names."""
        parts = urllib.parse.urlsplit(uri)
        assert parts.hostname is not None, f"no host in {uri}"
        return cls(parts.hostname, parts.port or 5672)

    def uri_for(self, uri: str) -> str:
        """The same URI, by way of the proxy."""
        parts = urllib.parse.urlsplit(uri)
        login, at, _ = parts.netloc.rpartition("@")
        return parts._replace(netloc=f"{login}{at}{self.host}:{self.port}").geturl()

    def cut(self) -> None:
        """Close all connections now; what is not yet forwarded is lost."""
        self._call(self._close_pairs)

    def reset(self) -> None:
        """Break all connections with an RST in both directions."""
        self._call(lambda: self._close_pairs(reset=True))

    def hole(self, up: bool = True, down: bool = True) -> None:
        """Swallow bytes, and closings too, of all connections and new ones; sockets stay open."""
        self._call(lambda: self._set_holes(up=up, down=down))

    def heal(self) -> None:
        """End `hole`; what was swallowed stays lost, closings held back are passed on."""
        self._call(lambda: self._set_holes(up=False, down=False))

    def stall(self, up: bool = True, down: bool = True) -> None:
        """Read nothing of all connections and new ones: their bytes wait, and nothing is lost."""
        self._call(lambda: self._set_stalls(up=up, down=down))

    def flow(self) -> None:
        """End `stall`."""
        self._call(lambda: self._set_stalls(up=False, down=False))

    def arm(self, direction: str, size: int, fault: str) -> threading.Event:
        """Do a fault after `size` more bytes, to the connection that carried the last of them.

        It strikes right behind that byte, in the middle of a frame or of a login, and sets the
        event that this returns. One fault is armed for each direction; the last one counts.
        """
        assert fault in FAULTS
        fuse = _Fuse(fault, size, threading.Event())
        self._call(lambda: self._fuses.update({direction: fuse}))
        return fuse.burnt

    def refuse(self) -> None:
        """Refuse new connections; those that stand go on."""
        self._call(self._stop_listening)

    def accept(self) -> None:
        """End `refuse`."""
        self._call(self._listen)

    def wait_for(self, predicate: Callable[[], bool], timeout: float = TIMEOUT) -> None:
        """Wait until the predicate, asked after each change of a counter, holds.

        Raises:
            TimeoutError: It does not hold after `timeout` seconds.
        """
        with self._changed:
            if not self._changed.wait_for(predicate, timeout):
                raise TimeoutError(f"not within {timeout} s: {self!r}")

    def close(self) -> None:
        """Close everything and end the thread; may be called twice."""
        self._call(self._stop)
        self._thread.join(TIMEOUT)
        assert not self._thread.is_alive(), f"{self!r} does not end"

    def __enter__(self) -> "Proxy":
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return (
            f"<Proxy :{self.port} connections={self.connections} accepted={self.accepted} "
            f"forwarded={self.forwarded} swallowed={self.swallowed}>"
        )

    def _call(self, command: Callable[[], None]) -> None:
        """Have the proxy's thread run a command, and wait until it has."""
        done = threading.Event()
        with self._commands_lock:
            if not self._open:
                return
            self._commands.append((command, done))
        with contextlib.suppress(BlockingIOError):  # full of rings is loud enough
            self._bell.send(b"!")
        if not done.wait(TIMEOUT):
            raise TimeoutError(f"{self!r} does not answer")

    # The rest runs on the proxy's thread, `_bind` and the first `_listen` before it starts.

    def _run(self) -> None:
        try:
            while self._running:
                for key, events in self._selector.select():
                    if key.fileobj is self._ear:
                        self._run_commands()
                    elif key.fileobj is self._listener:
                        self._accept()
                    elif key.data in self._pairs:  # else closed earlier in this turn
                        self._serve(key.data, key.fileobj, events)
        finally:
            with self._commands_lock:
                self._open = False
            self._stop()
            for _, done in self._commands:
                done.set()
            for sock in (self._listener, self._bell, self._ear):
                sock.close()
            self._selector.close()

    def _run_commands(self) -> None:
        self._ear.recv(_CHUNK)
        while self._commands:
            command, done = self._commands.popleft()
            command()
            done.set()

    def _stop(self) -> None:
        self._running = False
        self._close_pairs()

    def _bind(self, port: int) -> socket.socket:
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.setblocking(False)
        return listener

    def _listen(self) -> None:
        self._listener.listen(128)
        if self._listener not in self._selector.get_map():
            self._selector.register(self._listener, selectors.EVENT_READ, None)

    def _stop_listening(self) -> None:
        if self._listener not in self._selector.get_map():
            return
        self._selector.unregister(self._listener)
        self._listener.close()
        # bound but not listening: connects are refused, and nobody else gets the port
        self._listener = self._bind(self.port)

    def _accept(self) -> None:
        try:
            client, _ = self._listener.accept()
        except OSError:  # gone again before we came to it
            return
        try:
            server = socket.create_connection(self._target, TIMEOUT)
        except OSError:
            client.close()
            self._count(accepted=1)
            return
        for sock in (client, server):
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        pair = _Pair(_Pipe("up", client, server), _Pipe("down", server, client))
        self._pairs.append(pair)
        self._watch(pair)
        self._count(accepted=1)

    def _serve(self, pair: _Pair, sock: object, events: int) -> None:
        incoming, outgoing = pair.up, pair.down
        if sock is outgoing.source:
            incoming, outgoing = outgoing, incoming
        if events & selectors.EVENT_WRITE:
            self._write(outgoing)
        if events & selectors.EVENT_READ:
            self._read(incoming)
        self._settle(pair)

    def _read(self, pipe: _Pipe) -> None:
        try:
            data = pipe.source.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            pipe.ended = True
        elif self._holes[pipe.direction] or pipe.stranded:
            self._count(swallowed={pipe.direction: len(data)})
        else:
            self._forward(pipe, data)

    def _forward(self, pipe: _Pipe, data: bytes) -> None:
        fuse = self._fuses.get(pipe.direction)
        if fuse is None or fuse.left > len(data):
            if fuse is not None:
                fuse.left -= len(data)
            pipe.buffer += data
            self._write(pipe)
            return
        del self._fuses[pipe.direction]
        pipe.buffer += data[: fuse.left]
        self._write(pipe)
        self._strike(pipe, fuse.fault)
        fuse.burnt.set()

    def _strike(self, pipe: _Pipe, fault: str) -> None:
        [pair] = [pair for pair in self._pairs if pipe in (pair.up, pair.down)]
        if fault == "strand":
            pair.up.stranded = pair.down.stranded = True
        else:
            self._close_pair(pair, reset=fault == "reset")

    def _write(self, pipe: _Pipe) -> None:
        if not pipe.buffer:
            return
        try:
            sent = pipe.sink.send(pipe.buffer)
        except BlockingIOError:
            return
        except OSError:  # the sink is gone; its own pipe will read so
            pipe.buffer.clear()
            return
        del pipe.buffer[:sent]
        self._count(forwarded={pipe.direction: sent})

    def _settle(self, pair: _Pair) -> None:
        """Pass closings on, forget a pair that is done, and watch for what can happen next."""
        if pair not in self._pairs:  # struck by a fault meanwhile
            return
        if pair.up.ended and pair.up.stranded:  # its client has given it up
            self._close_pair(pair)
            return
        for pipe in (pair.up, pair.down):
            if self._holes[pipe.direction] or pipe.stranded:
                continue
            if pipe.ended and not pipe.done and not pipe.buffer:
                pipe.done = True
                with contextlib.suppress(OSError):
                    pipe.sink.shutdown(socket.SHUT_WR)
        if pair.up.done and pair.down.done:
            self._close_pair(pair)
        else:
            self._watch(pair)

    def _watch(self, pair: _Pair) -> None:
        for incoming, outgoing in ((pair.up, pair.down), (pair.down, pair.up)):
            sock = incoming.source
            events = 0
            is_full = len(incoming.buffer) >= BUFFER_LIMIT
            if not incoming.ended and not is_full and not self._stalls[incoming.direction]:
                events |= selectors.EVENT_READ
            if outgoing.buffer:
                events |= selectors.EVENT_WRITE
            known = sock in self._selector.get_map()
            if known and events:
                self._selector.modify(sock, events, pair)
            elif known:
                self._selector.unregister(sock)
            elif events:
                self._selector.register(sock, events, pair)

    def _set_holes(self, *, up: bool, down: bool) -> None:
        self._holes = {"up": up, "down": down}
        for pair in list(self._pairs):
            for pipe in (pair.up, pair.down):
                if self._holes[pipe.direction] and pipe.buffer:
                    self._count(swallowed={pipe.direction: len(pipe.buffer)})
                    pipe.buffer.clear()
            self._settle(pair)

    def _set_stalls(self, *, up: bool, down: bool) -> None:
        self._stalls = {"up": up, "down": down}
        for pair in list(self._pairs):
            self._settle(pair)

    def _close_pairs(self, reset: bool = False) -> None:
        for pair in list(self._pairs):
            self._close_pair(pair, reset)

    def _close_pair(self, pair: _Pair, reset: bool = False) -> None:
        self._pairs.remove(pair)
        for sock in pair.sockets:
            if sock in self._selector.get_map():
                self._selector.unregister(sock)
            if reset:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            sock.close()
        self._count()

    def _count(
        self,
        accepted: int = 0,
        forwarded: dict[str, int] | None = None,
        swallowed: dict[str, int] | None = None,
    ) -> None:
        with self._changed:
            self.connections = len(self._pairs)
            self.accepted += accepted
            for direction, size in (forwarded or {}).items():
                self.forwarded[direction] += size
            for direction, size in (swallowed or {}).items():
                self.swallowed[direction] += size
            self._changed.notify_all()
