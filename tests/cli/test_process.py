import logging
import queue
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.timing import TIMEOUT
from threadko.cli.options import NoBrokerError, UserError
from threadko.cli.process import Shell
from threadko.exceptions import (
    BrokerRefused,
    BrokerUnavailable,
    ConfigurationError,
    ContainerStopped,
)


class FakeRunner:
    """A runner that lives until it is told to end, and tells which of its methods were called."""

    service_names = ("fake",)
    containers = ()

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
    shell.signal(signal.SIGTERM)
    expect_calls(runner, "stop")
    assert code.result(TIMEOUT) == 0


def test_signal_during_start_stops_and_the_code_is_0(run_shell):
    runner = FakeRunner()
    runner.may_start.clear()
    shell, code = run_shell(runner)
    expect_calls(runner, "start")
    shell.signal(signal.SIGINT)
    expect_calls(runner, "stop")
    assert code.result(TIMEOUT) == 0


def test_second_signal_kills_and_leaves_the_process(run_shell):
    runner = FakeRunner()
    runner.may_stop.clear()
    shell, code = run_shell(runner)
    expect_calls(runner, "start")
    shell.signal(signal.SIGINT)
    expect_calls(runner, "stop")
    shell.signal(signal.SIGINT)
    expect_calls(runner, "kill")
    with pytest.raises(Left, match="with 130"):
        code.result(TIMEOUT)


class Stuck(logging.Handler):
    """A pipe that nobody reads."""

    def __init__(self):
        super().__init__()
        self.goes_on = threading.Event()

    def emit(self, record):
        self.goes_on.wait(TIMEOUT)


def test_signals_are_heard_though_logging_is_stuck(run_shell):
    runner = FakeRunner()
    runner.may_stop.clear()
    runner.kill = lambda: (runner.calls.put("kill"), runner.may_stop.wait(TIMEOUT))
    shell, code = run_shell(runner)
    expect_calls(runner, "start")
    stuck = Stuck()
    logging.getLogger("threadko.cli.process").addHandler(stuck)
    try:
        shell.signal(signal.SIGTERM)
        expect_calls(runner, "stop")
        shell.signal(signal.SIGTERM)
        expect_calls(runner, "kill")
        shell.signal(signal.SIGTERM)
        with pytest.raises(Left, match="with 130"):
            code.result(TIMEOUT / 2)
    finally:
        logging.getLogger("threadko.cli.process").removeHandler(stuck)
        stuck.goes_on.set()


def test_second_signal_leaves_even_if_killing_fails(run_shell, caplog):
    runner = FakeRunner(kill_error=ValueError("cannot"))
    runner.may_stop.clear()
    shell, code = run_shell(runner)
    shell.signal(signal.SIGINT)
    shell.signal(signal.SIGINT)
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
        shell.signal(signal.SIGTERM)
    with pytest.raises(Left, match="with 130"):
        code.result(TIMEOUT)
    held.set()


class FakeContainer:
    being_killed = True


def test_stop_that_turned_into_a_kill_is_code_4(run_shell, caplog):
    runner = FakeRunner()
    runner.containers = [FakeContainer()]
    shell, code = run_shell(runner)
    shell.signal(signal.SIGTERM)
    assert code.result(TIMEOUT) == 4
    assert "SHUTDOWN_TIMEOUT" in caplog.text


def test_failed_service_is_code_1_even_if_it_was_killed(run_shell):
    runner = FakeRunner(wait_error=ValueError("broken"))
    runner.containers = [FakeContainer()]
    shell, code = run_shell(runner)
    shell.signal(signal.SIGTERM)
    assert code.result(TIMEOUT) == 1


def test_service_that_killed_itself_without_an_error_is_code_0(run_shell):
    runner = FakeRunner()
    runner.start = runner.over.set
    runner.containers = [FakeContainer()]
    _, code = run_shell(runner)
    assert code.result(TIMEOUT) == 0


def test_failed_service_is_logged_and_code_1(run_shell, caplog):
    runner = FakeRunner(wait_error=ValueError("broken"))
    _, code = run_shell(runner)
    assert code.result(TIMEOUT) == 1
    assert "ValueError: broken" in caplog.text


def test_failed_stop_is_logged_and_code_1(run_shell, caplog):
    runner = FakeRunner(stop_error=ValueError("broken"))
    shell, code = run_shell(runner)
    shell.signal(signal.SIGTERM)
    assert code.result(TIMEOUT) == 1
    assert "ValueError: broken" in caplog.text


def test_error_is_logged_once_though_wait_and_stop_raise_it(run_shell, caplog):
    error = ValueError("broken")
    runner = FakeRunner(stop_error=error)
    shell, code = run_shell(runner)
    expect_calls(runner, "start")
    runner.errors["wait"] = error
    shell.signal(signal.SIGTERM)
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
    shell.signal(signal.SIGTERM)
    with pytest.raises(Left, match="with 0"):
        code.result(TIMEOUT)
    held.set()
    straggler.join(TIMEOUT)


def test_leaving_survives_a_stream_that_cannot_be_flushed(run_shell, monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    runner = FakeRunner()
    runner.may_stop.clear()
    shell, code = run_shell(runner)
    shell.signal(signal.SIGTERM)
    shell.signal(signal.SIGTERM)
    with pytest.raises(Left, match="with 130"):
        code.result(TIMEOUT)


def test_signals_of_the_process_are_heard_and_their_handlers_restored():
    before = signal.getsignal(signal.SIGTERM)
    runner = FakeRunner()
    shell = Shell(runner, leave)

    def stop():
        expect_calls(runner, "start")
        signal.raise_signal(signal.SIGUSR2)
        signal.raise_signal(signal.SIGTERM)

    former = signal.signal(signal.SIGUSR2, lambda number, frame: None)
    sender = threading.Thread(target=stop)
    sender.start()
    try:
        assert shell.run_with_signals() == 0
    finally:
        sender.join(TIMEOUT)
        signal.signal(signal.SIGUSR2, former)
    assert signal.getsignal(signal.SIGTERM) is before
    assert signal.set_wakeup_fd(-1) == -1


def test_signal_after_the_end_does_nothing(run_shell):
    runner = FakeRunner()
    runner.start = runner.over.set
    shell, code = run_shell(runner)
    assert code.result(TIMEOUT) == 0
    shell.signal(signal.SIGTERM)
