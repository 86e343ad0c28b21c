"""Web servers of containers: sharing an address, starting, stopping, killing."""

import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import requests
from werkzeug.test import create_environ, run_wsgi_app

from tests.containers.dummies import Gate, in_thread
from tests.support.broker import find_free_ports
from tests.support.timing import TIMEOUT
from tests.web.client import ask
from tests.web.conftest import find_server
from threadko.exceptions import ConfigurationError
from threadko.extensions import DependencyProvider
from threadko.web.handlers import HttpRequestHandler, http
from threadko.web.server import WebServer

GET = b"GET %s HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


class One:
    name = "one"

    @http("GET", "/one")
    def one(self, request):
        return "one"


class Two:
    name = "two"

    @http("GET", "/two")
    def two(self, request):
        return "two"


def get(address, path):
    return requests.get(f"http://{address}{path}", timeout=TIMEOUT)


@pytest.fixture
def free_address():
    return f"127.0.0.1:{find_free_ports(1)[0]}"


@pytest.mark.parametrize("first_stops", [0, 1])
@pytest.mark.parametrize("end", ["stop", "kill"])
def test_two_containers_share_an_address(serve, free_address, first_stops, end):
    made = [serve(cls, WEB_SERVER_ADDRESS=free_address)[0] for cls in (One, Two)]
    paths = ["/one", "/two"]
    for path in paths:
        assert get(free_address, path).text == path[1:]
    assert get(free_address, "/three").status_code == 404
    options = requests.options(f"http://{free_address}/two", timeout=TIMEOUT)
    assert set(options.headers["Allow"].split(", ")) == {"GET", "HEAD", "OPTIONS"}
    getattr(made[first_stops], end)()
    assert get(free_address, paths[first_stops]).status_code == 404
    assert get(free_address, paths[1 - first_stops]).text == paths[1 - first_stops][1:]
    getattr(made[1 - first_stops], end)()
    with pytest.raises(requests.ConnectionError):
        get(free_address, "/one")
    serve([One, Two][first_stops], WEB_SERVER_ADDRESS=free_address)
    assert get(free_address, paths[first_stops]).status_code == 200


def test_same_route_twice_is_an_error_that_leaves_the_other_alone(serve, free_address):
    serve(One, WEB_SERVER_ADDRESS=free_address)
    with pytest.raises(
        ConfigurationError,
        match="GET /one is there twice: by the service 'one' and the service 'again'",
    ):
        serve(type("Again", (One,), {"name": "again"}), WEB_SERVER_ADDRESS=free_address)
    assert get(free_address, "/one").text == "one"


def test_same_route_twice_in_a_service_names_the_methods(serve):
    class Twice:
        name = "twice"

        @http("GET", "/<int:number>")
        def first(self, request, number):
            return "first"

        @http("GET", "/<int:other>")
        def second(self, request, other):
            return "second"

    with pytest.raises(ConfigurationError, match=r"by twice\.first and twice\.second"):
        serve(Twice)


def test_containers_at_one_address_agree(serve, free_address):
    serve(One, WEB_SERVER_ADDRESS=free_address)
    with pytest.raises(ConfigurationError, match=r"must agree on HTTP_TLS, the timeouts"):
        serve(Two, WEB_SERVER_ADDRESS=free_address, HTTP_MAX_BODY_SIZE=5)


def test_certificate_that_cannot_be_loaded_is_named(serve, tmp_path):
    (tmp_path / "empty.pem").touch()
    files = {"certfile": str(tmp_path / "empty.pem"), "keyfile": "/absent.pem"}
    with pytest.raises(ConfigurationError, match=r"HTTP_TLS: .*/empty.pem and /absent.pem cannot"):
        serve(One, HTTP_TLS=files)


def test_taken_address_is_one_line(serve):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ConfigurationError, match=f"cannot listen on {address}: .*in use"):
            serve(One, WEB_SERVER_ADDRESS=address)


def test_ipv6(serve):
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6: switch it on to run this")
    _, address = serve(One, WEB_SERVER_ADDRESS="[::1]:0")
    assert str(address).startswith("[::1]:")
    assert get(address, "/one").text == "one"


def ask_unix(path, data):
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(TIMEOUT)
        client.connect(str(path))
        client.sendall(data)
        found = b""
        while chunk := client.recv(65536):
            found += chunk
        return found


