"""Each program in examples/ does what it shows."""

import http.server
import json
import os
import queue
import shutil
import subprocess
import sys
import threading
import time
import urllib.request
from functools import partial
from pathlib import Path
from typing import ClassVar

import pytest
import requests
from websockets.sync.client import connect

from tests.conftest import pika_channel
from tests.support.broker import alone
from tests.support.browser import browse
from tests.support.timing import TIMEOUT
from threadko.compat import nameko
from threadko.extensions import Entrypoint
from threadko.standalone.rpc import ServiceRpcClient

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"


QUEUES = (
    "evt-shop-sold--warehouse.pack",
    "evt-shop-sold--warehouse.pack.dead",
    "evt-shop-sold",
    "example-big-parcels",
)
EXCHANGES = ("shop.events", "example-parcels")
SERVICES = (
    "greeter",
    "post",
    "shop",
    "contained_service",
    "embedded_service",
    "greeting_service",
    "metered",
    "order_book",
    "healthy_service",
    "baskets",
    "prices",
    "runner",
    "service_x",
    "service_y",
)


@pytest.fixture
def broker_uri(broker_uri):
    """A broker that no other test of this run uses, for the names of examples are fixed."""
    with alone(broker_uri) as uri:
        yield uri


@pytest.fixture(autouse=True)
def _no_queue_left(broker_uri):
    """Examples have fixed names, and their queues would stay."""
    yield
    with pika_channel(broker_uri) as channel:
        for name in SERVICES:
            channel.queue_delete(f"rpc-{name}")
        for name in QUEUES:
            channel.queue_delete(name)
        for name in EXCHANGES:
            channel.exchange_delete(name)


@pytest.fixture
def load(monkeypatch):
    """Import an example as a user in that folder would; forgotten after the test."""
    monkeypatch.syspath_prepend(str(EXAMPLES))

    def load(name):
        __import__(name)
        return sys.modules[name]

    yield load
    for path in EXAMPLES.glob("*.py"):
        sys.modules.pop(path.stem, None)


