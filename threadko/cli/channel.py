"""Messages between `threadko run` and its child processes: JSON, and open sockets along with it.

Threads that meet here: any may `send`, which only queues; one thread writes, one reads and calls
`on_message` and, when the other side is gone, `on_end`. Neither may block for long.
"""

import array
import contextlib
import json
import logging
import os
import queue
import socket
from collections.abc import Callable, Mapping
from typing import Any

from threadko.concurrency.threads import start_thread, thread_name

__all__ = ["Channel"]

_log = logging.getLogger(__name__)

_MOST_DESCRIPTORS = 16

Message = Mapping[str, Any]


class Channel:
    """One end of a pair of connected unix sockets; it closes the socket when it ends.

    Args:
        sock: of the type SOCK_STREAM.
        on_message: called with each message, and with the descriptor that came along or None.
        on_end: called once.
    """

    def __init__(
        self,
        sock: socket.socket,
        *,
        on_message: Callable[[Message, int | None], object],
        on_end: Callable[[], object],
    ) -> None:
        self._socket = sock
        self._on_message = on_message
        self._on_end = on_end
        self._outbox: queue.SimpleQueue[tuple[bytes, int | None] | None] = queue.SimpleQueue()

    def start(self) -> None:
        """Begin to read and to write."""
        start_thread(self._write, thread_name("process", "orders-out"))
        start_thread(self._read, thread_name("process", "orders-in"))

    def send(self, message: Message, descriptor: int | None = None) -> None:
        """Send a message, and a copy of a descriptor; lost without a word if nobody reads it."""
        has_descriptor = descriptor is not None
        line = json.dumps({**message, "descriptor": has_descriptor}).encode() + b"\n"
        self._outbox.put((line, os.dup(descriptor) if descriptor is not None else None))

    def close(self) -> None:
        """End: what was sent before is still written."""
        self._outbox.put(None)

    def _write(self) -> None:
        while (item := self._outbox.get()) is not None:
            line, descriptor = item
            try:
                # Of a line that goes out in parts, the first has the descriptor.
                sent = 0
                if descriptor is not None:
                    sent = self._send_with(line, descriptor)
                self._socket.sendall(line[sent:])
            except OSError:
                pass  # the reader finds out
            finally:
                if descriptor is not None:
                    os.close(descriptor)
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(queue.Empty):
            while True:
                left = self._outbox.get_nowait()
                if left is not None and left[1] is not None:
                    os.close(left[1])

    def _send_with(self, line: bytes, descriptor: int) -> int:
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))
        return self._socket.sendmsg([line], [rights])

    def _read(self) -> None:
        rest = b""
        descriptors: list[int] = []
        try:
            while True:
                data, arrived, _, _ = socket.recv_fds(self._socket, 65536, _MOST_DESCRIPTORS)
                descriptors.extend(arrived)
                if not data:
                    break
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    message = json.loads(line)
                    descriptor = descriptors.pop(0) if message.pop("descriptor") else None
                    self._on_message(message, descriptor)
        except OSError:
            pass
        except Exception:
            _log.exception("the other process wrote what cannot be read")
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
            self._outbox.put(None)
            try:
                self._on_end()
            finally:
                self._socket.close()
