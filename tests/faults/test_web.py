"""Clients that mean ill, against a web server with real sockets; whoever means well is served."""

import contextlib
import json
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.timing import TIMEOUT
from tests.web.client import RawClient, ask, meet
from tests.web.conftest import find_server
from tests.web.shapes import CHUNKED, POST
from tests.web.test_sockets import BAD_FRAMES, frame, read_frame
from tests.web.test_websocket import BAD_HANDSHAKES, BAD_MESSAGES, HANDSHAKE, Chat
from threadko.web.handlers import http

WORKERS = 3


class Service:
    """Counts the workers that ran; `/meet` answers when as many requests are there as workers."""

    name = "target"
    runs = 0
    meeting = threading.Barrier(WORKERS)

    @http("GET,POST", "/echo")
    def echo(self, request: Any) -> bytes:
        Service.runs += 1
        return bytes(request.get_data())

    @http("GET", "/files/<path:name>")
    def read(self, request: Any, name: str) -> str:
        return f"file {name}"

    @http("GET", "/meet")
    def meet(self, request: Any) -> str:
        self.meeting.wait(TIMEOUT)
        return "met"


class Target(Chat):
    """The chat of the websocket's own tests, and a meeting."""

    name = "chat"
    meeting = threading.Barrier(WORKERS)

    @http("GET", "/meet")
    def meet(self, request: Any) -> str:
        self.meeting.wait(TIMEOUT)
        return "met"


@pytest.fixture
def serve(container_factory: Any) -> Callable[..., Any]:
    """Start a service; returns its address."""

    def serve(service_cls: type, **config: Any) -> Any:
        values = {"WEB_SERVER_ADDRESS": "127.0.0.1:0", "max_workers": WORKERS, **config}
        container = container_factory(service_cls, config=values)
        container.start()
        return find_server(container).bind_addr

    return serve


@pytest.fixture
def connect() -> Iterator[Callable[[Any], RawClient]]:
    with contextlib.ExitStack() as stack:
        yield lambda address: stack.enter_context(RawClient(address))


def get_status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


@pytest.mark.parametrize(
    ("start", "more"),
    [
        (b"GE", b"T"),
        (b"GET /echo HTTP/1.1\r\nHost: a\r\nX: ", b"x"),
        (POST + b"Content-Length: 10000\r\n\r\n", b"x"),
        (CHUNKED, b"1\r\nx\r\n"),
        (CHUNKED + b"5;", b"x"),
        (CHUNKED + b"0\r\nX: ", b"x"),
    ],
    ids=["line", "header", "body", "chunks", "extension", "trailer"],
)
def test_trickling_client_is_cut_off_and_no_worker_runs_for_it(
    serve: Any, connect: Any, start: bytes, more: bytes
) -> None:
    address = serve(Service, HTTP_REQUEST_TIMEOUT=TIMEOUT / 40)
    before = Service.runs
    clients = [connect(address) for _ in range(10)]
    for client in clients:
        client.send(start)
    pause, served = threading.Event(), 0
    trickled = dict.fromkeys(clients, True)
    while any(trickled.values()):  # each byte comes long before the deadline
        for client in clients:
            with contextlib.suppress(ConnectionError):
                client.send(more)
            client.sock.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                chunk = client.receive()
                client.rest += chunk
                trickled[client] = bool(chunk)
            client.sock.settimeout(TIMEOUT)
        meet(address, WORKERS)
        served += 1
        pause.wait(0.01)
    for client in clients:
        assert client.rest == b"" or get_status(client.rest) in (400, 408, 413, 431)
    assert any(b" 408 " in client.rest for client in clients)
    assert served > 1
    assert Service.runs == before


def test_limits_hold_to_the_byte(serve: Any) -> None:
    address = serve(Service, HTTP_MAX_HEADER_SIZE=2000, HTTP_MAX_BODY_SIZE=1000)

    def of_header(size: int) -> bytes:
        head = b"GET /echo HTTP/1.1\r\nHost: a\r\nX: "
        return head + b"x" * (size - len(head) - 4) + b"\r\n\r\n"

    def of_target(size: int) -> bytes:
        rest = b" HTTP/1.1\r\nHost: a\r\n\r\n"
        return b"GET /echo?" + b"x" * (size - len(rest) - 10) + rest

    def of_body(size: int) -> bytes:
        return POST + b"Content-Length: %d\r\n\r\n" % size + b"x" * size

    def of_chunks(size: int) -> bytes:
        return (
            CHUNKED + b"1\r\nx\r\n" + b"%x\r\n" % (size - 1) + b"x" * (size - 1) + b"\r\n0\r\n\r\n"
        )

    def of_headers(count: int) -> bytes:
        return b"GET /echo HTTP/1.1\r\nHost: a\r\n" + b"X:x\r\n" * (count - 1) + b"\r\n"

    for make, limit, status in [
        (of_header, 2000, 431),
        (of_target, 2000, 431),
        (of_body, 1000, 413),
        (of_chunks, 1000, 413),
        (of_headers, 100, 431),
    ]:
        for size, expected in [(limit - 1, 200), (limit, 200), (limit + 1, status)]:
            answer = ask(address, make(size))
            assert get_status(answer) == expected, (make.__name__, size)
            assert (b"Connection: close" in answer) or expected == 200
    # A target so long that no header can follow it.
    assert get_status(ask(address, b"GET /" + b"x" * 3000)) == 414


