"""Each command line in nameko's documentation, with the word changed, does what is said there."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import requests
import yaml

from tests.cli.test_backdoor import Client
from tests.stories.process import Process
from tests.support.broker import find_free_ports
from tests.support.timing import TIMEOUT
from threadko.standalone.rpc import ServiceRpcClient

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[2]

SOURCE = """
from threadko import config
from threadko.rpc import rpc
from threadko.web.handlers import http

class Greeting:
    name = "{greeting}"
    greeting = config.get("GREETING", "Hello")

    @rpc
    def hello(self, name):
        return f"{{self.greeting}}, {{name}}!"

class HttpService:
    name = "{http}"

    @http("GET", "/get/<int:value>")
    def get_method(self, request, value):
        return str(value)
"""


class Folder:
    """A folder with services in it, as a module and in a package."""

    def __init__(self, path, config, stack):
        self.path = path
        self.config = config
        self._stack = stack
        self.environ = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            # What the tests need of their own, where a person would have the defaults.
            "THREADKO_AMQP_URI": config["AMQP_URI"],
            "THREADKO_RPC_EXCHANGE": config["rpc_exchange"],
        }

    def start(self, line):
        """Run a line until services are ready."""
        process = Process(*self._split(line), cwd=self.path)
        self._stack.append(process)
        process.wait_for("services ready", "stderr")
        return process

    def run(self, line, stdin=""):
        """Run a line to its end."""
        return subprocess.run(
            [sys.executable, *self._split(line)],
            input=stdin,
            cwd=self.path,
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=2 * TIMEOUT,
        )

    @staticmethod
    def _split(line):
        program, *arguments = line.split()
        assert program == "threadko"
        return ["-m", "threadko", *arguments]


@pytest.fixture
def service(names):
    return names.service("greeting")


@pytest.fixture
def folder(tmp_path, amqp_config, names, service, monkeypatch):
    source = SOURCE.format(greeting=service, http=names.service("http"))
    (tmp_path / "helloworld.py").write_text(source, encoding="utf-8")
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").touch()
    (tmp_path / "package" / "helloworld.py").write_text(source, encoding="utf-8")
    config = {**amqp_config, "GREETING": "Good day", "WEB_SERVER_ADDRESS": "127.0.0.1:0"}
    (tmp_path / "foobar.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    processes = []
    made = Folder(tmp_path, amqp_config, processes)
    for key in ("THREADKO_AMQP_URI", "THREADKO_RPC_EXCHANGE"):
        monkeypatch.setenv(key, made.environ[key])
    yield made
    for process in processes:
        with process:
            process.send_signal(signal.SIGTERM)


def hello(folder, service):
    with ServiceRpcClient(service, config=folder.config, timeout=TIMEOUT) as client:
        return client.hello("Matt")


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("threadko run helloworld:Greeting", "Hello, Matt!"),
        ("threadko run package.helloworld:Greeting", "Hello, Matt!"),
        ("threadko run --config ./foobar.yaml helloworld:Greeting", "Good day, Matt!"),
        ("threadko run -c ./foobar.yaml helloworld", "Good day, Matt!"),
        ("threadko run --define GREETING=Hi helloworld:Greeting", "Hi, Matt!"),
        ("threadko run -c foobar.yaml -d GREETING=Hi -d max_workers=2 helloworld", "Hi, Matt!"),
        ("threadko run --broker amqp://guest:guest@nowhere helloworld:Greeting", "Hello, Matt!"),
    ],
)
def test_run_runs_services(folder, service, line, answer):
    process = folder.start(line)
    assert hello(folder, service) == answer
    process.send_signal(signal.SIGINT)
    assert process.wait() == 0


def test_run_serves_http_at_the_address_of_the_configuration(folder):
    [port] = find_free_ports(1)
    folder.start(f"threadko run helloworld -d WEB_SERVER_ADDRESS=127.0.0.1:{port}")
    assert requests.get(f"http://127.0.0.1:{port}/get/42", timeout=TIMEOUT).text == "42"


@pytest.mark.parametrize(
    "option", ["--backdoor-port ", "--backdoor-port localhost:", "--backdoor "]
)
def test_run_opens_a_backdoor(folder, service, option):
    [port] = find_free_ports(1)
    folder.start(f"threadko run {option}{port} helloworld:Greeting")
    client = Client(port)
    with client.socket:
        assert "<threadko.runners.ServiceRunner object" in client.enter("runner")
        assert "RuntimeError" in client.enter("quit()")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_first_signal_stops_and_the_second_interrupt_kills(folder, number):
    process = folder.start("threadko run helloworld:Greeting")
    process.send_signal(number)
    assert process.wait() == 0


@pytest.mark.parametrize(
    "line", ["threadko shell", "threadko shell --config ./foobar.yaml --interface plain"]
)
def test_shell_calls_services_and_dispatches_events(folder, service, line):
    folder.start("threadko run helloworld:Greeting")
    script = f"""
n.rpc["{service}"].hello(name="Matt")
n.dispatch_event("service", "event_type", "event_data")
n.config.get("GREETING")
n.disconnect()
"""
    done = folder.run(line, script)
    assert done.returncode == 0, done.stderr
    greeting = ["'Good day'"] if "--config" in line else []
    assert done.stdout.splitlines() == ["'Hello, Matt!'", *greeting]


def test_show_config_prints_the_configuration(folder):
    done = folder.run("threadko show-config --config ./foobar.yaml")
    assert done.returncode == 0
    assert yaml.safe_load(done.stdout)["GREETING"] == "Good day"
    done = folder.run("threadko show-config -c ./foobar.yaml --define GREETING=Hi")
    assert yaml.safe_load(done.stdout)["GREETING"] == "Hi"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("threadko --help", ["run", "shell", "show-config"]),
        ("threadko run --help", ["--config", "--define", "--broker", "--backdoor-port"]),
        ("threadko shell --help", ["--config", "--define", "--broker", "--interface"]),
        ("threadko show-config --help", ["--config", "--define"]),
        ("threadko --version", ["threadko, version "]),
    ],
)
def test_help_names_what_nameko_names(folder, line, words):
    done = folder.run(line)
    assert done.returncode == 0
    assert all(word in done.stdout for word in words)


@pytest.mark.parametrize(
    ("line", "code", "text"),
    [
        ("threadko run nosuch", 2, "no module named 'nosuch'"),
        ("threadko run helloworld:NoSuch", 2, "it has Greeting, HttpService"),
        ("threadko run helloworld.py", 2, "try 'helloworld'"),
        ("threadko run package/helloworld.py", 2, "try 'package.helloworld'"),
        ("threadko run --config absent.yaml helloworld", 2, "absent.yaml"),
        ("threadko run --backdoor-port foo helloworld", 2, "[host:]port"),
        ("threadko run", 2, "MODULE[:CLASS]"),
        ("threadko rum", 2, "No such command"),
    ],
)
def test_mistakes_are_told(folder, line, code, text):
    begun = time.monotonic()
    done = folder.run(line)
    assert done.returncode == code
    assert text in done.stderr
    assert done.stdout == ""
    assert time.monotonic() - begun < TIMEOUT