def test_unix_socket_and_what_lies_in_its_place(serve, tmp_path):
    path = tmp_path / "web.sock"
    left = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    left.bind(str(path))
    left.close()  # whoever made it is gone
    container, _ = serve(One, WEB_SERVER_ADDRESS=f"unix:{path}", HTTP_SOCKET_MODE="600")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert ask_unix(path, GET % b"/one").endswith(b"\r\n\r\none")
    container.stop()
    assert not path.exists()

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as alive:
        alive.bind(str(path))
        alive.listen()
        with pytest.raises(ConfigurationError, match="another process listens there"):
            serve(One, WEB_SERVER_ADDRESS=f"unix:{path}")
    Path(path).unlink()
    path.write_text("precious")
    with pytest.raises(ConfigurationError, match="a file that is no socket"):
        serve(One, WEB_SERVER_ADDRESS=f"unix:{path}")
    assert path.read_text() == "precious"


def test_requests_before_the_container_is_open_get_503(container_factory):
    container = container_factory(One, config={"WEB_SERVER_ADDRESS": "127.0.0.1:0"})
    container.prepare()
    address = find_server(container).bind_addr
    response = get(address, "/one")
    assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
    container.open()
    assert get(address, "/one").text == "one"


class Held:
    name = "held"
    gate = Gate()

    @http("GET", "/held")
    def held(self, request):
        self.gate.hold()
        return "held"


@pytest.fixture
def held():
    Held.gate = Gate()
    yield Held.gate
    Held.gate.released.set()


def test_stop_finishes_what_runs_and_closes_what_is_idle(serve, connect, held):
    container, address = serve(Held)
    running, idle = connect(address), connect(address)
    running.send(b"GET /held HTTP/1.1\r\nHost: a\r\n\r\n")
    idle.send(b"GET /none HTTP/1.1\r\nHost: a\r\n\r\n")
    assert idle.read_response()[0] == 404
    held.wait_reached()
    stopping = in_thread(container.stop)
    assert idle.read_to_end() == b""
    with pytest.raises(requests.ConnectionError):
        get(address, "/held")
    held.released.set()
    answer = running.read_to_end()
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"Connection: close" in answer
    assert answer.endswith(b"held")
    assert stopping.finish() is None


def test_requests_that_wait_for_a_worker_get_503_at_stop(serve, connect, held):
    container, address = serve(Held, max_workers=1)
    running, waiting = connect(address), connect(address)
    running.send(GET % b"/held")
    held.wait_reached()
    waiting.send(GET % b"/held")
    line = find_server(container).line
    while not len(line):
        threading.Event().wait(0.001)
    stopping = in_thread(container.stop)
    assert waiting.read_to_end().startswith(b"HTTP/1.1 503 ")
    held.released.set()
    assert running.read_to_end().endswith(b"held")
    assert stopping.finish() is None


def test_request_that_comes_through_the_door_as_it_closes_is_told_so(serve):
    container, _ = serve(One)
    answer = find_server(container)._shared._answer
    container.stop()
    _, status, _ = run_wsgi_app(answer, create_environ("/one"))
    assert status == "503 SERVICE UNAVAILABLE"


def test_stop_past_its_deadline_breaks_the_connection_off(serve, connect, held):
    container, address = serve(Held, SHUTDOWN_TIMEOUT=0.2)
    client = connect(address)
    client.send(GET % b"/held")
    held.wait_reached()
    container.stop()
    assert client.read_to_end() == b""


def test_kill_breaks_off_its_own_requests_only(serve, connect, held, free_address):
    killed, _ = serve(Held, WEB_SERVER_ADDRESS=free_address)
    serve(One, WEB_SERVER_ADDRESS=free_address)
    host, port = free_address.split(":")
    client, other = connect((host, int(port))), connect((host, int(port)))
    client.send(GET % b"/held")
    held.wait_reached()
    killed.kill()
    assert client.read_to_end() == b""
    other.send(GET % b"/one")
    assert other.read_to_end().endswith(b"one")


def test_kill_frees_the_threads_of_those_that_wait_for_a_worker(serve, connect, held, free_address):
    killed, address = serve(Held, WEB_SERVER_ADDRESS=free_address, max_workers=1)
    serve(One, WEB_SERVER_ADDRESS=free_address)
    running, waiting = connect(address), connect(address)
    running.send(GET % b"/held")
    held.wait_reached()
    waiting.send(GET % b"/held")
    server = find_server(killed)
    while not len(server.line):
        threading.Event().wait(0.001)
    killed.kill()
    assert not server.line._jobs
    assert waiting.read_to_end()[:13] in (b"", b"HTTP/1.1 503 ")


