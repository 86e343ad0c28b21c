"""Ten thousand mutated requests, and as many mutated websocket frames, against a real listener."""

import contextlib
import json
import random
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.faults.test_web import WORKERS, Open, Service, Target
from tests.support.timing import TIMEOUT
from tests.web.client import RawClient, ask, meet
from tests.web.conftest import find_server
from tests.web.shapes import BAD, CUT, GOOD
from tests.web.test_sockets import BAD_FRAMES, frame
from tests.web.test_websocket import BAD_MESSAGES, HANDSHAKE

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

SEED = 20261128
COUNT = 10_000
CLIENTS = 4
FINE = b"GET /echo HTTP/1.1\r\nHost: a\r\n\r\n"

WORDS = [
    *(
        b"\r\n",
        b"\n",
        b"\r",
        b":",
        b" ",
        b"\t",
        b"\0",
        b"0",
        b"5",
        b"-1",
        b"ffffffff",
        b"%00",
        b"\xff",
    ),
    *(b"HTTP/1.1", b"HTTP/1.0", b"GET /echo ", b"Host: b\r\n", b"Connection: close\r\n"),
    *(b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Expect: 100-continue\r\n"),
    *(b"0\r\n\r\n", b"5\r\nhello\r\n", b"\r\n\r\n", b"x" * 3000, FINE),
]


def mutate(source: random.Random, data: bytes, words: list[bytes]) -> bytes:
    """Change a few places of it."""
    changed = bytearray(data)
    for _ in range(source.choice((1, 1, 2, 3, 8))):
        start = source.randrange(len(changed) + 1)
        end = min(len(changed), start + source.choice((1, 1, 2, 10)))
        what = source.randrange(5)
        if what == 0:
            changed[start:start] = source.choice(words)
        elif what == 1:
            changed[start:end] = source.choice(words)
        elif what == 2:
            del changed[start:end]
        elif what == 3:
            changed[start:end] = changed[start:end] * 2
        elif start < len(changed):
            changed[start] ^= 1 << source.randrange(8)
    return bytes(changed)


def read_responses(data: bytes) -> list[int]:
    """The statuses of the responses that are all there is in these bytes."""
    statuses = []
    while data:
        head, end, data = data.partition(b"\r\n\r\n")
        assert end, head
        line, *lines = head.split(b"\r\n")
        version, status, _ = line.split(b" ", 2)
        assert version == b"HTTP/1.1"
        if status == b"100":
            continue
        headers = {name.lower(): value for name, value in (each.split(b": ", 1) for each in lines)}
        length = int(headers[b"content-length"])
        assert len(data) >= length, "a response is not complete"
        data = data[length:]
        statuses.append(int(status))
        if headers.get(b"connection") == b"close":
            assert not data, "something follows the last response"
        if int(status) in (413, 414, 417, 431, 501, 505):  # 400 may be of a service
            assert not data, "something follows a refusal"
    return statuses


def spread(work: Callable[[bytes], None], cases: list[bytes]) -> None:
    """Have a few threads do the work; the first failure is raised, with its case."""

    def do(case: bytes) -> None:
        try:
            work(case)
        except BaseException as error:
            raise AssertionError(f"seed {SEED}: {case!r}") from error

    with ThreadPoolExecutor(CLIENTS) as pool:
        for _ in pool.map(do, cases):
            pass


@pytest.fixture
def target(container_factory: Any, caplog: Any) -> Any:
    """Starts a service, and finds it well in the end: with its threads, and not a word of harm."""
    started = []

    def start(service_cls: type, **config: Any) -> Any:
        values = {"WEB_SERVER_ADDRESS": "127.0.0.1:0", "max_workers": WORKERS, **config}
        container = container_factory(service_cls, config=values)
        container.start()
        address = find_server(container).bind_addr
        meet(address, WORKERS)
        started.append((container, address, threading.enumerate()))
        return address

    yield start
    for container, address, threads in started:
        meet(address, WORKERS)
        assert not container.being_killed
        # Threads come and go with the load, up to their limit.
        assert len(threading.enumerate()) < len(threads) + 30
    assert "Traceback" not in caplog.text
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


def test_mutated_requests(target: Any, figure: Callable[[str, str], None]) -> None:
    address = target(Service, HTTP_MAX_HEADER_SIZE=4096, HTTP_MAX_BODY_SIZE=1024)
    source = random.Random(SEED)
    bases = [data for data, _ in BAD] + [data for data, _ in GOOD] * 25 + CUT
    cases = []
    for _ in range(COUNT):
        data = mutate(source, source.choice(bases), WORDS)
        cases.append(data + source.choice((b"", b"", FINE, mutate(source, FINE, WORDS))))
    counted = threading.Lock()
    totals = {"answers": 0, "refusals": 0, "silent": 0}

    def send(data: bytes) -> None:
        statuses = read_responses(ask(address, data))
        # A request has a version in its line; what has none is refused, once, and that is the end.
        assert len(statuses) <= data.count(b"HTTP/") + 1
        with counted:
            totals["answers"] += len(statuses)
            totals["refusals"] += sum(status != 200 for status in statuses)
            totals["silent"] += not statuses

    spread(send, cases)
    assert totals["answers"] > totals["refusals"] > 0
    assert totals["silent"] > 0
    figure(
        "fuzz-http",
        f"{COUNT:,} (seed {SEED}): {totals['answers']:,} responses, {totals['refusals']:,} of them"
        f" refusals, {totals['silent']:,} closed; no traceback, no thread lost",
    )


def read_frames(data: bytes) -> list[tuple[int, bytes]]:
    """The frames of the server that are all there is in these bytes; each is as it has to be."""
    frames = []
    while data:
        assert data[0] in (0x81, 0x82, 0x88, 0x89, 0x8A)
        size, start = data[1], 2
        assert size < 128, "a server masks nothing"
        if size == 126:
            size, start = int.from_bytes(data[2:4], "big"), 4
        elif size == 127:
            size, start = int.from_bytes(data[2:10], "big"), 10
        assert len(data) >= start + size, "a frame is not complete"
        frames.append((data[0] & 0x0F, data[start : start + size]))
        data = data[start + size :]
    return frames


LAST = frame(
    json.dumps({"method": "join", "data": {"channel": "a"}, "correlation_id": "the last"}).encode()
)


def ask_last(address: Any, data: bytes) -> bytes:
    """Send bytes and a request behind them; return all that comes until that is answered.

    If a frame has swallowed it, more than a frame may hold makes an end.
    """
    with RawClient(address) as client:
        client.send(data + LAST)
        client.sock.settimeout(0.05)
        found = b""
        while b'"the last"' not in found:
            try:
                chunk = client.receive()
            except TimeoutError:
                client.sock.settimeout(TIMEOUT)
                with contextlib.suppress(ConnectionError):
                    client.send(b"\0" * 1200)
                continue
            if not chunk:
                return found
            found += chunk
        with contextlib.suppress(OSError):
            client.sock.shutdown(socket.SHUT_WR)
        client.sock.settimeout(TIMEOUT)
        while chunk := client.receive():
            found += chunk
        return found


def test_mutated_frames(target: Any, figure: Callable[[str, str], None]) -> None:
    address = target(Target, WEBSOCKET_MAX_SIZE=1000)
    source = random.Random(SEED)
    good = [
        {"method": "join", "data": {"channel": "a"}, "correlation_id": 1},
        {"method": "say", "data": {"channel": "b", "text": "x" * 200}},
        {"method": "leave", "data": {"channel": "a"}, "correlation_id": [None, {"a": 1.5}]},
    ]
    texts = [json.dumps(each).encode() for each in good]
    mistakes = ("MalformedRequest", "MethodNotFound", "IncorrectSignature")
    texts += [
        text.encode()
        for text, kind, _ in BAD_MESSAGES
        if kind in mistakes and isinstance(text, str)
    ]
    bases = [frame(text) for text in texts if len(text) < 1000] * 2
    bases += [frame(text, mask=b"\0\0\0\0") for text in texts if len(text) < 1000] * 2
    bases += [data for data, _ in BAD_FRAMES]
    bases += [
        frame(texts[0][:20], fin=False) + frame(texts[0][20:], opcode=0),
        frame(b"ping", opcode=9),
        frame(b"\x03\xe8bye", opcode=8),
    ]
    words = [b"\0", b"\x81", b"\x01", b"\x80", b"\x88", b"\xfe", b"\xff", b"{", b'"', b"[" * 500]
    words += [b"\xff" * 8, frame(texts[0]), frame(b"p", opcode=9)]
    hello = HANDSHAKE % (b"GET", b"1.1", b"")
    counted = threading.Lock()
    totals = {"results": 0, "closed": 0}

    def send(data: bytes) -> None:
        head, _, rest = ask_last(address, hello + data).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 ")
        assert rest.count(b'"the last"') <= 1
        frames = read_frames(rest)
        results = [payload for opcode, payload in frames if opcode in (1, 2)][1:]
        for payload in results:
            assert json.loads(payload)["type"] in ("result", "event")
        closes = [payload for opcode, payload in frames if opcode == 8]
        assert len(closes) <= 1
        assert not closes or frames[-1][0] == 8, "something follows a good-bye"
        assert not closes or closes[0][:2] != b"\x03\xf3", "an error of its own: 1011"
        with counted:
            totals["results"] += len(results)
            totals["closed"] += len(closes)

    with RawClient(address) as client:
        bystander = Open(client)
        for _ in range(10):
            cases = [mutate(source, source.choice(bases), words) for _ in range(COUNT // 10)]
            spread(send, cases)
            assert bystander.call()["success"] is True
    assert totals["results"] > 0
    assert totals["closed"] > 0
    figure(
        "fuzz-websocket",
        f"{COUNT:,} (seed {SEED}): {totals['results']:,} answers, {totals['closed']:,} closed with"
        " a code; no traceback, no thread lost",
    )
