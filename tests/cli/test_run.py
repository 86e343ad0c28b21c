import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.support.broker import find_free_ports
from tests.support.timing import TIMEOUT
from threadko.standalone.rpc import ServiceRpcClient

ROOT = Path(__file__).parents[2]

SERVICE = """
import threading, sys
from threadko.rpc import rpc

print("imported", flush=True)
never = threading.Event()

class Service:
    name = "{name}"

    @rpc
    def hello(self, name):
        return f"Hello, {{name}}!"

    @rpc
    def hang(self):
        print("hanging", flush=True)
        never.wait()
"""


class Command:
    """`threadko run` in a process; what it writes can be waited for."""

    def __init__(self, folder, *args, environ=None):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "threadko", "run", *args],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), **(environ or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines = []
        self._changed = threading.Condition()  # guards lines and _at_end
        self._at_end = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.process.stdout:
            with self._changed:
                self.lines.append(line)
                self._changed.notify_all()
        with self._changed:
            self._at_end = True
            self._changed.notify_all()

    @property
    def text(self):
        return "".join(self.lines)

    def wait_for(self, text):
        with self._changed:
            self._changed.wait_for(lambda: self._at_end or text in self.text, TIMEOUT)
            assert text in self.text, self.text

    def signal(self, number):
        self.process.send_signal(number)

    def wait(self):
        code = self.process.wait(TIMEOUT)
        self._reader.join(TIMEOUT)
        return code

    def close(self):
        self.process.kill()
        self.process.wait()
        self._reader.join(TIMEOUT)
        self.process.stdout.close()


@pytest.fixture
def start(tmp_path):
    made = []

    def start(*args, source=None, environ=None):
        if source is not None:
            (tmp_path / "svc.py").write_text(source, encoding="utf-8")
        command = Command(tmp_path, *args, environ=environ)
        made.append(command)
        return command

    yield start
    for command in made:
        command.close()


@pytest.fixture
def run_service(start, names, amqp_config):
    """Run a service until it is ready; returns the command and a client's arguments."""

    def run(*args):
        name = names.service()
        defines = [f"-d{key}={value}" for key, value in amqp_config.items()]
        command = start(*defines, *args, "svc", source=SERVICE.format(name=name))
        command.wait_for("services ready")
        return command, name

    return run


@pytest.fixture
def make_client(amqp_config):
    def make(name):
        return ServiceRpcClient(name, config=amqp_config, timeout=TIMEOUT)

    return make


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_command_stops_with_code_0_on_a_signal(run_service, number):
    command, name = run_service()
    command.signal(number)
    assert command.wait() == 0
    assert f"starting services: {name} (broker amqp://" in command.text
    assert "Traceback" not in command.text


def test_password_of_the_broker_is_not_logged(run_service):
    command, _ = run_service()
    command.signal(signal.SIGTERM)
    command.wait()
    assert "guest:guest" not in command.text


def test_command_stops_with_code_0_while_the_broker_is_absent(start):
    [port] = find_free_ports(1)
    source = SERVICE.format(name="waiting")
    command = start(f"-dAMQP_URI=amqp://guest:guest@127.0.0.1:{port}/", "svc", source=source)
    command.wait_for("starting services")
    command.signal(signal.SIGTERM)
    assert command.wait() == 0
    assert "Traceback" not in command.text


def test_command_stops_with_code_0_while_a_module_is_imported(start):
    # Waits in turns: a signal between the interpreter's last look and a wait does not end that.
    wait = "while not threading.Event().wait(0.1):\n    pass\n"
    source = f"import threading\nprint('importing', flush=True)\n{wait}"
    command = start("svc", source=source)
    command.wait_for("importing")
    command.signal(signal.SIGTERM)
    assert command.wait() == 0


def test_broker_that_refuses_is_one_line_and_code_3(start, broker_uri):
    host = broker_uri.rpartition("@")[2]
    uri = f"amqp://nobody:secret@{host}"
    command = start(f"-dAMQP_URI={uri}", "svc", source=SERVICE.format(name="refused"))
    assert command.wait() == 3
    last = command.lines[-1]
    assert last.startswith("Error: ")
    assert "secret" not in command.text
    assert "Traceback" not in command.text


@pytest.mark.parametrize(
    ("args", "source", "text"),
    [
        (["svc"], "", "no service in module 'svc'"),
        (["absent"], None, "no module named 'absent'"),
        (["svc"], "1/0", "ZeroDivisionError: division by zero"),
        (["svc"], SERVICE.format(name=""), "name"),
        (["-d", "max_workers=many", "svc"], SERVICE.format(name="s"), "max_workers"),
        (["-d", "SWITCH_INTERVAL=0", "svc"], SERVICE.format(name="s"), "SWITCH_INTERVAL"),
        (["-c", "absent.yaml", "svc"], SERVICE.format(name="s"), "absent.yaml"),
        (["-d", "LOGGING={}", "svc"], SERVICE.format(name="s"), "LOGGING"),
        (
            ["svc"],
            SERVICE.format(name="twice") + "\nclass Other(Service): pass\n",
            "two services are named 'twice'",
        ),
    ],
)
def test_mistake_is_one_line_and_code_2(start, args, source, text):
    command = start(*args, source=source)
    assert command.wait() == 2
    errors = [line for line in command.lines if line != "imported\n"]
    assert len(errors) == 1
    assert errors[0].startswith("Error: ")
    assert text in errors[0]


def test_second_signal_kills_while_a_worker_hangs(run_service, make_client):
    command, name = run_service()
    with make_client(name) as client:
        call = client.hang.call_async()
        command.wait_for("hanging")
        command.signal(signal.SIGTERM)
        command.wait_for("SIGTERM: stopping")
        command.signal(signal.SIGTERM)
        assert command.wait() == 130
        call.cancel()


def test_command_ends_by_the_deadline_while_a_worker_hangs(run_service, make_client):
    command, name = run_service("-dSHUTDOWN_TIMEOUT=0.2")
    with make_client(name) as client:
        call = client.hang.call_async()
        command.wait_for("hanging")
        command.signal(signal.SIGTERM)
        command.wait()
        call.cancel()
    assert "hang" in command.text


def test_service_answers_calls_from_another_process(run_service, make_client):
    command, name = run_service()
    with make_client(name) as client:
        assert client.hello("Ada") == "Hello, Ada!"
    command.signal(signal.SIGTERM)
    assert command.wait() == 0


def test_service_is_configured_by_the_environment_alone(start, names, amqp_config, make_client):
    name = names.service()
    environ = {f"THREADKO_{key.upper()}": value for key, value in amqp_config.items()}
    command = start("svc", source=SERVICE.format(name=name), environ=environ)
    command.wait_for("services ready")
    with make_client(name) as client:
        assert client.hello("Ada") == "Hello, Ada!"
    command.signal(signal.SIGTERM)
    assert command.wait() == 0


def test_misspelt_variable_is_warned_of(start):
    environ = {"THREADKO_AMQP_URL": "amqp://u:secret@nowhere/"}
    command = start("absent", environ=environ)
    assert command.wait() == 2
    assert "THREADKO_AMQP_URL is not read by threadko: is THREADKO_AMQP_URI meant?" in command.text
    assert "secret" not in command.text


def test_definition_without_its_value_is_one_line(start):
    command = start("-d", "AMQP_URI", "svc")
    assert command.wait() == 2
    text = "Error: the definition of AMQP_URI has no value; give one, as in AMQP_URI=VALUE\n"
    assert command.text == text


def test_configuration_is_there_when_the_module_is_imported(start):
    source = "from threadko import config\nraise SystemExit(config['own'])\n"
    command = start("-d", "own=value", "svc", source=source)
    assert command.wait() == 2
    assert "SystemExit: value" in command.text


def test_start_says_what_is_started_for_a_person_to_read(start, names, amqp_config):
    name = names.service()
    source = f'''
from threadko.events import event_handler
from threadko.rpc import rpc
from threadko.timer import timer
from threadko.web.handlers import http

class Service:
    name = "{name}"

    @rpc
    def hello(self):
        pass

    @rpc
    def bye(self):
        pass

    @timer(3600)
    def tick(self):
        pass

    @http("GET", "/")
    def index(self, request):
        return ""

class Bare:
    name = "{name}-bare"
'''
    names.services.append(f"{name}-bare")
    config = {**amqp_config, "WEB_SERVER_ADDRESS": "127.0.0.1:0", "max_workers": 3}
    defines = [f"-d{key}={value}" for key, value in config.items()]
    command = start(*defines, "svc:Service", "svc:Bare", source=source)
    command.wait_for("services ready")
    command.signal(signal.SIGTERM)
    assert command.wait() == 0
    assert f"starting services: {name}, {name}-bare (broker amqp://" in command.text
    assert f"service {name}: 3 workers; rpc: hello, bye; timer: tick; http: index" in command.text
    assert f"service {name}-bare: 3 workers; no entrypoints" in command.text
    assert f"service {name} listens on http://127.0.0.1:" in command.text
    assert "\x1b" not in command.text  # no terminal, no colours


def test_logs_are_json_when_that_is_wanted(run_service):
    command, name = run_service("-d", "LOG_FORMAT=json")
    command.signal(signal.SIGTERM)
    assert command.wait() == 0
    entries = [json.loads(line) for line in command.lines if line.startswith("{")]
    assert [entry for entry in entries if entry["message"] == "services stopped"]
    assert f"service {name} runs" in [entry["message"] for entry in entries]


def test_traceback_is_shown_when_asked_for(start):
    command = start("--debug", "absent")
    assert command.wait() == 2
    assert "Traceback" in command.text
    assert command.lines[-1].startswith("Error: no module named 'absent'")