def test_wrapped_application_sees_its_own_requests(serve, free_address):
    seen = []

    class Wrapping(WebServer):
        def get_wsgi_app(self):
            app = super().get_wsgi_app()

            def wrapped(environ, start_response):
                seen.append(environ["PATH_INFO"])
                return app(environ, start_response)

            return wrapped

    class Handler(HttpRequestHandler):
        server = Wrapping()

    class Wrapped:
        name = "wrapped"

        @Handler.decorator("GET", "/wrapped")
        def wrapped(self, request):
            return "wrapped"

    serve(Wrapped, WEB_SERVER_ADDRESS=free_address)
    get(free_address, "/nowhere")  # alone, it sees all
    serve(One, WEB_SERVER_ADDRESS=free_address)
    assert get(free_address, "/wrapped").text == "wrapped"
    assert get(free_address, "/one").text == "one"
    get(free_address, "/nowhere")
    assert seen == ["/nowhere", "/wrapped"]


class Recorder(DependencyProvider):
    """Writes down the life of each worker."""

    def __init__(self, lines):
        self.lines = lines

    def worker_setup(self, worker_ctx):
        self.lines.append("setup")

    def worker_result(self, worker_ctx, result=None, exc_info=None):
        self.lines.append("result" if exc_info is None else exc_info[0].__name__)

    def worker_teardown(self, worker_ctx):
        self.lines.append("teardown")


def test_stream_lives_inside_its_worker(serve, connect):
    lines = []

    class Streaming:
        name = "streaming"
        recorder = Recorder(lines)

        @http("GET", "/fine")
        def fine(self, request):
            lines.append("begin")
            yield "a"
            lines.append("end")

        @http("GET", "/broken")
        def broken(self, request):
            yield "a"
            raise ValueError("secret")

        @http("HEAD,GET", "/head")
        def head(self, request):
            yield "never"

    _, address = serve(Streaming)
    assert get(address, "/fine").text == "a"
    wait_for(lines, "teardown")
    assert lines == ["setup", "begin", "end", "result", "teardown"]
    lines.clear()
    assert b"0\r\n\r\n" not in ask(address, GET % b"/broken")
    wait_for(lines, "teardown")
    assert lines == ["setup", "ValueError", "teardown"]
    lines.clear()
    assert requests.head(f"http://{address}/head", timeout=TIMEOUT).status_code == 200
    wait_for(lines, "teardown")
    assert lines == ["setup", "result", "teardown"]


def wait_for(lines, last):
    while last not in lines:
        threading.Event().wait(0.001)


def test_answer_leaves_after_worker_result_and_before_teardown(serve, connect):
    gate = Gate()

    class Slow(Recorder):
        def worker_teardown(self, worker_ctx):
            gate.hold()
            super().worker_teardown(worker_ctx)

    class Failing(DependencyProvider):
        def worker_result(self, worker_ctx, result=None, exc_info=None):
            if exc_info is None and worker_ctx.entrypoint.method_name == "failing":
                raise RuntimeError("the commit failed")

    lines = []

    class Service:
        name = "service"
        slow = Slow(lines)
        commit = Failing()

        @http("GET", "/failing")
        def failing(self, request):
            return "done"

        @http("GET", "/fine")
        def fine(self, request):
            return "done"

    _, address = serve(Service)
    client = connect(address)
    client.send(b"GET /fine HTTP/1.1\r\nHost: a\r\n\r\n")
    assert client.read_response() == (200, b"done")
    gate.wait_reached()
    assert lines == ["setup", "result"]
    gate.released.set()
    assert get(address, "/failing").status_code == 500


def test_cors_is_answered(serve):
    cors = {"origins": ["https://page.example"], "headers": ["X-Token"], "credentials": True}
    _, address = serve(One, HTTP_CORS=cors)
    headers = {
        "Origin": "https://page.example",
        "Access-Control-Request-Method": "GET",
    }
    response = requests.options(f"http://{address}/one", headers=headers, timeout=TIMEOUT)
    assert response.headers["Access-Control-Allow-Origin"] == "https://page.example"
    assert response.headers["Access-Control-Allow-Headers"] == "X-Token"
    assert "GET" in response.headers["Access-Control-Allow-Methods"]
    response = requests.get(f"http://{address}/one", headers=headers, timeout=TIMEOUT)
    assert response.headers["Access-Control-Allow-Credentials"] == "true"
    headers["Origin"] = "https://evil.example"
    response = requests.get(f"http://{address}/one", headers=headers, timeout=TIMEOUT)
    assert "Access-Control-Allow-Origin" not in response.headers
    assert response.headers["Vary"] == "Origin"


