"""A client that hides nothing: exact frames out, exact frames in."""

import socket
import struct
import urllib.parse
from typing import Any

import pika.frame
from pika import spec

from tests.support.timing import TIMEOUT

__all__ = ["CLOSED", "Wire"]

HEADER = b"AMQP\x00\x00\x09\x01"

#: What `read` returns when the broker has closed the connection.
CLOSED = None


class Wire:
    """One connection, driven by hand; a context manager."""

    def __init__(self, uri: str) -> None:
        parts = urllib.parse.urlsplit(uri)
        self.user = parts.username or "guest"
        self.password = parts.password or "guest"
        self.vhost = urllib.parse.unquote(parts.path[1:]) or "/"
        self.sock = socket.create_connection((parts.hostname, parts.port or 5672), TIMEOUT)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = b""

    def __enter__(self) -> "Wire":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.sock.sendall(data)

    def call(self, channel: int, method: Any) -> None:
        """Send one method."""
        self.send(pika.frame.Method(channel, method).marshal())

    def frame(self, kind: int, channel: int, payload: bytes) -> None:
        """Send one frame of any kind."""
        self.send(struct.pack(">BHI", kind, channel, len(payload)) + payload + b"\xce")

    def publish(self, channel: int, key: str, body: bytes, exchange: str = "") -> None:
        """Send a message without properties."""
        self.call(channel, spec.Basic.Publish(exchange=exchange, routing_key=key))
        self.frame(2, channel, struct.pack(">HHQH", 60, 0, len(body), 0))
        if body:
            self.frame(3, channel, body)

    def read_raw(self) -> tuple[int, int, bytes] | None:
        """Return the next frame's type, channel and payload; None at the end."""
        while True:
            if len(self._buffer) >= 8:
                if self._buffer[:4] == b"AMQP":
                    raw, self._buffer = self._buffer[:8], self._buffer[8:]
                    return 65, 0, raw
                kind, channel, size = struct.unpack_from(">BHI", self._buffer)
                if len(self._buffer) >= size + 8:
                    payload = self._buffer[7 : size + 7]
                    self._buffer = self._buffer[size + 8 :]
                    if kind != 8:
                        return kind, channel, payload
                    continue
            try:
                data = self.sock.recv(65536)
            except ConnectionResetError:
                data = b""
            if not data:
                return CLOSED
            self._buffer += data

    def read(self) -> Any:
        """Return the next method; None when the broker has closed the connection."""
        frame = self.read_raw()
        if frame is CLOSED:
            return CLOSED
        kind, _, payload = frame
        assert kind == 1, f"a frame of type {kind}"
        (number,) = struct.unpack_from(">I", payload)
        method = spec.methods[number]()
        method.decode(payload, 4)
        return method

    def start(self, **options: Any) -> "Wire":
        """Shake hands, up to an open connection."""
        self.login(**options)
        tune = self.read()
        self.call(0, spec.Connection.TuneOk(tune.channel_max, options.get("frame_max", 131072), 0))
        self.call(0, spec.Connection.Open(virtual_host=self.vhost))
        assert isinstance(self.read(), spec.Connection.OpenOk)
        return self

    def login(
        self,
        mechanism: str = "PLAIN",
        response: Any = None,
        capabilities: dict[str, bool] | None = None,
        **ignored: Any,
    ) -> Any:
        """Send the protocol header and a login; return the broker's connection.start."""
        self.send(HEADER)
        start = self.read()
        assert isinstance(start, spec.Connection.Start)
        given = f"\0{self.user}\0{self.password}" if response is None else response
        properties = {"capabilities": capabilities or {}}
        self.call(
            0,
            spec.Connection.StartOk(
                client_properties=properties, mechanism=mechanism, response=given, locale="en_US"
            ),
        )
        return start

    def open(self, number: int = 1) -> "Wire":
        """Open a channel."""
        self.call(number, spec.Channel.Open())
        assert isinstance(self.read(), spec.Channel.OpenOk)
        return self
