"""`threadko test`."""

import os
import subprocess
import sys

import pytest

from tests.support.timing import TIMEOUT

SERVICE = """
class Service:
    name = "service"

    def method(self):
        return 1
"""

TESTS = """
from service import Service
from threadko.testing.services import worker_factory

def test_passes():
    assert worker_factory(Service).method() == 1

def test_fails():
    assert worker_factory(Service).method() == 2
"""


@pytest.fixture
def run_command(tmp_path):
    (tmp_path / "service.py").write_text(SERVICE, encoding="utf-8")
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_service.py").write_text(TESTS, encoding="utf-8")

    def run(*args, **environ):
        command = [
            sys.executable,
            "-c",
            "from threadko.cli.main import main; main()",
            "test",
            *args,
        ]
        return subprocess.run(
            command,
            cwd=tmp_path,
            env={
                **os.environ,
                "PYTEST_ADDOPTS": "",
                "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
                **environ,
            },
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        )

    return run


@pytest.mark.parametrize(
    ("args", "code", "summary"),
    [
        ((), 1, "1 failed, 1 passed"),
        (("-q", "-k", "passes or nothing", "tests"), 0, "1 passed, 1 deselected"),
        (("tests/test_service.py::test_passes", "-q"), 0, "1 passed"),
        (("-k", "nothing"), 5, "2 deselected"),
    ],
)
def test_tests_are_run_as_pytest_runs_them(run_command, args, code, summary):
    done = run_command(*args)
    assert summary in done.stdout, done.stdout + done.stderr
    assert done.returncode == code


def test_wrong_option_is_told_by_pytest(run_command):
    done = run_command("--no-such-option")
    assert "unrecognized arguments: --no-such-option" in done.stderr
    assert done.returncode == 4


def test_help_is_that_of_pytest(run_command):
    assert "--maxfail" in run_command("--help").stdout


def test_missing_pytest_is_an_error_in_one_line(run_command, tmp_path):
    sitecustomize = "import sys; sys.modules['pytest'] = None"
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "sitecustomize.py").write_text(sitecustomize, encoding="utf-8")
    done = run_command(PYTHONPATH=str(hidden))
    assert done.stderr == "Error: threadko test needs pytest: pip install pytest\n"
    assert done.returncode == 2