def run_script(name, uri):
    return subprocess.run(
        [sys.executable, f"examples/{name}.py"],
        cwd=ROOT,
        env={**os.environ, "AMQP_URI": uri, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=2 * TIMEOUT,
    )


def test_helloworld_says_hello(load):
    assert load("helloworld").GreetingService().hello("Ada") == "Hello, Ada!"


def test_standalone_rpc_calls_helloworld(load, runner_factory, broker_uri):
    runner_factory(load("helloworld").GreetingService, config={"AMQP_URI": broker_uri}).start()
    result = run_script("standalone_rpc", broker_uri)
    assert result.stdout.splitlines() == ["Hello, Ada!", "Hello, Ben!", "Hello, Cleo!"]
    assert result.returncode == 0


def test_metering_counts_the_calls_of_each_user(load, runner_factory, amqp_config):
    runner_factory(load("metering").Metered, config=amqp_config).start()
    for user, count in [("ada", 0), ("ada", 1), ("ben", 0), ("ada", 2)]:
        context = {"user_id": user}
        with ServiceRpcClient(
            "metered", context_data=context, config=amqp_config, timeout=TIMEOUT
        ) as client:
            assert client.ask() == f"You have asked {count} times before."


def test_rpc_goes_from_service_to_service(load, runner_factory, amqp_config):
    module = load("rpc")
    runner_factory(module.ServiceX, module.ServiceY, config=amqp_config).start()
    with ServiceRpcClient("service_x", config=amqp_config, timeout=TIMEOUT) as client:
        assert client.remote_method("value") == "value-x-y"


@pytest.mark.parametrize(
    ("name", "output"),
    [
        ("service_container", ["42"]),
        ("service_runner", ["11", "11"]),
        ("health", ["503 service healthy_service is new", "200 ok"]),
        ("messages", ["piano order.big", "last order.big"]),
        ("dev_broker", ["Hello, Ada!", "Hello, Ben!", "Hello, Cleo!", "Hello, Dora!"]),
    ],
)
def test_program_prints_the_answers_and_ends(name, output, broker_uri):
    result = run_script(name, broker_uri)
    assert result.stdout.splitlines() == output, result.stderr
    assert result.returncode == 0


def test_demo_shows_calls_and_a_clean_stop(broker_uri):
    result = run_script("demo", broker_uri)
    assert "greeting_service.hello('Ada') -> 'Hello, Ada!'" in result.stdout
    assert "service_x.remote_method('value') -> 'value-x-y'" in result.stdout
    assert "greeting_service.goodbye() raises MethodNotFound: goodbye" in result.stdout
    assert "100 calls at once: 100 right answers" in result.stdout
    assert "shop.sell('piano') -> None" in result.stdout
    assert "packed piano" in result.stdout
    assert 'GET /get/42 -> 200 {"value": 42}' in result.stdout
    assert "POST /post -> 200 received: a letter" in result.stdout
    assert result.stdout.splitlines()[-1] == "exit code 0"
    assert result.returncode == 0


#: Web applications, which are tested with load, beside what else applications must bear.
ELSEWHERE = {
    "tests/stories/test_hosts.py": ("flask_host", "django_host"),
    "tests/stories/hosts/flask_app.py": ("flask_client",),
    "tests/stories/hosts/django_app.py": ("django_client",),
    "tests/stories/hosts/fastapi_app.py": ("fastapi_client",),
}


def test_every_example_has_a_test():
    tested = Path(__file__).read_text(encoding="utf-8")
    for path, names in ELSEWHERE.items():
        assert all(name in (ROOT / path).read_text(encoding="utf-8") for name in names)
    missing = [path.stem for path in EXAMPLES.glob("*.py") if f'"{path.stem}"' not in tested]
    assert missing == []


def test_quotes_are_told(load):
    assert load("quotes").Quotes().price(4) == 12


def test_embedded_service_serves_threads_and_tells_of_its_end(broker_uri):
    result = run_script("embedded", broker_uri)
    lines = result.stdout.splitlines()
    assert lines == ["Hello, Ada!", "Hello, Ben!", "ended well"]
    assert (result.returncode, result.stderr) == (0, "")


_print = print


class Printed:
    """Takes what all threads print. (pytest's own capture loses what comes while it is read.)"""

    def __init__(self):
        self.lines = []

    def print(self, *values, file=None, flush=False, **options):
        if file is None:
            self.lines.append(" ".join(map(str, values)))
        else:
            _print(*values, file=file, flush=flush, **options)

    def wait_for(self, *expected):
        """Wait until all of these were printed; return all that was."""
        end = time.monotonic() + TIMEOUT
        while True:
            text = "\n".join(self.lines)
            if all(text.count(word) >= expected.count(word) for word in expected):
                return text
            assert time.monotonic() < end, text
            threading.Event().wait(0.01)


@pytest.fixture
def printed(monkeypatch):
    made = Printed()
    monkeypatch.setattr("builtins.print", made.print)
    return made


def test_events_go_to_whom_they_are_for(load, runner_factory, amqp_config, printed):
    module = load("events")
    runner_factory(module.Shop, module.Warehouse, config=amqp_config).start()
    with ServiceRpcClient("shop", config=amqp_config, timeout=TIMEOUT) as shop:
        shop.sell("piano")
    printed.wait_for("packed", "counted", "shown", "shown")  # the delayed event is shown too


def test_standalone_events_are_handled(load, runner_factory, amqp_config, broker_uri, printed):
    assert (EXAMPLES / "standalone_events.py").exists()
    runner_factory(load("events").Warehouse, config=amqp_config).start()
    result = run_script("standalone_events", broker_uri)
    assert (result.returncode, result.stderr) == (0, "")
    printed.wait_for("packed", "counted")


def test_messaging_carries_parcels(load, runner_factory, amqp_config, printed):
    runner_factory(load("messaging").Post, config=amqp_config).start()
    with ServiceRpcClient("post", config=amqp_config, timeout=TIMEOUT) as post:
        post.send("Ada", "small")
        post.send("Ben", "big")
    assert "Ada" not in printed.wait_for("carried to", "Ben")


def test_timers_tick(load, runner_factory, amqp_config, printed):
    runner_factory(load("timers").Clock, config=amqp_config).start()
    printed.wait_for("tick", "tick", "tick")


@pytest.mark.parametrize(
    ("data", "greeting"),
    [
        ({}, "Hello, stranger!"),
        ({"language": "de"}, "Hallo, stranger!"),
        ({"language": "de", "user_id": "Ada"}, "Hallo, Ada!"),
    ],
)
def test_context_is_carried_along(load, runner_factory, amqp_config, data, greeting):
    runner_factory(load("context").Greeter, config=amqp_config).start()
    with ServiceRpcClient(
        "greeter", context_data=data, config=amqp_config, timeout=TIMEOUT
    ) as greeter:
        assert greeter.greet() == greeting


class QueueService(http.server.BaseHTTPRequestHandler):
    """A queue over HTTP, for the receiver that polls."""

    messages: ClassVar = []
    deleted: ClassVar = queue.SimpleQueue()

    def do_GET(self):
        body = json.dumps(self.messages.pop(0)).encode() if self.messages else b""
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_DELETE(self):
        self.send_response(204)
        self.end_headers()
        self.deleted.put(self.path)

    def log_message(self, *args):
        pass


def test_polling_handles_each_message_and_stops(load, container_factory, printed, caplog):
    QueueService.messages = [{"id": number, "body": f"letter {number}"} for number in range(5)]
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), QueueService) as server:
        serving = threading.Thread(target=server.serve_forever, daemon=True)
        serving.start()
        config = {"QUEUE_URL": f"http://127.0.0.1:{server.server_address[1]}/queue"}
        container = container_factory(load("polling").Printer, config=config)
        container.start()
        printed.wait_for(*(f"letter {number}" for number in range(5)))
        deleted = {QueueService.deleted.get(timeout=TIMEOUT) for _ in range(5)}
        assert deleted == {f"/queue/{number}" for number in range(5)}
        container.stop()
        server.shutdown()
        serving.join(TIMEOUT)
    assert "killed" not in caplog.text


