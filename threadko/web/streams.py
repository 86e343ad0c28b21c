"""A socket that never blocks by surprise: it reads what is there, and writes within a time.

One thread at a time reads and writes; `abort` may be called by any thread, at any time.
"""

import contextlib
import select
import socket
import ssl
from collections.abc import Callable
from typing import Final

from threadko.concurrency.deadline import Deadline

__all__ = ["Stream"]

_CHUNK: Final = 64 * 1024
_LINGER_MILLISECONDS: Final = 200
_DRAIN_SECONDS: Final = 1.0  # guessed: in all, for who sends a byte now and then
_NOT_NOW = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Stream:
    """The bytes of one connection, plain or TLS.

    Args:
        sock: a connected socket; it is made non-blocking, and belongs to the caller.
        stall_timeout: seconds for which a reader on the other side may take nothing.
    """

    def __init__(self, sock: socket.socket, stall_timeout: float) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._stall_timeout = stall_timeout
        self._unsent: list[bytes] = []
        self._unsent_size = 0
        #: Called before a write has to wait for the other side.
        self.on_wait: Callable[[], object] | None = None
        self.sent = 0

    def receive(self) -> bytes | None:
        """Return what has come, b"" at the end, None if nothing is there yet."""
        try:
            return self._sock.recv(_CHUNK)
        except _NOT_NOW:
            return None

    def has_data(self) -> bool:
        """Whether bytes are there that the socket's descriptor does not tell of."""
        return isinstance(self._sock, ssl.SSLSocket) and bool(self._sock.pending())

    def write(self, data: bytes) -> None:
        """Send bytes with the next `flush`, or now if they are many."""
        self._unsent.append(data)
        self._unsent_size += len(data)
        if self._unsent_size >= _CHUNK:
            self.flush()

    def flush(self) -> None:
        """Send all that was written.

        Raises:
            TimeoutError: the other side took nothing for too long.
            OSError: it is gone.
        """
        if not self._unsent:
            return
        data = self._unsent[0] if len(self._unsent) == 1 else b"".join(self._unsent)
        self._unsent.clear()
        self._unsent_size = 0
        view = memoryview(data)
        while view:
            try:
                count = self._sock.send(view)
            except _NOT_NOW as error:
                self._wait(error)
                continue
            self.sent += count
            view = view[count:]

    def send_if_possible(self, data: bytes) -> None:
        """Send what can be sent at once; for last words, whose loss is nobody's."""
        with contextlib.suppress(OSError, ValueError):
            self._sock.send(data)

    def drain(self, limit: int) -> None:
        """Read on for a moment after the last words, so that they are not lost by a reset."""
        with contextlib.suppress(OSError, ValueError):
            self._sock.shutdown(socket.SHUT_WR)
            poll = select.poll()
            poll.register(self._sock, select.POLLIN)
            deadline = Deadline(_DRAIN_SECONDS)
            while limit > 0 and not deadline.expired and poll.poll(_LINGER_MILLISECONDS):
                data = self._sock.recv(_CHUNK)
                if not data:
                    return
                limit -= len(data)

    def abort(self) -> None:
        """Break the connection, whoever is reading or writing."""
        # Not `SSLSocket.shutdown`, which takes TLS off first: what another thread sends in that
        # moment would leave in the clear.
        with contextlib.suppress(OSError, ValueError):
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)

    def close(self) -> None:
        """Forget what was not sent; the socket is closed by its owner."""
        self._unsent.clear()

    def _wait(self, why: OSError) -> None:
        if self.on_wait is not None:
            self.on_wait()
            self.on_wait = None
        poll = select.poll()
        wanted = select.POLLIN if isinstance(why, ssl.SSLWantReadError) else select.POLLOUT
        poll.register(self._sock, wanted)
        if not poll.poll(self._stall_timeout * 1000):
            raise TimeoutError("the client does not read its response")
