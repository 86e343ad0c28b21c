"""The listener with real sockets: those who say nothing, too many of them, TLS, descriptors."""

import concurrent.futures
import contextlib
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import httpx
import pytest
import requests
import trustme

from tests.containers.dummies import Gate, in_thread
from tests.support.timing import TIMEOUT
from tests.web.client import RawClient, ask
from tests.web.services import FINE, Echo, url
from threadko.concurrency.deadline import Deadline
from threadko.web.addresses import BindAddress, open_door
from threadko.web.handlers import http
from threadko.web.listener import HttpListener
from threadko.web.parser import Limits


def test_silent_connections_hold_no_thread_and_are_closed(serve, connect):
    _, address = serve(Echo, max_workers=1, HTTP_WAITERS=1, HTTP_IDLE_TIMEOUT=TIMEOUT / 8)
    silent = [connect(address) for _ in range(50)]
    assert requests.get(url(address), timeout=TIMEOUT).status_code == 200
    for client in silent:
        assert client.read_to_end() == b""


def test_too_many_connections_get_503(serve, connect):
    _, address = serve(Echo, HTTP_MAX_CONNECTIONS=3)
    kept = [connect(address) for _ in range(3)]
    for client in kept:
        client.send(FINE)
        assert client.read_response()[0] == 200
    answer = connect(address).read_to_end()
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"Retry-After: 1" in answer
    kept[0].sock.close()
    while not ask(address, FINE).startswith(b"HTTP/1.1 200 "):
        pass


def test_httpx_sends_in_chunks_over_kept_connections(serve):
    _, address = serve(Echo)
    with httpx.Client(base_url=f"http://{address}", timeout=TIMEOUT, trust_env=False) as client:
        for count in (0, 1, 300):
            answer = client.post("/echo", content=(b"chunk " for _ in range(count)))
            assert answer.text == "POST /echo " + "chunk " * count
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            texts = list(pool.map(lambda n: client.get(f"/echo?{n}").text, range(500)))
    assert texts == [f"GET /echo {number}" for number in range(500)]


def test_tls_and_plain_bytes_on_it(serve, connect, tmp_path):
    authority = trustme.CA()
    certificate = tmp_path / "server.pem"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(certificate)
    trusted = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(trusted)
    _, address = serve(Echo, HTTP_TLS={"certfile": str(certificate)}, HTTP_IDLE_TIMEOUT=5)
    silent = [connect(address) for _ in range(40)]  # none of which ever shakes hands
    assert silent
    session = requests.Session()
    session.trust_env = False  # a bundle in the environment would win
    session.verify = str(trusted)
    for size in (1, 100_000, 5_000_000):
        response = session.post(f"https://{address}/echo", data=b"x" * size, timeout=TIMEOUT)
        assert len(response.content) == size + len("POST /echo ")
    assert b"HTTP/1.1 200" not in ask(address, FINE)
    with pytest.raises(requests.exceptions.SSLError):
        requests.Session().get(f"https://{address}/echo", timeout=TIMEOUT)
    context = ssl.create_default_context(cafile=trusted)
    with socket.create_connection(tuple(address), TIMEOUT) as plain:
        tls = context.wrap_socket(plain, server_hostname="127.0.0.1")
        tls.sendall(FINE * 3)
        data = b""
        while data.count(b"GET /echo fine") < 3:
            data += tls.recv(65536)
        tls.close()


def test_full_pool_says_503_and_serves_again(serve):
    gate = Gate()

    class Slow:
        name = "slow"

        @http("GET", "/slow")
        def slow(self, request):
            gate.hold()
            return "done"

    _, address = serve(Slow, max_workers=1, HTTP_WAITERS=2, HTTP_QUEUE_TIMEOUT=TIMEOUT / 20)
    answers = []
    first = threading.Thread(
        target=lambda: answers.append(requests.get(url(address, "/slow"), timeout=TIMEOUT))
    )
    first.start()
    gate.wait_reached()
    waiting = [
        threading.Thread(
            target=lambda: answers.append(requests.get(url(address, "/slow"), timeout=TIMEOUT))
        )
        for _ in range(8)
    ]
    for thread in waiting:
        thread.start()
    for thread in waiting:
        thread.join(TIMEOUT)
    assert [each.status_code for each in answers] == [503] * 8
    assert {each.headers["Retry-After"] for each in answers} == {"1"}
    gate.released.set()
    first.join(TIMEOUT)
    assert answers[-1].text == "done"
    assert requests.get(url(address, "/slow"), timeout=TIMEOUT).text == "done"


STARVING = """
import resource, sys
from tests.web.services import Echo
from threadko.containers import ServiceContainer

container = ServiceContainer(Echo, config={"WEB_SERVER_ADDRESS": "127.0.0.1:0", "max_workers": 2})
container.start()
resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
print(container.entrypoints[0].server.bind_addr.port, flush=True)
sys.stdin.readline()
container.stop()
"""


