"""The `http` entrypoint, with real clients."""

import threading
from queue import SimpleQueue

import pytest
import requests
from werkzeug.exceptions import Conflict
from werkzeug.routing import Rule
from werkzeug.wrappers import Response

from tests.support.timing import TIMEOUT
from threadko.exceptions import BadRequest, ConfigurationError
from threadko.extensions import DependencyProvider
from threadko.web.handlers import HttpRequestHandler, http


class ExpectedError(Exception):
    pass


class Everything:
    name = "everything"

    @http("GET", "/text")
    def text(self, request):
        return "grüße"

    @http("GET", "/bytes")
    def bytes(self, request):
        return b"\0\xff"

    @http("GET", "/pair")
    def pair(self, request):
        return 201, "made"

    @http("GET", "/triple")
    def triple(self, request):
        return 202, {"X-A": "b"}, b"taken"

    @http("GET", "/response")
    def response(self, request):
        return Response("teapot", 418)

    @http("GET", "/none")
    def none(self, request):
        return None

    @http("GET", "/split")
    def split(self, request):
        return 200, {"X-A": "b\r\nX-Evil: c"}, ""

    @http("GET", "/expected", expected_exceptions=ExpectedError)
    def expected(self, request):
        raise ExpectedError("yours")

    @http("GET", "/bad")
    def bad(self, request):
        raise BadRequest("no good")

    @http("GET", "/conflict")
    def conflict(self, request):
        raise Conflict("taken")

    @http("GET", "/failed")
    def failed(self, request):
        raise RuntimeError("secret")

    @http("GET", "/first")
    @http("PUT,DELETE", "/second/<path:rest>")
    def both(self, request, rest=None):
        return f"{request.method} {rest}"

    @http("GET", "/thread")
    def thread(self, request):
        return threading.current_thread().name


@pytest.fixture
def get(serve):
    _, address = serve(Everything)
    return lambda path, method="GET": requests.request(
        method, f"http://{address}{path}", timeout=TIMEOUT
    )


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [
        ("/text", 200, "grüße".encode()),
        ("/bytes", 200, b"\0\xff"),
        ("/pair", 201, b"made"),
        ("/triple", 202, b"taken"),
        ("/response", 418, b"teapot"),
        ("/none", 500, b"Error: internal server error\n"),
        ("/split", 500, b"Error: internal server error\n"),
        ("/expected", 400, b"Error: ExpectedError: yours\n"),
        ("/bad", 400, b"Error: BadRequest: no good\n"),
        ("/failed", 500, b"Error: internal server error\n"),
        ("/first", 200, b"GET None"),
    ],
)
def test_what_a_method_returns_or_raises_is_the_response(get, path, status, body):
    response = get(path)
    assert (response.status_code, response.content) == (status, body)
    assert "X-Evil" not in response.headers


def test_exceptions_of_werkzeug_are_responses(get):
    response = get("/conflict")
    assert response.status_code == 409
    assert "taken" in response.text


def test_method_on_two_routes(get):
    assert get("/second/a/b", "PUT").text == "PUT a/b"
    assert get("/second/a/b", "DELETE").text == "DELETE a/b"
    assert get("/second/a/b").status_code == 405


def test_head_has_the_headers_of_get_and_no_body(get):
    response = get("/text", "HEAD")
    assert (response.status_code, response.content) == (200, b"")
    assert response.headers["Content-Length"] == str(len("grüße".encode()))


def test_worker_runs_in_the_thread_that_read_the_request(get):
    assert get("/thread").text.startswith("threadko-http-")


@pytest.mark.parametrize(("method", "url"), [("", "/a"), ("GET", "a"), ("G3T", "/a")])
def test_bad_declarations_fail_where_they_stand(method, url):
    def handler(self, request):
        pass

    with pytest.raises(ConfigurationError):
        http(method, url)(handler)


def test_rule_of_a_subclass_is_its_own_affair(serve):
    class Versioned(HttpRequestHandler):
        def get_url_rule(self):
            version = self.container.config["version"]  # not known to the decorator
            return Rule(f"/v{version}/{self.url}", methods=[self.method])

    class Service:
        name = "service"

        @Versioned.decorator("GET", "page")
        def page(self, request):
            return "a page"

    _, address = serve(Service, version=2)
    assert requests.get(f"http://{address}/v2/page", timeout=TIMEOUT).text == "a page"


def test_handler_by_itself_needs_no_rule():
    handler = HttpRequestHandler("GET", "no rule", expected_exceptions=ValueError)
    assert handler.response_from_exception(ValueError("it")).status_code == 400


