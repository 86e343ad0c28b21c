"""The websockets of the loop, with raw frames over socket pairs."""

import contextlib
import socket
import struct
import sys
import threading
import time
from queue import SimpleQueue

import pytest
from websockets.protocol import State

from tests.support.timing import TIMEOUT, wait_until
from threadko.concurrency.deadline import Deadline
from threadko.web.sockets import MAX_UNSERVED, SocketLoop, WebSocket, shake_hands

HEADERS = [
    ("Host", "a"),
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ("Sec-WebSocket-Version", "13"),
]


def frame(payload, opcode=1, fin=True, mask=b"\1\2\3\4", flags=0, length=None):
    """Return a frame as a client sends it."""
    first = (0x80 if fin else 0) | flags | opcode
    size = len(payload) if length is None else length
    head = bytes([first, (0x80 if mask else 0) | min(size, 126)])
    if size > 0xFFFF:
        head = bytes([first, (0x80 if mask else 0) | 127]) + struct.pack(">Q", size)
    elif size > 125:
        head += struct.pack(">H", size)
    if not mask:
        return head + payload
    return head + mask + bytes(byte ^ mask[n % 4] for n, byte in enumerate(payload))


BAD_FRAMES = [
    (frame(b"x" * 1001), 1009),
    (frame(b"", length=2**64 - 1), (1002, 1009)),
    (frame(b"x" * 600, fin=False) + frame(b"x" * 600, opcode=0), 1009),
    (frame(b"\xff"), 1007),
    (frame(b"\xc3", fin=False) + frame(b"x", opcode=0), 1007),
    (frame(b"\xff", opcode=2, fin=False) + frame(b"\xff"), 1002),
    (frame(b"hello", mask=b""), 1002),
    (frame(b"hello", flags=0x40), 1002),
    (frame(b"hello", opcode=3), 1002),
    (frame(b"hello", opcode=0), 1002),
    (frame(b"p", opcode=9, fin=False), 1002),
    (frame(b"p" * 126, opcode=9), 1002),
    (frame(b"\3", opcode=8), 1002),
]


class Rig:
    """A loop, and clients at the other end of its sockets."""

    def __init__(self, **options):
        self.messages = SimpleQueue()
        self.ended = SimpleQueue()
        options = {"max_queue": 64, "ping_seconds": TIMEOUT, **options}
        self.loop = SocketLoop(
            "threadko-test-websockets", on_message=self.take, on_end=self.ended.put, **options
        )
        self.loop.start()
        self.clients = []

    def take(self, websocket):
        with websocket.lock:
            while websocket.unserved:
                self.messages.put(websocket.unserved.popleft())

    def open(self, rest=b"", max_size=1000):
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.settimeout(TIMEOUT)
        self.clients.append(theirs)
        handshake = shake_hands("/ws", HEADERS, max_size)
        handshake.accept()
        websocket = WebSocket(self.loop, ours, handshake.protocol, f"id{len(self.clients)}")
        self.loop.add(websocket, rest)
        assert read_head(theirs).startswith(b"HTTP/1.1 101 ")
        return websocket, theirs


def read_head(client):
    data = b""
    while not data.endswith(b"\r\n\r\n"):
        data += client.recv(1)
    return data


def read_frame(client):
    """Return opcode and payload of what the server sends next; None at the end."""
    head = read_exactly(client, 2)
    if head is None:
        return None
    size = head[1] & 0x7F
    if size == 126:
        (size,) = struct.unpack(">H", read_exactly(client, 2))
    elif size == 127:
        (size,) = struct.unpack(">Q", read_exactly(client, 8))
    return head[0] & 0x0F, read_exactly(client, size)


def read_exactly(client, size):
    data = b""
    while len(data) < size:
        try:
            chunk = client.recv(size - len(data))
        except ConnectionError:
            return None
        if not chunk:
            return None
        data += chunk
    return data


@pytest.fixture
def rig():
    made = Rig()
    yield made
    made.loop.abort_all()
    for client in made.clients:
        client.close()


