"""Responses with real sockets: readers who leave or do not read, handlers that fail midway."""

import socket
import threading

import pytest
import requests

from tests.support.timing import TIMEOUT, wait_until
from tests.web.client import ask
from tests.web.conftest import find_server
from tests.web.services import url
from threadko.web.handlers import http


class Stream:
    name = "stream"
    closed = threading.Event()
    began = threading.Event()

    @http("GET", "/endless")
    def endless(self, request):
        try:
            while True:
                yield b"x" * 1000
                self.began.set()
        finally:
            self.closed.set()

    @http("GET", "/large")
    def large(self, request):
        return b"x" * 50_000_000

    @http("GET", "/larger-than-buffers")
    def larger(self, request):
        return b"x" * 10_000_000

    @http("GET", "/fine")
    def fine(self, request):
        return "fine"


def test_client_that_leaves_closes_the_stream(serve, connect, caplog):
    Stream.began.clear()
    Stream.closed.clear()
    _, address = serve(Stream, max_workers=1)
    client = connect(address)
    client.send(b"GET /endless HTTP/1.1\r\nHost: a\r\n\r\n")
    assert Stream.began.wait(TIMEOUT)
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.sock.close()
    assert Stream.closed.wait(TIMEOUT)
    assert requests.get(url(address, "/fine"), timeout=TIMEOUT).text == "fine"
    assert "Traceback" not in caplog.text


def test_client_that_does_not_read_holds_no_worker(serve, connect):
    container, address = serve(Stream, max_workers=1, HTTP_REQUEST_TIMEOUT=2.0)
    client = connect(address)
    client.send(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
    assert requests.get(url(address, "/fine"), timeout=TIMEOUT).text == "fine"
    # It is cut off: far less than all has come, and then the end.
    listener = find_server(container)._shared.listener
    wait_until(lambda: not listener.connections, "it is not cut off")
    assert len(client.read_to_end()) < 50_000_000


def test_clients_that_do_not_read_leave_threads_to_the_others(serve, connect):
    _, address = serve(Stream, max_workers=2, HTTP_WAITERS=1, HTTP_QUEUE_TIMEOUT=TIMEOUT)
    for _ in range(20):
        connect(address).send(b"GET /larger-than-buffers HTTP/1.1\r\nHost: a\r\n\r\n")
    for _ in range(20):
        assert requests.get(url(address, "/fine"), timeout=TIMEOUT).text == "fine"


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_handler_that_raises_anything_leaves_the_server_serving(serve, kind):
    class Leaving:
        name = "leaving"

        @http("GET", "/leave")
        def leave(self, request):
            raise kind("secret")

        @http("GET", "/stream")
        def stream(self, request):
            yield "part"
            raise kind("secret")

    _, address = serve(Leaving)
    for _ in range(30):
        response = requests.get(url(address, "/leave"), timeout=TIMEOUT)
        assert (response.status_code, response.text) == (500, "Error: internal server error\n")
    answer = ask(address, b"GET /stream HTTP/1.1\r\nHost: a\r\n\r\n")
    assert answer.endswith(b"4\r\npart\r\n")  # no end of the chunks: it is not complete
    assert b"secret" not in answer
