"""A broker that is only a socket: it agrees to everything, and says what the test makes it say.

``FakeBroker`` listens on loopback and speaks the handshake by the frames of ``pika.spec``. What is
declared, bound or consumed is answered with Ok; publishes are confirmed and kept. What goes down to
the client is written by the test, in the pieces of its choosing. One thread per connection reads
and answers; everything else may be called from any thread.
"""

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, NamedTuple

from pika import frame, spec

from tests.support.frames import content, shortstr
from tests.support.timing import TIMEOUT

__all__ = ["FakeBroker", "FakeConnection", "Published", "deliver"]

_START = spec.Connection.Start(
    server_properties={
        "product": "a socket",
        "capabilities": {
            "publisher_confirms": True,
            "basic.nack": True,
            "consumer_cancel_notify": True,
            "connection.blocked": True,
        },
    },
    mechanisms="PLAIN",
    locales="en_US",
)

_ANSWERS: dict[type, Callable[[Any], Any]] = {
    spec.Channel.Open: lambda _: spec.Channel.OpenOk(),
    spec.Channel.Close: lambda _: spec.Channel.CloseOk(),
    spec.Connection.Open: lambda _: spec.Connection.OpenOk(),
    spec.Connection.Close: lambda _: spec.Connection.CloseOk(),
    spec.Exchange.Declare: lambda _: spec.Exchange.DeclareOk(),
    spec.Queue.Declare: lambda method: spec.Queue.DeclareOk(method.queue, 0, 0),
    spec.Queue.Bind: lambda _: spec.Queue.BindOk(),
    spec.Basic.Qos: lambda _: spec.Basic.QosOk(),
    spec.Basic.Consume: lambda method: spec.Basic.ConsumeOk(method.consumer_tag),
    spec.Basic.Cancel: lambda method: spec.Basic.CancelOk(method.consumer_tag),
    spec.Confirm.Select: lambda _: spec.Confirm.SelectOk(),
}


class Published(NamedTuple):
    """A message that a client has sent, its properties as pika reads them."""

    channel: int
    exchange: str
    routing_key: str
    properties: Any
    body: bytes


def deliver(
    channel: int,
    tag: int,
    header: bytes,
    body: bytes,
    *,
    routing_key: bytes = b"",
    step: int = 100_000,
) -> bytes:
    """The frames of a delivery, its body in frames of ``step`` bytes."""
    arguments = struct.pack(">HH", 60, 60) + shortstr(b"consumer") + struct.pack(">QB", tag, 0)
    arguments += shortstr(b"exchange") + shortstr(routing_key)
    method = struct.pack(">BHI", 1, channel, len(arguments)) + arguments + b"\xce"
    return method + content(channel, header, body, step=step)