@pytest.mark.parametrize("missing", range(1, len(HEADERS)))
def test_handshake_without_one_of_its_headers_is_refused(missing):
    handshake = shake_hands("/ws", HEADERS[:missing] + HEADERS[missing + 1 :], 1000)
    assert not handshake.accepted
    assert handshake.status in (400, 426)


def test_reader_that_was_behind_is_told_of_the_end_when_it_has_read_all(rig, monkeypatch):
    # And not at the moment at which those who do not close are broken off.
    monkeypatch.setattr("threadko.web.sockets._CLOSE_SECONDS", 1000.0)
    websocket, client = rig.open()
    while not websocket.wants_to_write:
        websocket.send("x" * 100_000)
    client.sendall(frame(b"\x03\xe8", opcode=8))
    wait_until(lambda: websocket.protocol.state is not State.OPEN)
    while (read := read_frame(client))[0] != 8:
        assert read == (1, b"x" * 100_000)
    assert read_frame(client) is None


def test_messages_go_both_ways(rig):
    websocket, client = rig.open()
    client.sendall(frame(b"hello") + frame("grüße".encode(), opcode=2))
    assert rig.messages.get(timeout=TIMEOUT) == "hello"
    assert rig.messages.get(timeout=TIMEOUT) == "grüße".encode()
    assert websocket.send("back")
    assert read_frame(client) == (1, b"back")


def test_bytes_that_came_with_the_handshake_count(rig):
    rig.open(rest=frame(b"early"))
    assert rig.messages.get(timeout=TIMEOUT) == "early"


def test_message_in_parts_with_a_ping_in_between(rig):
    _, client = rig.open()
    client.sendall(frame(b"one ", fin=False) + frame(b"p", opcode=9))
    assert read_frame(client) == (10, b"p")
    client.sendall(frame(b"message", opcode=0))
    assert rig.messages.get(timeout=TIMEOUT) == "one message"


def test_binary_message_is_bytes_whatever_they_are_and_in_however_many_parts(rig):
    _, client = rig.open()
    client.sendall(frame(b"\xff\0", opcode=2) + frame(b"text"))
    client.sendall(frame(b"\xff", opcode=2, fin=False) + frame(b"\xfe", opcode=0, fin=False))
    client.sendall(frame(b"p", opcode=9) + frame(b"", opcode=0))
    client.sendall(frame(b"", opcode=2) + frame(b"\xc3", fin=False) + frame(b"\xbc", opcode=0))
    got = [rig.messages.get(timeout=TIMEOUT) for _ in range(5)]
    assert got == [b"\xff\0", "text", b"\xff\xfe", b"", "ü"]
    assert [type(each) for each in got] == [bytes, str, bytes, bytes, str]


@pytest.mark.parametrize(("data", "code"), BAD_FRAMES)
def test_bad_frames_close_with_their_code(rig, data, code):
    _, client = rig.open()
    _, other = rig.open()
    client.sendall(data)
    opcode, payload = read_frame(client)
    assert opcode == 8
    codes = code if isinstance(code, tuple) else (code,)
    assert struct.unpack(">H", payload[:2])[0] in codes
    client.close()
    assert rig.ended.get(timeout=TIMEOUT).socket_id == "id1"
    other.sendall(frame(b"unharmed"))
    assert rig.messages.get(timeout=TIMEOUT) == "unharmed"


def test_client_that_leaves_is_forgotten(rig):
    websocket, client = rig.open()
    client.close()
    assert rig.ended.get(timeout=TIMEOUT) is websocket
    assert not websocket.send("nobody hears this")


def test_close_of_the_client_is_answered(rig):
    websocket, client = rig.open()
    client.sendall(frame(struct.pack(">H", 1000), opcode=8))
    assert read_frame(client) == (8, struct.pack(">H", 1000))
    assert read_frame(client) is None
    client.close()
    assert rig.ended.get(timeout=TIMEOUT) is websocket


def test_reader_that_never_reads_is_cut_off_and_hurts_nobody(rig, caplog):
    slow, _ = rig.open()
    fast, client = rig.open()
    sent = 0
    while slow.send("x" * 10_000):
        sent += 1
        assert sent < 10_000
    assert fast.send("unharmed")
    assert read_frame(client) == (1, b"unharmed")
    assert rig.ended.get(timeout=TIMEOUT) is slow
    assert "websocket id1 does not keep up" in caplog.text


