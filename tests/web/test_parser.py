"""Requests out of bytes, without a socket."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.web.shapes import BAD, CHUNKED, CUT, GOOD, POST
from threadko.web.parser import Limits, MalformedError, RequestReader

LIMITS = Limits(head=4096, body=1024)


def read_all(pieces):
    """Return the requests in what comes piece by piece, then the status of a refusal if any."""
    reader = RequestReader(LIMITS)
    found = []
    for piece in pieces:
        reader.feed(piece)
        try:
            while (request := reader.next()) is not None:
                found.append(request)
        except MalformedError as error:
            return [*found, error.status]
    return found


def split(data, size):
    return [data[start : start + size] for start in range(0, len(data), size)]


@pytest.mark.parametrize("size", [1, 3, 100_000])
@pytest.mark.parametrize(("data", "status"), BAD)
def test_bad_requests_are_refused(data, status, size):
    assert read_all(split(data, size))[-1:] == [status]
    assert len(read_all(split(data, size))) == 1


@pytest.mark.parametrize("size", [1, 7, 100_000])
@pytest.mark.parametrize(("data", "seen"), GOOD)
def test_good_requests_are_read(data, seen, size):
    (request,) = read_all(split(data, size))
    detail = request.body or request.query.encode("latin-1")
    assert f"{request.method} {request.path} ".encode() + detail == seen


@pytest.mark.parametrize("data", CUT)
def test_cut_requests_are_none(data):
    reader = RequestReader(LIMITS)
    reader.feed(data)
    assert reader.next() is None
    assert reader.begun


def test_pipelined_requests_come_one_after_the_other():
    data = b"".join(data for data, _ in GOOD)
    assert len(read_all([data])) == len(GOOD)
    assert len(read_all(split(data, 1))) == len(GOOD)


def test_nothing_can_hide_in_a_body():
    hidden = b"GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n"
    data = POST + b"Content-Length: %d\r\n\r\n" % len(hidden) + hidden
    (request,) = read_all([data])
    assert (request.path, request.body) == ("/echo", hidden)
    (request,) = read_all([CHUNKED + b"%x\r\n" % len(hidden) + hidden + b"\r\n0\r\n\r\n"])
    assert request.body == hidden


def test_headers_are_named_as_wsgi_does():
    head = (
        b"GET / HTTP/1.1\r\nHost: a\r\nX-One: 1\r\nx-one: 2\r\nX_One: 3\r\nCookie: a=1\r\n"
        b"Cookie: b=2\r\nContent-Type: text/plain\r\n\r\n"
    )
    (request,) = read_all([head])
    assert request.headers == {
        "HTTP_HOST": "a",
        "HTTP_X_ONE": "1, 2",
        "HTTP_COOKIE": "a=1; b=2",
        "CONTENT_TYPE": "text/plain",
    }


@pytest.mark.parametrize(
    ("version", "connection", "keep_alive"),
    [
        ("1.1", "", True),
        ("1.1", "close", False),
        ("1.1", "X, Close", False),
        ("1.1", "keep-alive", True),
        ("1.0", "", False),
        ("1.0", "Keep-Alive", True),
    ],
)
def test_keep_alive(version, connection, keep_alive):
    data = f"GET / HTTP/{version}\r\nHost: a\r\nConnection: {connection}\r\n\r\n"
    (request,) = read_all([data.encode()])
    assert request.keep_alive is keep_alive


def test_continue_is_asked_for_once_and_only_while_the_body_is_awaited():
    reader = RequestReader(LIMITS)
    reader.feed(POST + b"Expect: 100-Continue\r\nContent-Length: 5\r\n\r\n")
    assert reader.next() is None
    assert reader.ask_continue()
    assert not reader.ask_continue()
    reader.feed(b"hello")
    assert reader.next().body == b"hello"
    reader.feed(POST + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\nhello")
    assert reader.next().body == b"hello"
    assert not reader.ask_continue()


@pytest.mark.parametrize(("size", "refused"), [(4096, False), (4097, True)])
def test_head_to_the_byte(size, refused):
    head = b"GET / HTTP/1.1\r\nHost: a\r\nA: "
    data = head + b"b" * (size - len(head) - 4) + b"\r\n\r\n"
    assert len(data) == size
    assert (read_all([data]) == [431]) is refused


def test_rest_belongs_to_the_next_protocol():
    reader = RequestReader(LIMITS)
    reader.feed(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n\x81\x02hi")
    assert reader.next() is not None
    assert reader.take_rest() == b"\x81\x02hi"
    assert not reader.begun


WORDS = b"GET |/echo| HTTP/1.1|\r\n|Host: a|Content-Length: 5|hello|0|:|\n| |5|%41|\x00|\xff".split(
    b"|"
)
PARTS = st.sampled_from([*WORDS, b"Transfer-Encoding: chunked", b"a" * 600])


@settings(max_examples=400, deadline=None)
@given(st.lists(st.one_of(PARTS, st.binary(max_size=20)), max_size=40), st.integers(1, 50))
@example([POST, b"Content-Length: 5\r\n\r\nhello", b"\r\n\r\n\r\n"], 4)
def test_anything_gives_requests_or_one_refusal_however_it_is_split(parts, size):
    data = b"".join(parts)
    whole = read_all([data])
    assert read_all(split(data, size)) == whole
    assert all(isinstance(item, int) is (item is whole[-1]) or item for item in whole)
    for request in whole:
        if not isinstance(request, int):
            assert len(request.body) <= LIMITS.body
            assert "\0" not in request.path
