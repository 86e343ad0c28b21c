import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.timing import TIMEOUT
from threadko import __version__
from threadko.cli.main import main


def leave_main(monkeypatch, *args):
    monkeypatch.setattr(sys, "argv", ["threadko", *args])
    with pytest.raises(SystemExit) as caught:
        main()
    return caught.value.code


def test_version_is_printed_when_asked_for(monkeypatch, capsys):
    assert leave_main(monkeypatch, "--version") == 0
    assert capsys.readouterr().out == f"threadko, version {__version__}\n"


def test_help_lists_the_commands(monkeypatch, capsys):
    assert leave_main(monkeypatch, "--help") == 0
    assert "run" in capsys.readouterr().out


@pytest.mark.parametrize("args", [["rum"], ["run"], ["run", "--colour", "x"]])
def test_wrong_usage_is_code_2(monkeypatch, capsys, args):
    assert leave_main(monkeypatch, *args) == 2
    assert "Error: " in capsys.readouterr().err


def test_mistake_of_the_user_is_one_line_on_stderr(monkeypatch, capsys):
    assert leave_main(monkeypatch, "run", "-d", "=1", "module") == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("Error: ")
    assert captured.err.count("\n") == 1


def test_package_can_be_run_as_a_module():
    result = subprocess.run(
        [sys.executable, "-m", "threadko", "--version"],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert result.stdout == f"threadko, version {__version__}\n"
    assert result.returncode == 0


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("threadko s", {"shell", "show-config"}),
        ("threadko run --rel", {"--reload"}),
        ("threadko shell --interface b", {"bpython"}),
        ("threadko run hel", {"helloworld"}),
        ("threadko run helloworld:", {"helloworld:GreetingService"}),
    ],
)
def test_shell_completes(words, completed):
    examples = Path(__file__).parents[2] / "examples"
    result = subprocess.run(
        [sys.executable, "-m", "threadko"],
        cwd=examples,
        env={
            **os.environ,
            "PYTHONPATH": str(examples.parent),
            "_THREADKO_COMPLETE": "bash_complete",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split()) - 1),
        },
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert {line.partition(",")[2] for line in result.stdout.splitlines()} == completed


def test_commands_load_no_web_server():
    # Each service has in its memory what `threadko run` has loaded.
    code = "import sys, threadko.cli.main; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=TIMEOUT
    )
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert "pika" in loaded
    assert not loaded & {"cheroot", "werkzeug", "websockets"}