def test_reader_that_catches_up_gets_all_in_order(rig):
    websocket, client = rig.open()
    for number in range(60):
        assert websocket.send(f"{number} " + "x" * 20_000)
    for number in range(60):
        opcode, payload = read_frame(client)
        assert (opcode, payload.split()[0]) == (1, str(number).encode())


def test_frames_of_many_threads_do_not_mix(rig):
    websocket, client = rig.open()
    barrier = threading.Barrier(4)

    def send(letter):
        barrier.wait(TIMEOUT)
        for _ in range(10):
            websocket.send(letter * 5000)

    senders = [threading.Thread(target=send, args=(letter,)) for letter in "abcd"]
    for sender in senders:
        sender.start()
    payloads = [read_frame(client)[1] for _ in range(40)]
    for sender in senders:
        sender.join(TIMEOUT)
    assert sorted(payloads) == sorted(
        letter.encode() * 5000 for letter in "abcd" for _ in range(10)
    )


def test_silent_client_is_pinged_then_cut_off(rig):
    websocket, client = rig.open()
    websocket.look(websocket.heard + TIMEOUT, TIMEOUT)
    assert read_frame(client) == (9, b"")
    client.sendall(frame(b"", opcode=10))
    wait_until(lambda: not websocket.pinged)
    heard = websocket.heard
    websocket.look(heard + TIMEOUT, TIMEOUT)
    assert read_frame(client) == (9, b"")
    websocket.look(heard + 2 * TIMEOUT, TIMEOUT)
    assert read_frame(client) is None
    assert rig.ended.get(timeout=TIMEOUT) is websocket


def test_loop_looks_at_its_sockets_by_itself():
    rig = Rig(ping_seconds=0.1)
    websocket, client = rig.open()
    assert rig.ended.get(timeout=TIMEOUT) is websocket
    rig.loop.abort_all()
    client.close()


def test_client_whose_messages_we_do_not_read_is_not_silent():
    rig = Rig()
    rig.loop._on_message = lambda websocket: None  # a worker is at the first of them
    websocket, client = rig.open()
    client.sendall(frame(b"call") * (2 * MAX_UNSERVED))
    wait_until(lambda: len(websocket.unserved) >= MAX_UNSERVED)
    far = time.monotonic() + 1000
    websocket.look(far, TIMEOUT)
    assert not websocket.is_over
    with websocket.lock:
        websocket.unserved.clear()
    websocket.look(far + 1000, TIMEOUT)
    assert rig.ended.get(timeout=TIMEOUT) is websocket
    rig.loop.abort_all()
    client.close()


def test_stop_says_good_bye_and_does_not_wait_for_the_deaf():
    rig = Rig()
    _, client = rig.open()
    rig.open()  # deaf: it never answers
    rig.loop.close_all(Deadline(TIMEOUT / 10))
    opcode, payload = read_frame(client)
    assert (opcode, payload[:2]) == (8, struct.pack(">H", 1001))
    assert {rig.ended.get(timeout=TIMEOUT).socket_id for _ in range(2)} == {"id1", "id2"}
    for client in rig.clients:
        client.close()


def test_good_bye_is_said_even_if_the_thread_comes_too_late(rig):
    _, client = rig.open()
    rig.loop.close_all(Deadline(0))
    opcode, payload = read_frame(client)
    assert (opcode, payload[:2]) == (8, struct.pack(">H", 1001))


@pytest.mark.parametrize("is_graceful", [True, False])
def test_socket_that_is_opened_when_the_loop_has_ended_is_closed(rig, is_graceful):
    if is_graceful:
        rig.loop.close_all(Deadline(TIMEOUT))
    else:
        rig.loop.abort_all()
    ours, client = socket.socketpair()
    client.settimeout(TIMEOUT)
    rig.clients.append(client)
    ours.setblocking(False)
    handshake = shake_hands("/ws", HEADERS, 1000)  # it was under way
    handshake.accept()
    websocket = WebSocket(rig.loop, ours, handshake.protocol, "late")
    rig.loop.add(websocket, b"")
    if is_graceful:
        assert read_head(client).startswith(b"HTTP/1.1 101 ")
        assert read_frame(client) == (8, struct.pack(">H", 1001) + b"the service stops")
    assert client.recv(1) == b""
    assert rig.ended.get(timeout=TIMEOUT) is websocket