class Receiver(Entrypoint):
    """A receiver as one writes it at first: its loop knows of no end."""

    def start(self):
        self.container.spawn_managed_thread(self.run, identifier="Receiver.run")

    def run(self):
        while True:
            with urllib.request.urlopen(self.container.config["QUEUE_URL"]) as answer:
                body = answer.read()
            if body:
                self.handle_message(json.loads(body))

    def handle_message(self, message):
        self.container.spawn_worker(
            self, (message["body"],), {}, handle_result=partial(self.handle_result, message["id"])
        )

    def handle_result(self, message_id, worker_ctx, result, exc_info):
        url = f"{self.container.config['QUEUE_URL']}/{message_id}"
        urllib.request.urlopen(urllib.request.Request(url, method="DELETE")).close()
        return result, exc_info


@pytest.mark.parametrize("goes_on", [True, False], ids=["calls again", "never calls again"])
def test_receiver_whose_loop_knows_no_end_works_and_stops(
    container_factory, caplog, monkeypatch, goes_on
):
    if goes_on:  # so it ends, and is waited for however long that takes
        monkeypatch.setattr("threadko.containers.container._GRACE_SECONDS", TIMEOUT / 2)
    received = queue.SimpleQueue()
    held, release = threading.Event(), threading.Event()

    class Service:
        name = "receiving"

        @Receiver.decorator
        def handle(self, body):
            received.put(body)

    class Polled(QueueService):
        def do_GET(self):
            if not self.messages:
                held.set()
                release.wait(TIMEOUT)
                if goes_on:
                    self.messages.append({"id": 9, "body": "late"})
            super().do_GET()

    Polled.messages = [{"id": 1, "body": "first"}]
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Polled) as server:
        serving = threading.Thread(target=server.serve_forever, daemon=True)
        serving.start()
        url = f"http://127.0.0.1:{server.server_address[1]}/queue"
        container = container_factory(Service, config={"QUEUE_URL": url})
        container.start()
        assert received.get(timeout=TIMEOUT) == "first"
        assert Polled.deleted.get(timeout=TIMEOUT) == "/queue/1"
        assert held.wait(TIMEOUT)
        stopping = threading.Thread(target=container.stop)
        stopping.start()
        assert container.stopping.wait(TIMEOUT)
        if goes_on:
            release.set()  # a message that comes while the service stops is refused, and stays
        stopping.join(TIMEOUT)
        container.wait()
        named = "Receiver.run" in caplog.text and "does not end" in caplog.text
        assert named is not goes_on
        assert received.empty()
        assert Polled.deleted.empty()
        release.set()
        if not goes_on:
            Polled.messages.append({"id": 9, "body": "late"})
            end_of("Receiver.run")
        server.shutdown()
        serving.join(TIMEOUT)


def end_of(role):
    """Wait until no thread of that role is left."""
    for thread in threading.enumerate():
        if f"-{role}-" in thread.name:
            thread.join(TIMEOUT)
            assert not thread.is_alive()


@pytest.fixture
def web(load, container_factory):
    """Serve an example, and ask it: `ask(method, path)` returns a response."""

    def web(name, service_cls):
        config = {"WEB_SERVER_ADDRESS": "127.0.0.1:0"}
        container = container_factory(getattr(load(name), service_cls), config=config)
        container.start()
        server = container.entrypoints[0].server

        def ask(method, path, **options):
            address = f"http://{server.bind_addr}{path}"
            return requests.request(
                method, address, timeout=TIMEOUT, allow_redirects=False, **options
            )

        return ask

    return web


def test_web_answers_as_documented(web):
    ask = web("web", "HttpService")
    assert ask("GET", "/get/42").json() == {"value": 42}
    assert ask("POST", "/post", data="data").text == "received: data"
    assert [ask(method, "/multi").text for method in ("PUT", "DELETE")] == ["PUT", "DELETE"]
    forbidden = ask("GET", "/privileged")
    assert (forbidden.status_code, forbidden.text) == (403, "Forbidden")
    moved = ask("GET", "/headers")
    assert moved.status_code == 201
    assert moved.headers["Location"] == "https://www.example.com/widget/1"