def test_worker_that_cannot_be_set_up_is_a_500(serve, caplog):
    class Broken:
        name = "broken"

        def __init__(self):
            raise OSError("no database")

        @http("GET", "/")
        def get(self, request):
            return "never"

    _, address = serve(Broken)
    response = requests.get(f"http://{address}/", timeout=TIMEOUT)
    assert (response.status_code, response.text) == (500, "Error: internal server error\n")
    assert "no database" in caplog.text


def test_hooks_of_nameko_can_be_overridden(serve):
    class Handler(HttpRequestHandler):
        def get_entrypoint_parameters(self, request):
            return (), {"word": request.args["word"]}

        def handle_result(self, event, worker_ctx, result, exc_info):
            return super().handle_result(event, worker_ctx, result.upper(), exc_info)

    class Shouting:
        name = "shouting"

        @Handler.decorator("GET", "/")
        def shout(self, word):
            return word

    _, address = serve(Shouting)
    assert requests.get(f"http://{address}/?word=hello", timeout=TIMEOUT).text == "HELLO"


def test_shared_response_is_not_spoiled(serve):
    shared = Response("always")

    class Same:
        name = "same"

        @http("GET", "/")
        def get(self, request):
            return shared

    _, address = serve(Same)
    session = requests.Session()
    for _ in range(5):
        assert session.get(f"http://{address}/", timeout=TIMEOUT).text == "always"
    assert not shared._on_close


class Told(DependencyProvider):
    """Writes down how each worker ended."""

    ends = SimpleQueue()

    def worker_result(self, worker_ctx, result=None, exc_info=None):
        self.ends.put(None if exc_info is None else exc_info[0])


class Doubtful:
    name = "doubtful"
    told = Told()

    @http("GET", "/status")
    def status(self, request):
        return "200 OK\r\nX-Evil: 1", "x"

    @http("GET", "/continue")
    def go_on(self, request):
        return 100, "x"

    @http("GET", "/nonsense")
    def nonsense(self, request):
        return "nonsense", "x"

    @http("GET", "/name")
    def odd_name(self, request):
        return 200, {"X-Evil: 1\tX": "a"}, "x"

    @http("GET", "/coding")
    def coding(self, request):
        return 200, {"Transfer-Encoding": "chunked"}, "x"

    @http("GET", "/bad")
    def bad(self, request):
        raise BadRequest("no good")
        yield

    @http("GET", "/expected", expected_exceptions=ExpectedError)
    def expected(self, request):
        raise ExpectedError("yours")
        yield

    @http("GET", "/conflict")
    def conflict(self, request):
        raise Conflict("taken")
        yield

    @http("GET", "/failed")
    def failed(self, request):
        raise RuntimeError("secret")
        yield

    @http("GET", "/number")
    def number(self, request):
        yield 5


@pytest.mark.parametrize(
    ("path", "status", "kind"),
    [
        ("/status", 500, ValueError),
        ("/continue", 500, ValueError),
        ("/nonsense", 500, ValueError),
        ("/name", 500, ValueError),
        ("/coding", 500, ValueError),
        ("/bad", 400, BadRequest),
        ("/expected", 400, ExpectedError),
        ("/conflict", 409, Conflict),
        ("/failed", 500, RuntimeError),
        ("/number", 500, TypeError),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_response_that_cannot_begin_is_an_error_and_the_connection_goes_on(
    serve, connect, path, status, kind, method
):
    _, address = serve(Doubtful)
    client = connect(address)
    client.send(f"{method} {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    head = b""
    while b"\r\n\r\n" not in head:
        head += client.receive()
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert b"Evil" not in head
    assert b"secret" not in head
    assert Told.ends.get(timeout=TIMEOUT) is kind
    client = connect(address) if b"Connection: close" in head else client
    client.send(b"GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n")
    data = head.partition(b"\r\n\r\n")[2]
    while b"HTTP/1.1 404 " not in data:
        data += client.receive()


def test_error_before_a_stream_may_be_answered_with_a_stream(serve):
    class Handler(HttpRequestHandler):
        def response_from_exception(self, exc):
            return Response(iter(["sor", "ry"]), 418)

    class Service:
        name = "service"

        @Handler.decorator("GET", "/")
        def get(self, request):
            raise RuntimeError("at once")
            yield

    _, address = serve(Service)
    response = requests.get(f"http://{address}/", timeout=TIMEOUT)
    assert (response.status_code, response.text) == (418, "sorry")
