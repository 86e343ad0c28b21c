"""Raw HTTP for tests: bytes out, responses in."""

import contextlib
import socket

from websockets.client import ClientProtocol
from websockets.frames import Frame
from websockets.uri import parse_uri

from tests.support.timing import TIMEOUT


class RawClient:
    """One connection that sends what no honest client would."""

    def __init__(self, address):
        self.sock = socket.create_connection(tuple(address), timeout=TIMEOUT)
        self.rest = b""

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.sock.close()

    def send(self, data):
        self.sock.sendall(data)

    def receive(self):
        """Return what comes next, b"" at the end (a reset is an end too)."""
        try:
            return self.sock.recv(65536)
        except ConnectionError:
            return b""

    def read_to_end(self):
        data = self.rest
        while chunk := self.receive():
            data += chunk
        return data

    def read_response(self):
        """Return the status and the body of the next response, which has a Content-Length."""
        while b"\r\n\r\n" not in self.rest:
            chunk = self.receive()
            assert chunk, f"closed after {self.rest!r}"
            self.rest += chunk
        head, _, body = self.rest.partition(b"\r\n\r\n")
        length = 0
        for line in head.split(b"\r\n")[1:]:
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        while len(body) < length:
            chunk = self.receive()
            assert chunk, "closed within a body"
            body += chunk
        self.rest = body[length:]
        return int(head.split(b" ")[1]), body[:length]


class TlsWebSocket:
    """A websocket over TLS that one thread reads and writes.

    The library's own client does both in two, which OpenSSL does not bear: one in 500 of its
    connections waits for ever for the answer to its handshake, whoever serves.
    """

    def __init__(self, address, path, context):
        sock = socket.create_connection(tuple(address), timeout=TIMEOUT)
        # That the other side ends TLS as it should is no matter of course.
        self.sock = context.wrap_socket(
            sock, server_hostname=address[0], suppress_ragged_eofs=False
        )
        self.protocol = ClientProtocol(parse_uri(f"wss://{address}{path}"))
        self.protocol.send_request(self.protocol.connect())
        self.events = []
        self.receive()

    def send(self, text):
        self.protocol.send_text(text.encode())
        self._flush()

    def receive(self):
        """Return the next message, or the response of the handshake."""
        text = b""
        while True:
            event = self._next_event()
            if not isinstance(event, Frame):
                return event
            text += event.data
            if event.fin:
                return text.decode()

    def close(self):
        """Say good-bye, and return what is heard until the other side closes the connection."""
        self.protocol.send_close(1000)
        self._flush()
        while data := self.sock.recv(65536):
            self.protocol.receive_data(data)
        self.protocol.receive_eof()
        return self.protocol.close_code

    def _next_event(self):
        self._flush()
        while not self.events:
            data = self.sock.recv(65536)
            assert data, "closed"
            self.protocol.receive_data(data)
            self.events += self.protocol.events_received()
        return self.events.pop(0)

    def _flush(self):
        for data in self.protocol.data_to_send():
            if data:
                self.sock.sendall(data)


def ask(address, data):
    """Send bytes on a new connection, then nothing more; return all that comes."""
    with RawClient(address) as client:
        client.send(data)
        with contextlib.suppress(OSError):  # closed by the other side already
            client.sock.shutdown(socket.SHUT_WR)
        return client.read_to_end()


def meet(address, count):
    """Have so many requests for /meet answered, each of which waits for all others to be there.

    So many threads and workers are alive.
    """
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(RawClient(address)) for _ in range(count)]
        for client in clients:
            client.send(b"GET /meet HTTP/1.1\r\nHost: a\r\n\r\n")
        for client in clients:
            assert client.read_response() == (200, b"met")