def test_web_response_and_streaming(web):
    custom = web("web_response", "Service")("GET", "/custom")
    assert (custom.status_code, custom.text, custom.headers["X-Kind"]) == (418, "payload", "teapot")
    rows = web("web_streaming", "Reports")("GET", "/rows/3")
    assert rows.text == "0,0\r\n1,1\r\n2,4\r\n"
    assert rows.headers["Transfer-Encoding"] == "chunked"


def test_web_exceptions_are_mapped(web):
    ask = web("web_exceptions", "Service")
    known = ask("GET", "/known")
    assert known.status_code == 422
    assert known.json() == {
        "error": "INVALID_ARGUMENTS",
        "message": "Argument `foo` is required.",
    }
    assert ask("GET", "/missing/cat").json() == {"error": "NOT_FOUND", "message": "cat"}
    assert "client" not in ask("GET", "/unknown").text


def test_web_context_comes_from_headers(web):
    ask = web("web_context", "Greeter")
    assert ask("GET", "/hello", headers={"Accept-Language": "sv,en;q=0.5"}).text == "Hej"
    assert ask("GET", "/hello").text == "Hello"


def test_websocket_chat_greets_and_tells_all(load, container_factory):
    config = {"WEB_SERVER_ADDRESS": "127.0.0.1:0"}
    container = container_factory(load("websocket_chat").ChatService, config=config)
    container.start()
    address = next(each for each in container.subextensions if hasattr(each, "bind_addr")).bind_addr
    page = requests.get(f"http://{address}/", timeout=TIMEOUT)
    assert page.headers["Content-Type"].startswith("text/html")
    with connect(f"ws://{address}/ws") as ada, connect(f"ws://{address}/ws") as ben:
        for client, name in ((ada, "Ada"), (ben, "Ben")):
            assert json.loads(client.recv(timeout=TIMEOUT))["event"] == "connected"
            client.send(json.dumps({"method": "join", "data": {"name": name}}))
            while json.loads(client.recv(timeout=TIMEOUT)).get("data") != f"Hello, {name}!":
                pass
        ben.send(json.dumps({"method": "say", "data": {"text": "good morning"}}))
        while json.loads(ada.recv(timeout=TIMEOUT)).get("data") != {
            "name": "Ben",
            "text": "good morning",
        }:
            pass


@pytest.mark.long
def test_websocket_chat_works_in_a_browser(load, container_factory, tmp_path):
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium: apt-get install chromium")
    config = {"WEB_SERVER_ADDRESS": "127.0.0.1:0"}
    container = container_factory(load("websocket_chat").ChatService, config=config)
    container.start()
    address = next(each for each in container.subextensions if hasattr(each, "bind_addr")).bind_addr
    with browse(chromium, tmp_path) as page:
        page.open(f"http://{address}/?name=Ada&say=hello")
        page.wait_for_text("Hello, Ada!\nAda: hello", "#lines")
        page.evaluate("document.getElementById('text').value = 'good morning'")
        page.evaluate("document.getElementById('form').requestSubmit()")
        page.wait_for_text("Hello, Ada!\nAda: hello\nAda: good morning", "#lines")


def run_own_tests(name, uri):
    """Run the tests of an example as its users do: in its folder, with threadko's plugin."""
    options = ["-q", "--rootdir=.", "-c", os.devnull, "-p", "no:cacheprovider"]
    return subprocess.run(
        [sys.executable, "-m", "pytest", *options, f"{name}.py"],
        cwd=EXAMPLES,
        env={**os.environ, "AMQP_URI": uri, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=3 * TIMEOUT,
    )


@pytest.mark.parametrize(("name", "tests"), [("database", "test_database")])
def test_example_passes_its_own_tests(name, tests, broker_uri):
    assert (EXAMPLES / f"{name}.py").exists()
    result = run_own_tests(tests, broker_uri)
    assert result.returncode == 0, result.stdout
    assert " passed" in result.stdout


def test_extension_for_nameko_is_used_unchanged(load, runner_factory, amqp_config):
    try:
        runner_factory(load("nameko_compat").Runner, config=amqp_config).start()
        with ServiceRpcClient("runner", config=amqp_config, timeout=TIMEOUT) as runner:
            assert 0 <= runner.run() < TIMEOUT
    finally:
        nameko.uninstall()


def test_ported_extension_differs_by_its_import(load):
    lines = [
        (EXAMPLES / f"{name}.py").read_text(encoding="utf-8").splitlines()[1:]
        for name in ("nameko_extension", "ported_extension")
    ]
    changed = [pair for pair in zip(*lines, strict=True) if pair[0] != pair[1]]
    theirs, ours = (f"from {name}.extensions import DependencyProvider" for name in NAMES)
    assert changed == [(theirs, ours)]
    assert load("ported_extension").Stopwatch().get_dependency(None)() >= 0


NAMES = ("nameko", "threadko")
