import os
import queue
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.broker import find_free_ports
from tests.support.timing import TIMEOUT
from threadko.cli.options import NoBrokerError, UserError
from threadko.cli.run import Shell
from threadko.exceptions import (
    BrokerRefused,
    BrokerUnavailable,
    ConfigurationError,
    ContainerStopped,
)
from threadko.standalone.rpc import ServiceRpcClient

ROOT = Path(__file__).parents[2]


class FakeRunner:
    """A runner that lives until it is told to end, and tells which of its methods were called."""

    service_names = ("fake",)

    def __init__(self, start_error=None, wait_error=None, stop_error=None, kill_error=None):
        self.errors = {
            "start": start_error,
            "wait": wait_error,
            "stop": stop_error,
            "kill": kill_error,
        }
        self.calls = queue.SimpleQueue()
        self.over = threading.Event()
        self.may_start = threading.Event()
        self.may_stop = threading.Event()
        self.may_start.set()
        self.may_stop.set()

    def _act(self, name):
        self.calls.put(name)
        error = self.errors[name]
        if error is not None:
            raise error

    def start(self):
        self._act("start")
        assert self.may_start.wait(TIMEOUT)
        if self.over.is_set():
            raise ContainerStopped("stopped while starting")

    def wait(self):
        if self.errors["wait"] is None:
            assert self.over.wait(TIMEOUT)
        self._act("wait")

    def stop(self):
        self.calls.put("stop")
        assert self.may_stop.wait(TIMEOUT)
        self.over.set()
        self.may_start.set()
        if self.errors["stop"] is not None:
            raise self.errors["stop"]

    def kill(self):
        self._act("kill")


class Left(BaseException):
    """Stands for the end of the process."""


def leave(code):
    raise Left(f"with {int(code)}")


@pytest.fixture
def run_shell():
    """Run a shell on a thread of its own; returns the shell and the future of its exit code."""
    made = []
    with ThreadPoolExecutor() as executor:

        def run(runner):
            shell = Shell(runner, leave)
            made.append(runner)
            return shell, executor.submit(shell.run)

        yield run
        for runner in made:
            runner.over.set()
            runner.may_start.set()
            runner.may_stop.set()


def expect_calls(runner, *names):
    assert [runner.calls.get(timeout=TIMEOUT) for _ in names] == list(names)


def test_services_that_end_by_themselves_end_the_command(run_shell):
    runner = FakeRunner()
    runner.start = runner.over.set
    _, code = run_shell(runner)
    assert code.result(TIMEOUT) == 0


def test_first_signal_stops_and_the_code_is_0(run_shell):
    runner = FakeRunner()
    shell, code = run_shell(runner)
    expect_calls(runner, "start")
    shell.on_signal(signal.SIGTERM)
    expect_calls(runner, "stop")
    assert code.result(TIMEOUT) == 0


def test_signal_during_start_stops_and_the_code_is_0(run_shell):
    runner = FakeRunner()
    runner.may_start.clear()
    shell, code = run_shell(runner)
    expect_calls(runner, "start")
    shell.on_signal(signal.SIGINT)
    expect_calls(runner, "stop")
    assert code.result(TIMEOUT) == 0


def test_second_signal_kills_and_leaves_the_process(run_shell):
    runner = FakeRunner()
    runner.may_stop.clear()
    shell, code = run_shell(runner)
    expect_calls(runner, "start")
    shell.on_signal(signal.SIGINT)
    expect_calls(runner, "stop")
    shell.on_signal(signal.SIGINT)
    expect_calls(runner, "kill")
    with pytest.raises(Left, match="with 130"):
        code.result(TIMEOUT)


def test_second_signal_leaves_even_if_killing_fails(run_shell, caplog):
    runner = FakeRunner(kill_error=ValueError("cannot"))
    runner.may_stop.clear()
    shell, code = run_shell(runner)
    shell.on_signal(signal.SIGINT)
    shell.on_signal(signal.SIGINT)
    with pytest.raises(Left, match="with 130"):
        code.result(TIMEOUT)
    assert "killing failed" in caplog.text


