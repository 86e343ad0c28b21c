"""The WSGI application of a container, without a server."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from werkzeug.exceptions import NotFound
from werkzeug.test import Client, create_environ
from werkzeug.wrappers import Response

from threadko.web.cors import Cors
from threadko.web.exchange import EXCHANGE
from threadko.web.parser import Limits, MalformedError, RequestReader
from threadko.web.routes import Routes, make_rule
from threadko.web.wsgi import WsgiApp


class Server:
    """As much of a web server as the application asks."""

    def __init__(self):
        self.routes = Routes()
        self.cors = None
        self.is_open = True

    def add(self, methods, url, handle):
        provider = type("Provider", (), {"handle_request": staticmethod(handle)})()
        self.routes.add(self, make_rule(methods, url), provider)


@pytest.fixture
def server():
    return Server()


@pytest.fixture
def client(server):
    return Client(WsgiApp(server))


def test_request_reaches_its_handler_with_what_its_path_says(server, client):
    server.add("GET", "/a/<int:b>", lambda request: Response(repr(request.path_values)))
    assert client.get("/a/5").text == "{'b': 5}"
    assert client.get("/a/b").status_code == 404
    assert client.post("/a/5").status_code == 405
    options = client.options("/a/5")
    assert (options.status_code, options.headers["Allow"]) == (204, "GET, HEAD, OPTIONS")
    assert client.options("/nowhere").status_code == 404


def test_missing_slash_is_a_redirect(server, client):
    server.add("GET", "/a/", lambda request: Response("there"))
    answer = client.get("/a")
    assert answer.status_code == 308
    assert answer.headers["Location"].endswith("/a/")


def test_closed_server_says_503(server, client):
    server.add("GET", "/a", lambda request: Response("there"))
    server.is_open = False
    assert client.get("/a").status_code == 503


def test_errors_of_a_handler(server, client, caplog):
    def fail(request):
        raise ValueError("secret")

    def miss(request):
        raise NotFound("gone")

    server.add("GET", "/fail", fail)
    server.add("GET", "/miss", miss)
    assert (client.get("/fail").status_code, client.get("/miss").status_code) == (500, 404)
    assert "secret" not in client.get("/fail").text
    assert "secret" in caplog.text


def test_exchange_is_finished_when_the_response_is_closed(server):
    finished = []

    class Exchange:
        streamed = True

        def finish(self):
            finished.append(True)

    def handle(request):
        request.environ[EXCHANGE] = exchange
        return shared

    exchange = Exchange()
    shared = Response("always the same")
    server.add("GET", "/a", handle)
    client = Client(WsgiApp(server))
    for number in range(3):
        answer = client.get("/a")
        assert answer.text == "always the same"
        assert len(finished) == number
        answer.close()
        assert len(finished) == number + 1
    # Nothing of these is made in a worker, and clients like this one need not close them.
    exchange.streamed = False
    client.get("/a")
    assert len(finished) == 4


def test_cors_headers_come_with_every_answer(server, client):
    server.cors = Cors(frozenset({"*"}))
    headers = {"Origin": "https://a"}
    assert client.get("/nowhere", headers=headers).headers["Access-Control-Allow-Origin"] == "*"


PIECES = st.sampled_from(
    ["/", "a", "5", "%2F", "%00", "..", "é", "?x=1", "//", "%zz", "\\", " ", "<", "a/5"]
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(PIECES, max_size=12), st.sampled_from(["GET", "HEAD", "PUT", "OPTIONS", "BREW", "*"])
)
def test_anything_that_is_parsed_is_dispatched_to_one_answer(pieces, method):
    server = Server()
    server.add("GET", "/a/<int:b>", lambda request: Response(repr(request.path_values)))
    server.add("PUT", "/<path:rest>", lambda request: Response("put"))
    reader = RequestReader(Limits())
    target = "/" + "".join(pieces)
    reader.feed(f"{method} {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    try:
        request = reader.next()
    except MalformedError:
        return  # which shapes those are is the parser's own test
    environ = create_environ("/", method=method)
    environ |= {"PATH_INFO": request.path, "QUERY_STRING": request.query, **request.headers}
    answers = []
    body = WsgiApp(server)(environ, lambda status, headers, *rest: answers.append(status))
    text = b"".join(body)
    assert len(answers) == 1
    assert answers[0][:3] in {"200", "204", "308", "404", "405"}
    assert b"Traceback" not in text
