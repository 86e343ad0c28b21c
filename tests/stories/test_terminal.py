"""`threadko run` as somebody at a terminal sees it: Ctrl-C at each stage, colours, reload."""

import contextlib
import os
import signal
import time

import pytest

from tests.support.broker import find_free_ports
from tests.support.terminal import CTRL_C, Terminal
from tests.support.timing import TIMEOUT

SOURCE = """
from tests.stories.controlled import tell, wait_for
from threadko.extensions import DependencyProvider
from threadko.rpc import rpc

class Hook(DependencyProvider):
    def stop(self):
        {stop}

    def kill(self):
        {kill}

    def get_dependency(self, worker_ctx):
        return self.container.stopping


class Service:
    name = {name!r}
    stopping = Hook()

    @rpc
    def hold(self):
        print("holds", flush=True)
        wait_for("never")

    @rpc
    def end_with_the_service(self):
        print("holds", flush=True)
        return self.stopping.wait({timeout})
"""

HANG = '(print("hangs", flush=True), wait_for("never"))'

#: One process, and one under a parent.
WAYS = pytest.mark.parametrize(
    "way",
    [
        pytest.param((), id="alone"),
        pytest.param(("--processes", "2"), id="two", marks=pytest.mark.long),
        pytest.param(("--reload",), id="reload", marks=pytest.mark.long),
    ],
)


@pytest.fixture
def run(tmp_path, amqp_config, name):
    with contextlib.ExitStack() as stack:

        def run(*arguments, stop="pass", kill="pass", **config):
            source = SOURCE.format(name=name, stop=stop, kill=kill, timeout=TIMEOUT)
            (tmp_path / "served.py").write_text(source, encoding="utf-8")
            values = {**amqp_config, **config}
            defines = [f"-d{key}={value}" for key, value in values.items()]
            command = ["-m", "threadko", "run", *defines, *arguments, "served"]
            return stack.enter_context(Terminal(command, cwd=tmp_path))

        yield run


def wait_ready(terminal, way):
    for _ in range(2 if "--processes" in way else 1):
        terminal.wait_for("services ready")


#: Or a signal came when it had ended all but itself, which a shell calls 130 too.
OVER = (0, 130, -signal.SIGINT)


@WAYS
def test_once_while_no_broker_is_there(run, way):
    [port] = find_free_ports(1)
    terminal = run(*way, AMQP_URI=f"amqp://127.0.0.1:{port}/")
    terminal.wait_for("no broker at")
    terminal.press(CTRL_C)
    assert terminal.wait() == 0
    assert "Traceback" not in terminal.screen


@WAYS
def test_once_while_idle(run, way):
    terminal = run(*way)
    wait_ready(terminal, way)
    terminal.press(CTRL_C)
    assert terminal.wait() == 0
    assert terminal.screen.count("services stopped") == (2 if "--processes" in way else 1)
    assert "Traceback" not in terminal.screen


@WAYS
def test_twice_and_three_times_while_idle_ends_as_well(run, way):
    for times in (2, 3):
        terminal = run(*way)
        wait_ready(terminal, way)
        terminal.press(CTRL_C * times)
        # How many are heard before the first has done its work is not ours to say.
        assert terminal.wait() in OVER, terminal.screen
        assert "Traceback" not in terminal.screen


@WAYS
def test_once_while_working_waits_and_twice_kills(run, way, client, name):
    terminal = run(*way)
    wait_ready(terminal, way)
    client[name].hold.call_async()
    terminal.wait_for("holds")
    terminal.press(CTRL_C)
    terminal.wait_for("SIGINT: stopping")
    begun = time.monotonic()
    terminal.press(CTRL_C)
    assert terminal.wait() == 130
    assert time.monotonic() - begun < TIMEOUT / 2
    assert "Traceback" not in terminal.screen


@WAYS
def test_once_while_working_ends_by_the_deadline(run, way, client, name):
    terminal = run(*way, SHUTDOWN_TIMEOUT=0.3)
    wait_ready(terminal, way)
    client[name].hold.call_async()
    terminal.wait_for("holds")
    terminal.press(CTRL_C)
    assert terminal.wait() == 4
    assert "these workers have not ended" in terminal.screen


@WAYS
def test_terminal_that_is_closed_stops_and_work_is_answered(run, way, client, name):
    terminal = run(*way)
    wait_ready(terminal, way)
    call = client[name].end_with_the_service.call_async()
    terminal.wait_for("holds\r\n")  # to the end, or that print() would be cut off
    assert terminal.hang_up() == 0
    assert call.result(timeout=TIMEOUT) is True


@WAYS
def test_twice_while_stopping_kills(run, way):
    terminal = run(*way, stop=HANG)
    wait_ready(terminal, way)
    terminal.press(CTRL_C)
    terminal.wait_for("hangs")
    terminal.press(CTRL_C)
    assert terminal.wait() == 130
    assert "Traceback" not in terminal.screen


@WAYS
def test_three_times_while_killing_leaves_at_once(run, way, client, name):
    terminal = run(*way, kill=HANG)
    wait_ready(terminal, way)
    client[name].hold.call_async()
    terminal.wait_for("holds")
    terminal.press(CTRL_C)
    terminal.wait_for("SIGINT: stopping")
    terminal.press(CTRL_C)
    terminal.wait_for("hangs")
    begun = time.monotonic()
    terminal.press(CTRL_C)
    assert terminal.wait() == 130
    assert time.monotonic() - begun < TIMEOUT / 4


def test_two_and_three_while_no_broker_is_there(run):
    [port] = find_free_ports(1)
    for times in (2, 3):
        terminal = run(AMQP_URI=f"amqp://127.0.0.1:{port}/")
        terminal.wait_for("no broker at")
        terminal.press(CTRL_C * times)
        assert terminal.wait() in OVER
        assert "Traceback" not in terminal.screen


def test_levels_are_in_colours_in_a_terminal_alone(run):
    terminal = run()
    terminal.wait_for("services ready")
    terminal.press(CTRL_C)
    assert terminal.wait() == 0
    assert "\x1b[32mINFO\x1b[0m" in terminal.raw


def test_reload_survives_a_mistake_and_starts_again_when_it_is_mended(run, tmp_path, client, name):
    terminal = run("--reload")
    terminal.wait_for("services ready")
    path = tmp_path / "served.py"
    good = path.read_text(encoding="utf-8")
    change(path, good + "\ndef broken(:\n")
    terminal.wait_for("Error: cannot import 'served'")
    terminal.wait_for("waiting for a change")
    change(path, good.replace("def hold(self)", "def other(self)").replace('wait_for("never")', ""))
    terminal.wait_for("rpc: other")
    terminal.wait_for("services ready")
    assert client[name].other() is None
    terminal.press(CTRL_C)
    assert terminal.wait() == 0


def change(path, text):
    path.write_text(text, encoding="utf-8")
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1_000_000))
