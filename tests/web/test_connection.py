"""Connections with real sockets: hostile shapes, dawdlers, floods, the access log."""

import contextlib
import re
import socket
import threading

import requests

from tests.support.timing import TIMEOUT
from tests.web.client import RawClient, ask, meet
from tests.web.services import FINE, Echo, url
from tests.web.shapes import BAD, CUT, GOOD, POST

LIMITS = {"HTTP_MAX_HEADER_SIZE": 4096, "HTTP_MAX_BODY_SIZE": 1024}


def test_bad_shapes_get_their_status_once_and_cost_nothing(serve, caplog, figure):
    _, address = serve(Echo, max_workers=4, **LIMITS)
    meet(address, 4)
    ours = ("threadko-http-", "threadko-echo-")  # and none of another test's that ends now
    before = [thread for thread in threading.enumerate() if thread.name.startswith(ours)]
    for data, status in BAD:
        answer = ask(address, data + FINE)
        assert answer.startswith(b"HTTP/1.1 %d " % status), (data, answer)
        assert len(re.findall(rb"HTTP/1\.1 \d{3} ", answer)) == 1, data
        assert b"Connection: close" in answer
        assert b"Traceback" not in answer
    for data in CUT:
        assert ask(address, data) == b"", data
    assert "Traceback" not in caplog.text
    with RawClient(address) as client:
        client.send(FINE)
        assert client.read_response() == (200, b"GET /echo fine")
    meet(address, 4)
    assert set(before) <= set(threading.enumerate())
    assert len(BAD) >= 120
    figure("http", f"{len(BAD)} shapes, one response each, no traceback, no thread lost")


def test_good_shapes_are_answered_one_after_the_other(serve, connect):
    _, address = serve(Echo, **LIMITS)
    for data, body in GOOD:
        assert ask(address, data).endswith(b"\r\n\r\n" + body)
    client = connect(address)
    kept = [(data, body) for data, body in GOOD if b"HTTP/1.0" not in data]
    client.send(b"".join(data for data, _ in kept))
    for _, body in kept:
        assert client.read_response() == (200, body)


def test_slow_senders_hold_nobody_up_and_are_cut_off(serve, connect):
    _, address = serve(Echo, max_workers=2, HTTP_WAITERS=1, HTTP_REQUEST_TIMEOUT=1.5)
    slow = [connect(address) for _ in range(100)]
    for number, client in enumerate(slow):
        client.send([b"GET /ec", POST + b"Content-Length: 9\r\n\r\nhel"][number % 2])
    for _ in range(20):
        assert requests.get(url(address), timeout=TIMEOUT).status_code == 200
    for client in slow:
        assert client.read_to_end().startswith(b"HTTP/1.1 408 ")


def test_continue_is_sent_before_the_body(serve, connect):
    _, address = serve(Echo)
    client = connect(address)
    client.send(POST + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n")
    assert client.receive() == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.send(b"hello")
    assert client.read_response() == (200, b"POST /echo hello")


def test_part_of_a_request_behind_another_has_its_deadline(serve, connect):
    _, address = serve(Echo, HTTP_REQUEST_TIMEOUT=0.3, HTTP_IDLE_TIMEOUT=10 * TIMEOUT)
    client = connect(address)
    client.send(FINE + b"GET /ec")
    assert client.read_response() == (200, b"GET /echo fine")
    assert client.read_to_end().startswith(b"HTTP/1.1 408 ")


def test_clients_that_send_without_end_leave_their_turn_to_others(serve, connect):
    _, address = serve(Echo, max_workers=1, HTTP_WAITERS=1)
    done = threading.Event()

    def send(client):
        with contextlib.suppress(OSError):
            while not done.is_set():
                client.send(FINE * 500)

    def read(client):
        while client.receive():
            pass

    players = []
    floods = [connect(address) for _ in range(4)]
    for client in floods:
        for act in (send, read):
            players.append(threading.Thread(target=act, args=(client,), daemon=True))
            players[-1].start()
    for _ in range(20):
        with RawClient(address) as client:
            client.send(FINE)
            assert client.read_response() == (200, b"GET /echo fine")
    done.set()
    for client in floods:
        client.sock.shutdown(socket.SHUT_RDWR)
    for player in players:
        player.join(TIMEOUT)


def test_access_log_has_a_line_for_each_request(serve, caplog):
    caplog.set_level("INFO", logger="threadko.access")
    _, address = serve(Echo)
    ask(address, FINE)
    ask(address, b"nonsense\r\n\r\n")
    lines = []
    while len(lines) < 2:  # written when the response has left
        lines = [each.getMessage() for each in caplog.records if each.name == "threadko.access"]
    assert lines[0].startswith('127.0.0.1 "GET /echo?fine" 200 ')
    assert lines[1] == '127.0.0.1 "-" 400 the request line is malformed'


def test_access_log_is_of_one_line_whatever_is_asked_for(serve, caplog):
    caplog.set_level("INFO", logger="threadko.access")
    _, address = serve(Echo)
    ask(address, b'GET /\x85\x9b2J\xe4" HTTP/1.1\r\nHost: a\r\n\r\n')
    lines = []
    while not lines:
        lines = [each.getMessage() for each in caplog.records if each.name == "threadko.access"]
    assert lines[0].startswith('127.0.0.1 "GET /\\x85\\x9b2J\\xe4%22" 404 ')