@pytest.mark.parametrize(
    ("target", "status", "body"),
    [
        (b"/../../../../etc/passwd", 404, None),
        (b"/files/../../../../etc/passwd", 200, b"file ../../../../etc/passwd"),
        (b"/files/%2e%2e/%2e%2e/etc/passwd", 200, b"file ../../etc/passwd"),
        (b"/files/..%2f..%2fetc%2fpasswd", 200, b"file ../../etc/passwd"),
        (b"/files/%252e%252e/etc/passwd", 200, b"file %2e%2e/etc/passwd"),
        (b"/files/..\\..\\etc\\passwd", 200, b"file ..\\..\\etc\\passwd"),
        (b"//etc/passwd", 404, None),
        (b"/etc/passwd", 404, None),
        (b"file:///etc/passwd", 400, None),
        (b"/files/a%00.txt", 400, None),
        (b"/files/%0d%0aX:y", 400, None),
        (b"/files/\xff\xfe", 200, "file \ufffd\ufffd".encode()),
        (b"/files/%ff%c3%28", 200, "file \ufffd\ufffd(".encode()),
        (b"/files/%c0%ae%c0%ae/", 200, "file \ufffd\ufffd\ufffd\ufffd/".encode()),
        (b"/files/%zz%", 200, b"file %zz%"),
    ],
)
def test_path_is_a_text_for_a_route_and_never_a_file(
    serve: Any, target: bytes, status: int, body: bytes | None
) -> None:
    address = serve(Service)
    answer = ask(address, b"GET %s HTTP/1.1\r\nHost: a\r\n\r\n" % target)
    assert get_status(answer) == status
    assert b"root:" not in answer
    if body is not None:
        assert answer.endswith(b"\r\n\r\n" + body)


class Open:
    """A websocket by hand."""

    def __init__(self, client: RawClient) -> None:
        self.client = client
        client.send(HANDSHAKE % (b"GET", b"1.1", b""))
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            byte = client.sock.recv(1)
            assert byte, head
            head += byte
        assert head.startswith(b"HTTP/1.1 101 ")
        self.read()  # the greeting

    def read(self) -> Any:
        while True:
            opcode, payload = read_frame(self.client.sock)
            if opcode == 9:
                self.client.send(frame(payload, opcode=10))
                continue
            assert opcode == 1, (opcode, payload)
            return json.loads(payload)

    def call(self) -> Any:
        request = {"method": "join", "data": {"channel": "a"}, "correlation_id": 1}
        self.client.send(frame(json.dumps(request).encode()))
        return self.read()


def test_bad_websocket_input_is_answered_or_closed_with_its_code(
    serve: Any, connect: Any, caplog: Any, figure: Callable[[str, str], None]
) -> None:
    address = serve(Target, WEBSOCKET_MAX_SIZE=1000)
    bystander = Open(connect(address))
    before = sorted(thread.name for thread in threading.enumerate())
    for method, version, header, status in BAD_HANDSHAKES:
        client = connect(address)
        client.send(HANDSHAKE % (method, version, header))
        assert get_status(client.receive()) == status
    for data, codes in BAD_FRAMES:
        client = connect(address)
        Open(client)
        client.send(data)
        opcode, payload = read_frame(client.sock)
        assert opcode == 8
        assert struct.unpack(">H", payload[:2])[0] in (
            codes if isinstance(codes, tuple) else [codes]
        )
        assert read_frame(client.sock) is None
    # Two of them are sound, and fail in the service.
    mistakes = ("MalformedRequest", "MethodNotFound", "IncorrectSignature")
    messages = [text for text, kind, _ in BAD_MESSAGES if len(text) <= 1000 and kind in mistakes]
    opened = Open(connect(address))
    for text in messages:
        is_text = isinstance(text, str)
        opened.client.send(frame(text.encode() if is_text else text, opcode=1 if is_text else 2))
        assert opened.read()["success"] is False
        assert opened.call()["success"] is True
    assert bystander.call()["success"] is True
    assert (
        sorted(thread.name for thread in threading.enumerate() if thread.name in before) == before
    )
    meet(address, WORKERS)
    assert "Traceback" not in caplog.text
    count = len(BAD_HANDSHAKES) + len(BAD_FRAMES) + len(messages)
    assert count >= 15
    figure("websocket", f"{count}, each answered or closed with its code, no thread lost")
