"""Extensions written for nameko, imported as they are."""

import http.server
import importlib
import json
import os
import queue
import subprocess
import sys
import threading
import venv
import zlib
from pathlib import Path
from typing import ClassVar

import pytest

import threadko
import threadko.extensions
from tests.support import amqp
from tests.support.servers import find_redis
from tests.support.timing import TIMEOUT
from threadko.compat import nameko
from threadko.exceptions import ConfigurationError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def installed():
    nameko.install()
    yield
    nameko.uninstall()
    assert not [name for name in sys.modules if name.partition(".")[0] == "nameko"]


@pytest.mark.parametrize(
    "name",
    [
        "amqp.publish",
        "containers",
        "contextdata",
        "dependency_providers",
        "events",
        "exceptions",
        "extensions",
        "messaging",
        "rpc",
        "runners",
        "standalone.events",
        "standalone.rpc",
        "timer",
        "utils",
        "utils.retry",
        "web.handlers",
        "web.server",
        "web.websocket",
    ],
)
def test_names_lead_to_the_very_modules_of_threadko(installed, name):
    theirs = importlib.import_module(f"nameko.{name}")
    ours = importlib.import_module(f"threadko.{name}")
    assert theirs is ours
    assert ours.__name__ == ours.__spec__.name == f"threadko.{name}"
    assert ours.__spec__.loader is not nameko._finder


def test_config_is_found_on_the_package(installed):
    module = importlib.import_module("nameko")
    assert module is threadko
    assert module.config is threadko.config


def test_no_module_of_threadko_is_loaded_twice(installed):
    before = {name for name in sys.modules if name.startswith("threadko.")}
    importlib.import_module("nameko.web.handlers")
    importlib.import_module("nameko.extensions")
    files = [
        getattr(module, "__file__", None)
        for name, module in sys.modules.items()
        if name.startswith("threadko.")
    ]
    assert len(set(files)) == len(files)
    assert before <= set(sys.modules)


@pytest.mark.parametrize("name", ["nameko.cli.main", "nameko.concurrency", "nameko.rpc.attic"])
def test_module_that_threadko_has_not_is_said_to_be_missing(installed, name):
    with pytest.raises(ModuleNotFoundError, match="threadko has no 'nameko"):
        importlib.import_module(name)


def test_other_modules_are_found_as_ever(installed):
    with pytest.raises(ModuleNotFoundError, match="No module named 'nameko_attic'"):
        importlib.import_module("nameko_attic")


def test_nothing_is_answered_unless_asked_for(installed):
    nameko.install()  # a second time does nothing
    assert sys.meta_path.count(nameko._finder) == 1
    nameko.uninstall()
    nameko.uninstall()
    with pytest.raises(ModuleNotFoundError, match="No module named 'nameko'"):
        importlib.import_module("nameko.extensions")


def test_installed_nameko_is_left_alone(tmp_path, monkeypatch):
    (tmp_path / "nameko").mkdir()
    (tmp_path / "nameko" / "__init__.py").write_text("theirs = True")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigurationError, match="pip uninstall nameko"):
        nameko.install()
    assert importlib.import_module("nameko").theirs
    with pytest.raises(ConfigurationError, match="pip uninstall nameko"):
        nameko.install()
    del sys.modules["nameko"]


