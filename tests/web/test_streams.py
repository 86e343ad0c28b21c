"""Sockets that do not block by surprise."""

import contextlib
import socket
import ssl
import threading

import pytest
import trustme

from tests.support.timing import TIMEOUT
from threadko.web.streams import Stream


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    theirs.settimeout(TIMEOUT)
    yield Stream(ours, TIMEOUT), theirs
    ours.close()
    theirs.close()


def test_receive_says_nothing_yet_and_the_end(pair):
    stream, other = pair
    assert stream.receive() is None
    other.send(b"hello")
    assert stream.receive() == b"hello"
    other.close()
    assert stream.receive() == b""


def test_writes_leave_together(pair):
    stream, other = pair
    stream.write(b"a")
    stream.write(b"b")
    other.setblocking(False)
    with pytest.raises(BlockingIOError):
        other.recv(10)
    stream.flush()
    assert other.recv(10) == b"ab"
    assert stream.sent == 2


def test_large_writes_wait_for_the_reader_and_say_so(pair):
    stream, other = pair
    waits = threading.Event()
    stream.on_wait = waits.set
    found = bytearray()

    def read():
        assert waits.wait(TIMEOUT)
        while len(found) < 5_000_000:
            found.extend(other.recv(65536))

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    stream.write(b"x" * 5_000_000)
    stream.flush()
    reader.join(TIMEOUT)
    assert len(found) == 5_000_000


def test_reader_that_stalls_is_given_up():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        stream = Stream(ours, 0.05)
        with pytest.raises(TimeoutError, match="does not read"):
            stream.write(b"x" * 5_000_000)


def test_abort_ends_a_write(pair):
    stream, _ = pair
    stream.on_wait = stream.abort
    with pytest.raises(BrokenPipeError):
        stream.write(b"x" * 5_000_000)


def test_last_words_never_raise(pair):
    stream, other = pair
    other.close()
    stream.send_if_possible(b"bye")
    stream.send_if_possible(b"bye")
    stream.drain(100)
    stream.abort()


def test_abort_does_not_take_tls_off(tmp_path):
    authority = trustme.CA()
    certificate = tmp_path / "server.pem"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(certificate)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    ours, theirs = socket.socketpair()
    shaking = threading.Thread(
        target=lambda: client.wrap_socket(theirs, server_hostname="127.0.0.1").close()
    )
    shaking.start()
    with server.wrap_socket(ours, server_side=True) as sock:
        stream = Stream(sock, TIMEOUT)
        stream.abort()
        assert sock.version() is not None
        stream.write(b"secret")
        with pytest.raises(OSError):  # noqa: PT011 - TLS or the system says it
            stream.flush()
    shaking.join(TIMEOUT)


def test_drain_ends_though_a_byte_comes_now_and_then(pair, monkeypatch):
    monkeypatch.setattr("threadko.web.streams._DRAIN_SECONDS", 0.1)
    stream, other = pair
    over = threading.Event()

    def dribble():
        while not over.wait(0.01):
            with contextlib.suppress(OSError):
                other.send(b"x")

    dribbling = threading.Thread(target=dribble, daemon=True)
    draining = threading.Thread(target=stream.drain, args=(1024 * 1024,), daemon=True)
    dribbling.start()
    draining.start()
    draining.join(TIMEOUT)
    over.set()
    dribbling.join(TIMEOUT)
    assert not draining.is_alive()
