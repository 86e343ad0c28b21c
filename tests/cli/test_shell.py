"""`threadko shell`, from a pipe and in a terminal, with each of the shells there are."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.support.terminal import CTRL_D, UP, Terminal
from tests.support.timing import TIMEOUT
from threadko.cli import shell as shell_room
from threadko.cli.options import UserError
from threadko.cli.shell import shell
from threadko.rpc import rpc

ROOT = Path(__file__).parents[2]


@pytest.fixture
def name(names, runner_factory, amqp_config):
    class Served:
        name = names.service("served").replace("-", "_")

        @rpc
        def hello(self, name):
            return f"Hello, {name}!"

    names.services.append(Served.name)
    runner_factory(Served, config=amqp_config).start()
    return Served.name


@pytest.fixture
def arguments(amqp_config):
    return ["-m", "threadko", "shell", *(f"-d{key}={value}" for key, value in amqp_config.items())]


@pytest.fixture
def pipe(tmp_path, arguments):
    def pipe(script, *args, **environ):
        return subprocess.run(
            [sys.executable, *arguments, *args],
            input=script,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(tmp_path), **environ},
            capture_output=True,
            text=True,
            timeout=2 * TIMEOUT,
        )

    return pipe


def test_script_calls_services_and_prints_values(pipe, name):
    script = f"""
for who in ("Ada", "Ben"):
    print(n.rpc.{name}.hello(who))
n.rpc.{name}.hello(name="Cleo")
n.config["rpc_exchange"] != ""
None
n.disconnect()
"""
    done = pipe(script)
    assert done.stdout.splitlines() == ["Hello, Ada!", "Hello, Ben!", "'Hello, Cleo!'", "True"]
    assert done.stderr == ""
    assert done.returncode == 0


def test_script_dispatches_events(pipe):
    done = pipe('n.dispatch_event("shop", "sold", {"piece": 1})\n')
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)


def test_exception_ends_a_script_with_code_1_and_its_own_frames(pipe):
    done = pipe("print('before')\ndef f():\n    1 / 0\nf()\nprint('behind')\n")
    assert done.stdout == "before\n"
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-1] == "ZeroDivisionError: division by zero"
    assert all("threadko" not in line for line in lines)


def test_script_that_is_no_python_is_code_1_and_runs_nothing(pipe):
    done = pipe("print('before')\ndef\n")
    assert done.stdout == ""
    assert done.returncode == 1
    assert "SyntaxError" in done.stderr


def test_script_chooses_its_exit_code(pipe):
    assert pipe("import sys; sys.exit(7)").returncode == 7


def test_no_broker_is_configured_and_none_needed_until_a_call(pipe):
    done = pipe("1 + 1", "--broker", "amqp://nobody.invalid/")
    assert done.stdout == "2\n"


def test_modules_of_the_folder_can_be_imported(pipe, tmp_path):
    (tmp_path / "mine.py").write_text("answer = 42\n", encoding="utf-8")
    assert pipe("import mine\nmine.answer").stdout == "42\n"


@pytest.fixture
def open_shell(tmp_path, arguments):
    with contextlib.ExitStack() as stack:

        def open_shell(interface, **environ):
            arguments_ = [*arguments, "--interface", interface]
            return stack.enter_context(Terminal(arguments_, cwd=tmp_path, environ=environ))

        yield open_shell


def test_plain_shell_has_history_and_completion(open_shell, name, tmp_path):
    startup = tmp_path / "startup.py"
    startup.write_text("import os\ngiven = 'PYTHONSTARTUP' in os.environ\n", encoding="utf-8")
    first = open_shell("plain", PYTHONSTARTUP=str(startup))
    first.wait_for("n.disconnect()>")
    for keys, answer in (
        ("given\n", "False"),
        (f'n.rpc.{name}.hello(name="Ada")\n', "'Hello, Ada!'"),
        ("n.rpc.serv\t.hel\tname='Ben')\n", "'Hello, Ben!'"),
        ("1 / 0\n", "ZeroDivisionError"),
        ("6 * 7\n", "42"),
    ):
        first.wait_for(">>> ")
        first.press(keys)
        first.wait_for(answer)
    first.wait_for(">>> ")
    first.press(CTRL_D)
    assert first.wait() == 0
    second = open_shell("plain")
    second.wait_for(">>> ")
    second.press(f"{UP}\n")
    second.wait_for("6 * 7")
    second.wait_for("42")
    second.wait_for(">>> ")
    second.press("exit()\n")
    assert second.wait() == 0


@pytest.mark.parametrize(
    ("interface", "prompt"), [("ipython", "In ["), ("bpython", ">>>"), ("ptpython", ">>>")]
)
def test_other_shells_have_the_same_names(open_shell, name, interface, prompt):
    terminal = open_shell(interface)
    if interface == "ptpython":
        terminal.wait_for("n.disconnect()>")
    terminal.wait_for(prompt)
    terminal.press(f"[n.rpc.{name}.hello('Ada')[::-1]]")
    terminal.press("\r")
    terminal.wait_for("!adA ,olleH")
    terminal.press("exit()")
    terminal.press("\r")
    assert terminal.wait() == 0


def test_shell_that_is_not_installed_is_refused(monkeypatch):
    monkeypatch.setitem(shell_room.INTERFACES, "bpython", (print, "no_such_module"))
    with pytest.raises(UserError, match="pip install bpython"):
        shell_room._find_interface("bpython")


def test_first_that_is_installed_is_taken(monkeypatch):
    monkeypatch.setitem(shell_room.INTERFACES, "bpython", (print, "no_such_module"))
    monkeypatch.setitem(shell_room.INTERFACES, "ipython", (len, "os"))
    assert shell_room._find_interface(None) is len


def test_unknown_shell_is_refused():
    result = CliRunner().invoke(shell, ["--interface", "zsh"])
    assert result.exit_code == 2
    assert "ptpython" in result.output


def test_startup_file_that_fails_is_told_of(monkeypatch, tmp_path, capsys):
    path = tmp_path / "startup.py"
    path.write_text("1 / 0\n", encoding="utf-8")
    monkeypatch.setenv("PYTHONSTARTUP", str(path))
    shell_room._run_startup({})
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_line_editing_is_done_without_where_there_is_none(monkeypatch):
    monkeypatch.setitem(sys.modules, "readline", None)
    with shell_room._line_editing({}):
        pass
