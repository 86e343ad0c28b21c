"""Results and exceptions as responses."""

import pytest
from werkzeug.datastructures import Headers
from werkzeug.exceptions import ImATeapot, MethodNotAllowed
from werkzeug.wrappers import Response

from threadko.exceptions import BadRequest, MalformedRequest
from threadko.web.responses import (
    check_head,
    response_from_exception,
    response_from_result,
)

JSON = {"Content-Type": "application/json"}
AB = {"Content-Type": "a/b"}


@pytest.mark.parametrize(
    ("result", "status", "headers", "body"),
    [
        ("text ü", 200, {}, "text ü".encode()),
        (b"\xff", 200, {}, b"\xff"),
        ("", 200, {}, b""),
        ((201, "made"), 201, {}, b"made"),
        (("404 Gone Fishing", b"x"), 404, {}, b"x"),
        ((200, {"X-Own": "1"}, "x"), 200, {"X-Own": "1"}, b"x"),
        ((200, JSON, "{}"), 200, JSON, b"{}"),
        ((200, Headers({"X-Own": "1"}), "x"), 200, {"X-Own": "1"}, b"x"),
        ((200, [("X-Own", "1"), ("Content-Type", "a/b")], "x"), 200, {"X-Own": "1"} | AB, b"x"),
        (iter([b"a", "b"]), 200, {}, b"ab"),
        ((part for part in ("a", "b")), 200, {}, b"ab"),
    ],
)
def test_result(result, status, headers, body):
    response = response_from_result(result)
    assert (response.status_code, response.get_data()) == (status, body)
    assert headers.items() <= dict(response.headers).items()
    if "Content-Type" not in headers:
        assert response.headers["Content-Type"] == "text/plain; charset=utf-8"


def test_a_header_may_come_twice():
    cookies = [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")]
    response = response_from_result((200, cookies, "x"))
    assert response.headers.getlist("Set-Cookie") == ["a=1", "b=2"]


def test_response_is_itself():
    response = Response("x")
    assert response_from_result(response) is response


def test_iterator_is_not_read_before_it_is_sent():
    def fail():
        raise AssertionError("read")
        yield

    assert response_from_result(fail()).is_streamed


@pytest.mark.parametrize(
    "result",
    [
        None,
        1,
        {"a": 1},
        ["a"],
        (200,),
        (200, {}, "x", "y"),
        (None, "x"),
        (True, "x"),
        (200, 5, "x"),
        (200, None),
        ("x", {}, {}),
    ],
)
def test_result_that_is_none(result):
    with pytest.raises(TypeError, match=r"response|body"):
        response_from_result(result)


@pytest.mark.parametrize("value", ["a\r\nX: y", "a\nb"])
def test_headers_cannot_be_split(value):
    with pytest.raises(ValueError, match="newline"):
        response_from_result((200, {"X-Own": value}, ""))


class OwnError(Exception):
    pass


@pytest.mark.parametrize(
    ("error", "expected", "status", "body"),
    [
        (OwnError("secret"), (), 500, b"Error: internal server error\n"),
        (OwnError("told"), OwnError, 400, b"Error: OwnError: told\n"),
        (OwnError("told"), (ValueError, OwnError), 400, b"Error: OwnError: told\n"),
        (BadRequest("told"), (), 400, b"Error: BadRequest: told\n"),
        (MalformedRequest("told"), (), 400, b"Error: MalformedRequest: told\n"),
        (SystemExit(1), (), 500, b"Error: internal server error\n"),
    ],
)
def test_exception(error, expected, status, body):
    response = response_from_exception(error, expected)
    assert (response.status_code, response.get_data()) == (status, body)


@pytest.mark.parametrize(
    ("error", "status", "header"),
    [(ImATeapot(), 418, None), (MethodNotAllowed(["GET"]), 405, ("Allow", "GET"))],
)
def test_werkzeug_s_exceptions_are_responses(error, status, header):
    response = response_from_exception(error)
    assert response.status_code == status
    assert header is None or response.headers[header[0]] == header[1]


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        ("200 OK\r\nX-Evil: 1", {}),
        ("200\nOK", {}),
        ("100 CONTINUE", {}),
        ("101 Switching Protocols", {}),
        ("0 UNKNOWN", {}),
        ("0 nonsense", {}),
        ("99999 UNKNOWN", {}),
        ("200 €", {}),
        ("200 OK", {"X Y": "a"}),
        ("200 OK", {"X:": "a"}),
        ("200 OK", {"": "a"}),
        ("200 OK", {"X\r\nY": "a"}),
        ("200 OK", {"X": "€"}),
        ("200 OK", {"X": "a\r\nY: b"}),
        ("200 OK", {"X": "a\0"}),
        ("200 OK", {"Transfer-Encoding": "chunked"}),
        ("200 OK", {"content-length": "+5"}),
        ("200 OK", {"Content-Length": "5, 5"}),
    ],
)
def test_head_that_reads_as_another_is_refused(status, headers):
    with pytest.raises(ValueError, match=r"status|header|Transfer-Encoding|Content-Length"):
        check_head(status, headers.items())


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        ("200 OK", {}),
        ("204", {}),
        ("404 Gone fischen geht über alles", {"X-Own": "grüße,\t5"}),
        ("999 Odd", {"Content-Length": "0", "Connection": "close", "Empty": ""}),
    ],
)
def test_head_that_can_be_sent(status, headers):
    check_head(status, headers.items())