class Writing:
    name = "writing"

    @http("POST", "/one")
    def write(self, request):
        return "written"


def test_options_name_the_methods_of_all_containers(serve, free_address):
    pages = {"origins": ["https://page.example"]}
    serve(One, WEB_SERVER_ADDRESS=free_address)
    serve(Writing, WEB_SERVER_ADDRESS=free_address, HTTP_CORS=pages)
    serve(Two, WEB_SERVER_ADDRESS=free_address)
    url = f"http://{free_address}/one"
    response = requests.options(url, timeout=TIMEOUT)
    assert response.headers["Allow"] == "GET, HEAD, POST, OPTIONS"
    assert requests.delete(url, timeout=TIMEOUT).status_code == 405
    assert requests.options(f"http://{free_address}/none", timeout=TIMEOUT).status_code == 404
    # Whether a page may send a method is said by the container that takes it.
    for method, answer in [("POST", "https://page.example"), ("GET", None), ("PUT", None)]:
        headers = {"Origin": "https://page.example", "Access-Control-Request-Method": method}
        response = requests.options(url, headers=headers, timeout=TIMEOUT)
        assert response.headers.get("Access-Control-Allow-Origin") == answer


def test_address_can_be_taken_while_another_container_leaves_it(container_factory, free_address):
    errors = []

    def come_and_go(cls):
        try:
            for _ in range(25):
                container = container_factory(cls, config={"WEB_SERVER_ADDRESS": free_address})
                container.start()
                path = f"/{cls.name}"
                assert get(free_address, path).text == cls.name
                container.stop()
        except Exception as error:
            errors.append(error)

    players = [threading.Thread(target=come_and_go, args=(cls,)) for cls in (One, Two)]
    for player in players:
        player.start()
    for player in players:
        player.join(10 * TIMEOUT)
    assert errors == []


def test_many_stop_at_once_and_the_address_is_free(serve, free_address):
    for _ in range(5):
        made = [serve(cls, WEB_SERVER_ADDRESS=free_address)[0] for cls in (One, Two)]
        stopping = [in_thread(each.stop) for each in made * 3]
        assert [each.finish() for each in stopping] == [None] * 6


def test_client_that_keeps_its_connection_goes_on_after_a_restart(serve, free_address):
    with requests.Session() as session:
        for _ in range(5):
            container, _ = serve(One, WEB_SERVER_ADDRESS=free_address)
            for _ in range(3):
                answer = session.get(f"http://{free_address}/one", timeout=TIMEOUT)
                assert answer.text == "one"
            container.stop()


@pytest.mark.parametrize(
    ("what", "error"),
    [
        ("start_thread", RuntimeError("can't start new thread")),
        ("connections.ConnectionManager", OSError("too many open files")),
    ],
)
def test_listener_that_cannot_start_leaves_the_address_free(
    serve, monkeypatch, free_address, what, error
):
    def refuse(*args):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(f"threadko.web.listener.{what}", refuse)
        with pytest.raises(type(error), match=str(error)):
            serve(One, WEB_SERVER_ADDRESS=free_address)
    serve(One, WEB_SERVER_ADDRESS=free_address)
    assert get(free_address, "/one").text == "one"


FORKED = """
import os, sys
from tests.web.test_server import One, Two
from threadko.containers import ServiceContainer

config = {"WEB_SERVER_ADDRESS": sys.argv[1]}
parent = ServiceContainer(One, config=config)
parent.start()
child = os.fork()
if child == 0:
    try:
        ServiceContainer(Two, config=config).start()
    except BaseException as error:
        print(error, flush=True)
    finally:
        os._exit(0)
os.waitpid(child, 0)
parent.stop()
"""


def test_forked_child_does_not_take_the_listener_of_its_parent_for_its_own(free_address):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKED, free_address],
        capture_output=True,
        text=True,
        timeout=3 * TIMEOUT,
        cwd=Path(__file__).parents[2],
        check=True,
    )
    assert "is taken" in done.stdout or "in use" in done.stdout, done