# Published ones


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """A Python with published extensions, and without the nameko that they ask for."""
    folder = tmp_path_factory.mktemp("extensions")
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    pip = [python, "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
    subprocess.run([*pip, "-r", ROOT / "requirements" / "base.txt"], check=True)
    needs = ROOT / "requirements" / "nameko_extensions.txt"
    subprocess.run([*pip, "--no-deps", "-r", needs], check=True)
    return python


SCRIPT = """
import json, sys, threading
from threadko.compat import nameko
nameko.install()
from nameko.extensions import Entrypoint
from nameko.containers import ServiceContainer

class Once(Entrypoint):
    pass

def run(service_cls, config, method="method", args=()):
    "Run one worker to its end, and return what became of it."
    container = ServiceContainer(service_cls, config=config)
    container.start()
    outcome = []
    def handle(ctx, result, exc_info):
        outcome[:] = [result, exc_info and repr(exc_info[1])]
        return result, exc_info
    container.spawn_worker(container.entrypoints[0], args, {{}}, handle_result=handle)
    container.stop()
    return outcome

{body}
"""


def run(python, body):
    """Run a script with nameko's names answered, and return what it prints."""
    ended = subprocess.run(
        [python, "-W", "ignore", "-c", SCRIPT.format(body=body)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return [json.loads(line) for line in ended.stdout.splitlines()]


@pytest.mark.long
@pytest.mark.drivers
@pytest.mark.timeout(600)
def test_nameko_redis_works(python):
    body = f"""
from nameko_redis import Redis

class Service:
    name = "service"
    redis = Redis("development")

    @Once.decorator
    def method(self, value):
        self.redis.set("threadko-compat", value, ex=60)
        return self.redis.get("threadko-compat")

config = {{"REDIS_URIS": {{"development": {find_redis()!r}}}}}
print(json.dumps(run(Service, config, args=["kept"])))
"""
    assert run(python, body) == [["kept", None]]


@pytest.mark.long
@pytest.mark.timeout(600)
def test_nameko_tracer_works(python):
    body = """
import logging
from nameko_tracer import Tracer, constants

class Keep(logging.Handler):
    def emit(self, record):
        trace = getattr(record, constants.TRACE_KEY)
        print(json.dumps([trace["stage"], trace["call_args"], trace["entrypoint_type"],
                          trace.get("response"), trace.get("exception_type")]))

logger = logging.getLogger(constants.LOGGER_NAME)
logger.setLevel(logging.INFO)
logger.addHandler(Keep())
logging.getLogger("threadko").addHandler(logging.NullHandler())

class Service:
    name = "service"
    tracer = Tracer()

    @Once.decorator(sensitive_arguments="secret")
    def method(self, value, secret):
        return 10 / value

run(Service, {}, args=[5, "hush"])
run(Service, {}, args=[0, "hush"])
"""
    lines = run(python, body)
    assert [line[0] for line in lines] == ["request", "response"] * 2
    assert "hush" not in json.dumps(lines)
    assert lines[0][2] == "Once"
    assert lines[1][3] == 2.0
    assert lines[3][4] == "ZeroDivisionError"
    assert set(lines[0][1]) == {"value", "secret"}


@pytest.mark.long
@pytest.mark.timeout(600)
def test_nameko_sqlalchemy_works(python, tmp_path):
    body = f"""
import sqlalchemy
from nameko_sqlalchemy import Database
from sqlalchemy import orm

class Base(orm.DeclarativeBase):
    pass

class Row(Base):
    __tablename__ = "rows"
    number = sqlalchemy.Column(sqlalchemy.Integer, primary_key=True)

class Service:
    name = "service"
    database = Database(Base)

    @Once.decorator
    def method(self, number):
        with self.database.get_session() as session:
            session.add(Row(number=number))
        return self.database.session.query(Row).count()

uri = "sqlite:///{tmp_path}/rows"
Base.metadata.create_all(sqlalchemy.create_engine(uri))
config = {{"DB_URIS": {{"service:Base": uri}}}}
print(json.dumps(run(Service, config, args=[1])))
"""
    assert run(python, body) == [[1, None]]


AMQP_RETRY = """
import queue
from nameko.messaging import Queue
from nameko.standalone.rpc import ServiceRpcClient
from nameko_amqp_retry import Backoff
from nameko_amqp_retry.messaging import consume
from nameko_amqp_retry.rpc import rpc
from threadko.amqp.publish import Publisher

config = {{"AMQP_URI": {uri!r}}}
consumed = queue.SimpleQueue()

class Soon(Backoff):
    schedule = (50,)
    limit = 2
    random_sigma = 0

class Service:
    name = {name!r}
    tried = []

    def once_more(self, value):
        self.tried.append(value)
        if self.tried.count(value) < 2:
            raise Soon()
        return [value, self.tried.count(value)]

    @rpc
    def again(self, value):
        return self.once_more(value)

    @rpc
    def never(self):
        raise Soon()

    @consume(Queue({queue!r}))
    def take(self, value):
        consumed.put(self.once_more(value))

container = ServiceContainer(Service, config=config)
container.start()
with ServiceRpcClient(Service.name, timeout={timeout}, config=config) as service:
    print(json.dumps(service.again("rpc")))
    try:
        service.never()
    except Exception as error:
        print(json.dumps(str(error)))
Publisher({uri!r}, routing_key={queue!r}).publish("message")
print(json.dumps(consumed.get(timeout={timeout})))
container.stop()
"""


@pytest.mark.long
@pytest.mark.timeout(600)
def test_nameko_amqp_retry_works(python, broker_uri, names):
    name, queue_name = names.service("retried"), names.queue()
    try:
        again, never, taken = run(
            python,
            AMQP_RETRY.format(uri=broker_uri, name=name, queue=queue_name, timeout=TIMEOUT),
        )
    finally:
        amqp.delete_exchange(broker_uri, "backoff")
    assert again == ["rpc", 2]
    assert never.startswith("Expired Backoff aborted after '2' retries")
    assert taken == ["message", 2]
    assert amqp.queue_depth(broker_uri, queue_name) == 0


@pytest.mark.long
@pytest.mark.timeout(600)
def test_nameko_prometheus_works(python):
    body = """
from nameko_prometheus import PrometheusMetrics
from prometheus_client import generate_latest

class Service:
    name = "service"
    metrics = PrometheusMetrics()

    @Once.decorator
    def method(self):
        return 1

assert run(Service, {}) == [1, None]
for line in generate_latest().decode().splitlines():
    if "workers" in line and not line.startswith("#"):
        print(json.dumps(line.split()))
"""
    assert sorted(run(python, body)) == [
        ["service_service_max_workers", "10.0"],
        ["service_service_running_workers", "1.0"],
    ]


@pytest.mark.long
@pytest.mark.timeout(600)
def test_nameko_statsd_works(python):
    body = """
import socket
from nameko_statsd import StatsD

server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("127.0.0.1", 0))
server.settimeout(30)

class Service:
    name = "service"
    statsd = StatsD("test")

    @Once.decorator
    @statsd.timer("taken")
    def method(self):
        self.statsd.incr("calls")

host, port = server.getsockname()
settings = {"host": host, "port": port, "prefix": "p", "maxudpsize": 512, "enabled": True}
run(Service, {"STATSD": {"test": settings}})
for _ in range(2):
    print(json.dumps(server.recv(512).decode().split(":")[0]))
"""
    assert run(python, body) == ["p.calls", "p.taken"]


SENTRY = """
import logging
import nameko_sentry
from raven.transport.threaded import ThreadedHTTPTransport

if {threaded}:
    nameko_sentry.EventletHTTPTransport = ThreadedHTTPTransport

class Service:
    name = "service"
    sentry = nameko_sentry.SentryReporter()

    @Once.decorator
    def method(self):
        raise LookupError("told")

class Keep(logging.Handler):
    def emit(self, record):
        print(json.dumps(record.getMessage()))

logging.getLogger("sentry.errors").addHandler(Keep())
logging.getLogger("threadko").addHandler(logging.NullHandler())
run(Service, {{"SENTRY": {{"DSN": "http://key:secret@127.0.0.1:{port}/2"}}}})
"""


class Sentry(http.server.BaseHTTPRequestHandler):
    """Keeps the reports that come."""

    reports: ClassVar = queue.SimpleQueue()

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.reports.put(json.loads(zlib.decompress(body)))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args):
        pass


@pytest.mark.long
@pytest.mark.timeout(600)
def test_nameko_sentry_sends_by_threads_but_as_it_is_asks_for_eventlet(python):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Sentry) as server:
        serving = threading.Thread(target=server.serve_forever, daemon=True)
        serving.start()
        port = server.server_address[1]
        lines = run(python, SENTRY.format(threaded=False, port=port))
        assert "EventletHTTPTransport requires eventlet" in lines[0]
        assert Sentry.reports.empty()
        assert run(python, SENTRY.format(threaded=True, port=port)) == []
        report = Sentry.reports.get(timeout=TIMEOUT)
        server.shutdown()
        serving.join(TIMEOUT)
    assert "LookupError" in report["message"]
    assert report["tags"]["method_name"] == "method"