def test_process_without_descriptors_waits_and_serves_again():
    process = subprocess.Popen(
        [sys.executable, "-c", STARVING],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        address = ("127.0.0.1", int(process.stdout.readline()))
        clients = [RawClient(address) for _ in range(60)]
        clients[0].send(FINE)  # those that are in are served
        assert clients[0].read_response() == (200, b"GET /echo fine")
        used = Path(f"/proc/{process.pid}/stat").read_text().split()[13:15]
        threading.Event().wait(0.5)
        spent = Path(f"/proc/{process.pid}/stat").read_text().split()[13:15]
        ticks = sum(map(int, spent)) - sum(map(int, used))
        assert ticks / os.sysconf("SC_CLK_TCK") < 0.25, "it runs in circles"
        for client in clients:
            client.sock.close()
        with RawClient(address) as client:
            client.send(FINE)
            assert client.read_response() == (200, b"GET /echo fine")
        _, errors = process.communicate("end\n", timeout=TIMEOUT)
        assert process.returncode == 0
        assert errors.count("no descriptors are left") <= 1
        assert "Traceback" not in errors
    finally:
        process.kill()
        process.communicate()


def test_waiting_counts_from_arrival_however_many_wait(serve):
    gate = Gate()

    class Slow:
        name = "slow"

        @http("GET", "/slow")
        def slow(self, request):
            gate.hold()
            return "done"

    wait = TIMEOUT / 20
    _, address = serve(Slow, max_workers=1, HTTP_WAITERS=2, HTTP_QUEUE_TIMEOUT=wait)
    request = b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n"
    with RawClient(address) as first, contextlib.ExitStack() as stack:
        first.send(request)
        gate.wait_reached()
        begun = time.monotonic()
        waiting = [stack.enter_context(RawClient(address)) for _ in range(20)]
        for client in waiting:
            client.send(request)
        assert {client.read_response()[0] for client in waiting} == {503}
        assert time.monotonic() - begun < 5 * wait  # two at a time would take ten times that
        gate.released.set()
        assert first.read_response() == (200, b"done")


@pytest.fixture
def gate():
    made = Gate()
    yield made
    made.released.set()


@pytest.fixture
def listener(gate):
    """One that answers everything, without any service."""

    def answer(environ, start_response):
        if environ["PATH_INFO"] == "/held":
            gate.hold()
        start_response("200 OK", [("Content-Length", "2")])
        return [b"ok"]

    made = HttpListener(
        open_door(BindAddress("127.0.0.1", 0), 0o600),
        answer,
        limits=Limits(1000, 1000),
        request_timeout=TIMEOUT,
        idle_timeout=TIMEOUT,
        max_connections=100,
    )
    made.threads.set_limit(2)
    made.start()
    yield made
    made.close_door(Deadline(TIMEOUT))
    made.end()


def connect_to(listener, connect, count):
    clients = [connect(listener.door.address) for _ in range(count)]
    while len(listener.waiting_connections()) < count:  # it is counted a moment before it waits
        threading.Event().wait(0.001)
    return clients


def test_clients_that_have_just_connected_are_answered_when_the_door_closes(listener, connect):
    clients = connect_to(listener, connect, 30)
    with listener.closing.calling(lambda: [each.send(FINE) for each in clients]):
        listener.close_door(Deadline(TIMEOUT))
    answers = [client.read_to_end() for client in clients]
    assert {answer[:13] for answer in answers} == {b"HTTP/1.1 200 "}


def test_clients_that_say_nothing_are_left_when_the_door_closes(listener, connect):
    [client] = connect_to(listener, connect, 1)
    listener.close_door(Deadline(TIMEOUT))
    assert client.read_to_end() == b""
    assert not listener.connections


def test_request_in_two_pieces_is_answered_when_the_door_closes_in_between(
    listener, connect, monkeypatch
):
    monkeypatch.setattr("threadko.web.connection.NEW_SECONDS", TIMEOUT)
    [client] = connect_to(listener, connect, 1)
    [connection] = listener.waiting_connections()
    communicate, half = connection.communicate, threading.Event()

    def tell_of_the_first_piece():
        keep = communicate()
        half.set()
        return keep

    connection.communicate = tell_of_the_first_piece
    head = b"POST /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 5\r\n\r\n"
    with listener.closing.calling(lambda: client.send(head)):
        closing = in_thread(partial(listener.close_door, Deadline(TIMEOUT), TIMEOUT))
        assert half.wait(TIMEOUT)
        client.send(b"hello")
        assert client.read_to_end().startswith(b"HTTP/1.1 200 ")
        assert closing.finish() is None


def test_request_that_no_worker_serves_is_answered_before_the_end(
    listener, connect, gate, monkeypatch
):
    stop, stopped = listener.threads.stop, threading.Event()
    monkeypatch.setattr(listener.threads, "stop", lambda: (stop(), stopped.set()))
    [client] = connect_to(listener, connect, 1)
    client.send(b"GET /held HTTP/1.1\r\nHost: a\r\n\r\n")
    gate.wait_reached()
    listener.close_door(Deadline(TIMEOUT))
    ending = in_thread(lambda: listener.end(TIMEOUT))
    assert stopped.wait(TIMEOUT)
    gate.released.set()
    assert client.read_to_end().endswith(b"\r\n\r\nok")
    ending.finish()