def test_client_that_asks_too_much_at_once_is_read_when_there_is_room():
    rig = Rig()
    held = SimpleQueue()
    rig.take = held.put
    rig.loop._on_message = held.put
    websocket, client = rig.open()
    client.sendall(b"".join(frame(b"%d" % number) for number in range(40)))
    held.get(timeout=TIMEOUT)
    client.sendall(frame(b"later"))
    # Not read as long as nobody serves: the message is still in the socket.
    assert "later" not in websocket.unserved
    while True:
        with websocket.lock:
            found = list(websocket.unserved)
            websocket.unserved.clear()
        if "later" in found:
            break
        rig.loop.post(websocket)
        threading.Event().wait(0.001)
    rig.loop.abort_all()
    client.close()


def test_fault_in_one_protocol_costs_only_its_socket(rig, monkeypatch):
    websocket, client = rig.open()
    _, other = rig.open()

    def fail(data):
        raise LookupError("a fault")

    monkeypatch.setattr(websocket.protocol, "receive_data", fail)
    client.sendall(frame(b"hello"))
    assert rig.ended.get(timeout=TIMEOUT) is websocket
    other.sendall(frame(b"unharmed"))
    assert rig.messages.get(timeout=TIMEOUT) == "unharmed"


def test_pings_whose_answers_are_not_read_are_no_way_to_fill_memory(rig, caplog):
    websocket, client = rig.open()
    pings = frame(b"p" * 125, opcode=9) * 400
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        for _ in range(10_000):
            client.sendall(pings)
    assert rig.ended.get(timeout=TIMEOUT) is websocket
    assert "does not keep up" in caplog.text


def test_flood_is_read_a_chunk_at_a_time():
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        client = socket.create_connection(server.getsockname(), TIMEOUT)
        ours, _ = server.accept()
    with client, ours:
        message = frame(b"x" * 500)
        client.sendall(message * 300)
        while len(ours.recv(1 << 20, socket.MSG_PEEK)) < 100_000:
            pass
        ours.setblocking(False)
        loop = SocketLoop(
            "unused", max_queue=1, ping_seconds=1, on_message=lambda _: None, on_end=lambda _: None
        )
        handshake = shake_hands("/ws", HEADERS, 1000)
        handshake.accept()
        websocket = WebSocket(loop, ours, handshake.protocol, "id")
        assert 0 < len(websocket.read()) <= 65536 // 500
        loop.start()
        loop.abort_all()


def test_empty_parts_of_a_message_are_no_way_to_fill_memory(rig):
    websocket, client = rig.open()
    client.sendall(frame(b"a", fin=False) + frame(b"", opcode=0, fin=False) * 50_000)
    client.sendall(frame(b"p", opcode=9))
    assert read_frame(client) == (10, b"p")
    with websocket.lock:
        assert sys.getsizeof(websocket._message) < 200
    client.sendall(frame(b"b", opcode=0))
    assert rig.messages.get(timeout=TIMEOUT) == "ab"


def test_socket_that_comes_after_the_end_is_closed(rig):
    rig.loop.abort_all()
    ours, theirs = socket.socketpair()
    theirs.settimeout(TIMEOUT)
    handshake = shake_hands("/ws", HEADERS, 1000)
    handshake.accept()
    websocket = WebSocket(rig.loop, ours, handshake.protocol, "late")
    rig.loop.add(websocket, b"")
    assert rig.ended.get(timeout=TIMEOUT) is websocket
    assert theirs.recv(10) == b""
    theirs.close()


def test_abort_ends_a_socket_that_is_not_read(rig):
    websocket, client = rig.open()
    websocket.abort()
    assert rig.ended.get(timeout=TIMEOUT) is websocket
    assert client.recv(10) == b""