class FakeConnection:
    """One client's connection."""

    def __init__(self, broker: "FakeBroker", sock: socket.socket) -> None:
        self._broker = broker
        self._socket = sock
        self._rest = b""
        self._publishing: dict[int, list[Any]] = {}  # by channel: method, header, body so far
        self._tags: dict[int, int] = {}
        self._lock = threading.RLock()  # serialises sends: an answer stands between whole frames

    def send(self, data: bytes) -> None:
        """Send bytes to the client, as they are."""
        with self._lock:
            self._socket.sendall(data)

    def send_in_pieces(self, data: bytes, sizes: Iterable[int]) -> None:
        """Send bytes in segments of these sizes, and the rest in one."""
        with self._lock:
            at = 0
            for size in sizes:
                self._socket.sendall(data[at : at + size])
                at += size
            self._socket.sendall(data[at:])

    def close(self) -> None:
        """Hang up."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def run(self) -> None:
        """Read to the end, on the thread of this connection."""
        with contextlib.suppress(OSError):
            self._take(8)  # the protocol header
            self._answer(0, _START)
            while True:
                self._on_frame(self._read_frame())

    def _take(self, count: int) -> bytes:
        while len(self._rest) < count:
            data = self._socket.recv(1 << 16)
            if not data:
                raise OSError("the client has hung up")
            self._rest += data
        taken, self._rest = self._rest[:count], self._rest[count:]
        return taken

    def _read_frame(self) -> Any:
        start = self._take(7)
        (length,) = struct.unpack_from(">I", start, 3)
        _, value = frame.decode_frame(start + self._take(length + 1))
        return value

    def _answer(self, channel: int, method: Any) -> None:
        self.send(frame.Method(channel, method).marshal())

    def _on_frame(self, value: Any) -> None:
        number = value.channel_number
        if isinstance(value, frame.Method):
            self._on_method(number, value.method)
        elif isinstance(value, frame.Header):
            self._publishing[number][1:] = [value, b""]
            self._check_complete(number)
        elif isinstance(value, frame.Body):
            self._publishing[number][2] += value.fragment
            self._check_complete(number)

    def _on_method(self, number: int, method: Any) -> None:
        if isinstance(method, spec.Connection.StartOk):
            self._answer(0, spec.Connection.Tune(2047, self._broker.frame_max, 60))
        elif isinstance(method, spec.Basic.Publish):
            self._publishing[number] = [method]
        elif isinstance(method, spec.Basic.Ack | spec.Basic.Reject):
            self._broker.note_settled(type(method), number, method.delivery_tag)
        elif self._broker.is_mute(number, method):
            self._broker.note_asked(method)
        elif isinstance(method, spec.Queue.Declare) and method.passive:
            counts = self._broker.count(self, method.queue)
            self._answer(number, spec.Queue.DeclareOk(method.queue, *counts))
            self._broker.note_asked(method)
        elif type(method) in _ANSWERS:
            self._answer(number, _ANSWERS[type(method)](method))
            if isinstance(method, spec.Basic.Consume):
                self._broker.note_consumer(self, number)

    def _check_complete(self, number: int) -> None:
        method, header, body = self._publishing[number]
        if len(body) < header.body_size:
            return
        del self._publishing[number]
        tag = self._tags[number] = self._tags.get(number, 0) + 1
        published = Published(number, method.exchange, method.routing_key, header.properties, body)
        self._broker.note_published(self, published)
        if self._broker.confirms:
            self._answer(number, spec.Basic.Ack(tag))


class FakeBroker:
    """Listens on a free port of loopback; a context manager.

    Args:
        frame_max: what is asked of clients, in bytes.
        confirms: whether publishes are confirmed.
        on_published: called with the connection and the message, on the connection's thread,
            before its confirm.
        count: the messages and the consumers that a passive declaration of a queue is answered
            with; called with the connection and the name, on the connection's thread.
        is_mute: whether a method (its channel and itself) gets no answer, ever.
    """

    def __init__(
        self,
        *,
        frame_max: int = 131_072,
        confirms: bool = True,
        on_published: Callable[[FakeConnection, Published], None] | None = None,
        count: Callable[[FakeConnection, str], tuple[int, int]] = lambda _connection, _name: (0, 0),
        is_mute: Callable[[int, Any], bool] = lambda _channel, _method: False,
    ) -> None:
        self.frame_max = frame_max
        self.confirms = confirms
        self.count = count
        self.is_mute = is_mute
        self._on_published = on_published
        self._changed = threading.Condition()  # guards the lists
        self.accepted = 0
        self.publishes: list[Published] = []
        self.asked: list[Any] = []  # passive declarations, and methods that got no answer
        self.settled: list[tuple[type, int, int]] = []  # Ack or Reject, channel, delivery tag
        self._consumers: list[tuple[FakeConnection, int]] = []
        self._connections: list[FakeConnection] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.uri = f"amqp://guest:guest@127.0.0.1:{self._listener.getsockname()[1]}/"
        self._threads = [threading.Thread(target=self._accept, name="fake-broker", daemon=True)]
        self._threads[0].start()

    def wait_for(self, predicate: Callable[[], bool], timeout: float = TIMEOUT) -> None:
        """Wait until the predicate, asked after each change, holds; else TimeoutError."""
        with self._changed:
            if not self._changed.wait_for(predicate, timeout):
                raise TimeoutError(f"not within {timeout} s")

    def wait_consumer(self, number: int = 1) -> FakeConnection:
        """Wait until so many have come to consume; returns the connection of the last."""
        self.wait_for(lambda: len(self._consumers) >= number)
        return self._consumers[number - 1][0]

    def note_consumer(self, connection: FakeConnection, channel: int) -> None:
        with self._changed:
            self._consumers.append((connection, channel))
            self._changed.notify_all()

    def note_asked(self, method: Any) -> None:
        with self._changed:
            self.asked.append(method)
            self._changed.notify_all()

    def note_published(self, connection: FakeConnection, published: Published) -> None:
        if self._on_published is not None:
            self._on_published(connection, published)
        with self._changed:
            self.publishes.append(published)
            self._changed.notify_all()

    def note_settled(self, method: type, channel: int, tag: int) -> None:
        with self._changed:
            self.settled.append((method, channel, tag))
            self._changed.notify_all()

    def close(self) -> None:
        """Hang up on all, and end."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._connections:
            connection.close()
        for thread in self._threads:
            thread.join(TIMEOUT)

    def __enter__(self) -> "FakeBroker":
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connection = FakeConnection(self, sock)
                self._connections.append(connection)
                with self._changed:
                    self.accepted += 1
                    self._changed.notify_all()
                thread = threading.Thread(target=connection.run, name="fake-broker", daemon=True)
                self._threads.append(thread)
                thread.start()