def test_third_signal_leaves_at_once(run_shell):
    runner = FakeRunner()
    runner.may_stop.clear()
    held = threading.Event()
    runner.kill = lambda: held.wait(TIMEOUT)
    shell, code = run_shell(runner)
    for _ in range(3):
        shell.on_signal(signal.SIGTERM)
    with pytest.raises(Left, match="with 130"):
        code.result(TIMEOUT)
    held.set()


def test_failed_service_is_logged_and_code_1(run_shell, caplog):
    runner = FakeRunner(wait_error=ValueError("broken"))
    _, code = run_shell(runner)
    assert code.result(TIMEOUT) == 1
    assert "ValueError: broken" in caplog.text


def test_failed_stop_is_logged_and_code_1(run_shell, caplog):
    runner = FakeRunner(stop_error=ValueError("broken"))
    shell, code = run_shell(runner)
    shell.on_signal(signal.SIGTERM)
    assert code.result(TIMEOUT) == 1
    assert "ValueError: broken" in caplog.text


def test_error_is_logged_once_though_wait_and_stop_raise_it(run_shell, caplog):
    error = ValueError("broken")
    runner = FakeRunner(stop_error=error)
    shell, code = run_shell(runner)
    expect_calls(runner, "start")
    runner.errors["wait"] = error
    shell.on_signal(signal.SIGTERM)
    assert code.result(TIMEOUT) == 1
    assert caplog.text.count("a service failed") == 1


def test_start_that_nobody_stopped_but_is_stopped_is_a_failure(run_shell):
    _, code = run_shell(FakeRunner(start_error=ContainerStopped("atexit")))
    assert code.result(TIMEOUT) == 1


@pytest.mark.parametrize("error", [BrokerRefused("no login"), BrokerUnavailable("not there")])
def test_broker_that_refuses_at_start_is_code_3(run_shell, error):
    _, code = run_shell(FakeRunner(start_error=error))
    with pytest.raises(NoBrokerError) as caught:
        code.result(TIMEOUT)
    assert caught.value.exit_code == 3
    assert caught.value.format_message() == str(error)


def test_wrong_configuration_at_start_is_code_2(run_shell):
    _, code = run_shell(FakeRunner(start_error=ConfigurationError("wrong")))
    with pytest.raises(UserError) as caught:
        code.result(TIMEOUT)
    assert caught.value.exit_code == 2


def test_broker_that_refuses_later_is_a_failed_service(run_shell):
    _, code = run_shell(FakeRunner(wait_error=BrokerRefused("no more")))
    assert code.result(TIMEOUT) == 1


def test_process_is_left_when_a_thread_of_a_service_does_not_end(run_shell):
    held = threading.Event()
    straggler = threading.Thread(target=held.wait, name="threadko-fake-worker-1", daemon=True)
    straggler.start()
    runner = FakeRunner()
    shell, code = run_shell(runner)
    shell.on_signal(signal.SIGTERM)
    with pytest.raises(Left, match="with 0"):
        code.result(TIMEOUT)
    held.set()
    straggler.join(TIMEOUT)


def test_leaving_survives_a_stream_that_cannot_be_flushed(run_shell, monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    runner = FakeRunner()
    shell, code = run_shell(runner)
    shell.on_signal(signal.SIGTERM)
    shell.on_signal(signal.SIGTERM)
    with pytest.raises(Left, match="with 130"):
        code.result(TIMEOUT)


# From here on the real command, in a process of its own.

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

    def __init__(self, folder, *args):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "threadko", "run", *args],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
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

    def start(*args, source=None):
        if source is not None:
            (tmp_path / "svc.py").write_text(source, encoding="utf-8")
        command = Command(tmp_path, *args)
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
    source = "import threading\nprint('importing', flush=True)\nthreading.Event().wait()\n"
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


def test_configuration_is_there_when_the_module_is_imported(start):
    source = "from threadko import config\nraise SystemExit(config['own'])\n"
    command = start("-d", "own=value", "svc", source=source)
    assert command.wait() == 2
    assert "SystemExit: value" in command.text
