"""Bad command lines, files and variables: one line that says what is wrong, and exit code 2."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from tests.configuration.test_loader import BAD_FILES, ENVIRON, SUBSTITUTIONS
from tests.support.timing import TIMEOUT
from threadko.cli.main import cli

ROOT = Path(__file__).parents[2]

Figure = Callable[[str, str], None]

SOURCE = """
from threadko.rpc import rpc
from threadko.web.handlers import http

class Web:
    name = "web"

    @http("GET", "/")
    def get(self, request):
        return ""

class Rpc:
    name = "rpc"

    @rpc
    def method(self):
        pass

def no_class():
    pass
"""

# What is wrong, and a word that its line must have.
LINES = [
    (["rum"], "'rum'"),
    (["--colour"], "--colour"),
    (["run"], "MODULE[:CLASS]"),
    (["run", "--colour", "x"], "--colour"),
    (["run", "absent"], "'absent'"),
    (["run", "svc:"], "module:Class"),
    (["run", "svc:Absent"], "it has Web, Rpc"),
    (["run", "svc:no_class"], "a service is a class"),
    (["run", "svc.py"], "try 'svc'"),
    (["run", "json"], "@rpc"),
    (["run", "svc", "-c", "absent.yaml"], "absent.yaml"),
    (["run", "svc", "-c", "."], "'.'"),
    (["run", "svc", "-d", "=1"], "KEY=VALUE"),
    (["run", "svc", "-d", "AMQP_URI"], "AMQP_URI=VALUE"),
    (["run", "svc", "-d", "own=[1"], "own"),
    (["run", "svc", "-d", "own=&a [*a]"], "own"),
    (["run", "svc", "-d", "WEB_SERVER_ADDRESS=127.0.0.1:70000"], "127.0.0.1:70000"),
    (["run", "svc:Web", "-d", "WEB_SERVER_ADDRESS=nonsense"], "nonsense"),
    (["run", "svc:Web", "-d", "WEB_SERVER_ADDRESS=203.0.113.1:0"], "cannot listen on 203.0.113.1"),
    (["run", "svc:Web", "-d", "HTTP_TLS={certfile: /absent}"], "/absent cannot be loaded"),
    (["run", "svc:Web", "-d", "HTTP_MAX_BODY_SIZE=-1"], "HTTP_MAX_BODY_SIZE"),
    (["run", "svc:Rpc", "-d", "AMQP_URI=http://host/"], "amqp://"),
    (["run", "svc:Rpc", "-d", "AMQP_URI=amqp://host:99999/"], "AMQP_URI"),
    (["run", "svc:Rpc", "-d", "AMQP_URI=5"], "AMQP_URI"),
    (["run", "svc:Rpc", "-d", "LOGIN_METHOD=GUESS"], "LOGIN_METHOD"),
    (["run", "svc", "-d", "HEARTBEAT=0"], "HEARTBEAT"),
    (["run", "svc", "-d", "max_workers=many"], "max_workers"),
    (["run", "svc", "-d", "max_workers=99999999"], "max_workers"),
    (["run", "svc", "-d", "ACCEPT=[nothing]"], "'nothing'"),
    (["run", "svc", "-d", "LOG_FORMAT=xml"], "LOG_FORMAT"),
    (["run", "svc", "-d", "LOGGING={version: 5}"], "LOGGING"),
    (["run", "svc", "-d", "HEALTH_ADDRESS=x"], "'x'"),
    (["run", "svc", "--processes", "0"], "--processes"),
    (["run", "svc", "--backdoor-port", "0.0.0.0:3000"], "could be reached by others"),
    (["run", "svc", "--backdoor-port", "70000"], "[host:]port"),
    (["run", "--dev", "svc", "-d", "AMQP_URI=amqp://example.org/"], "on this machine only"),
    (["broker", "--port", "70000"], "70000"),
    (["broker", "--host", "0.0.0.0"], "--allow-remote"),
    (["broker", "extra"], "extra"),
    (["health"], "HEALTH_ADDRESS"),
    (["health", "--timeout", "0"], "--timeout"),
    (["shell", "--interface", "emacs"], "--interface"),
    (["show-config", "-c", "absent.yaml"], "absent.yaml"),
    (["dead", "list"], "QUEUE"),
    (["dead", "show", "queue", "0"], "NUMBER"),
    (["dead", "list", "queue", "-d", "AMQP_URI=nonsense"], "AMQP_URI"),
]


# Each line in a process of its own, forked from one that has imported all: that takes longest.
RUNNER = """
import json, os, sys
from threadko.cli.main import main

for number, arguments in enumerate(json.load(sys.stdin)):
    if not os.fork():
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for descriptor, name in [(1, "out"), (2, "err")]:
            os.dup2(os.open(f"{number}.{name}", os.O_WRONLY | os.O_CREAT), descriptor)
        sys.argv = ["threadko", *arguments]
        main()
    print(os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
"""


@pytest.mark.long
@pytest.mark.timeout(600)
def test_bad_command_line_is_one_line_and_code_2(tmp_path: Path, figure: Figure) -> None:
    (tmp_path / "svc.py").write_text(SOURCE, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", RUNNER],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        input=json.dumps([arguments for arguments, _ in LINES]),
        stdout=subprocess.PIPE,
        text=True,
        timeout=TIMEOUT * 20,
    )
    codes = done.stdout.split()
    for number, (arguments, word) in enumerate(LINES):
        err = (tmp_path / f"{number}.err").read_text()
        assert codes[number] == "2", (arguments, err)
        assert (tmp_path / f"{number}.out").read_text() == "", arguments
        # Besides what was logged until then, and the usage that click shows.
        errors = [line for line in err.splitlines() if line.startswith("Error: ")]
        assert len(errors) == 1, (arguments, err)
        assert err.endswith(f"{errors[0]}\n"), (arguments, err)
        assert word in errors[0], (arguments, err)
        assert "Traceback" not in err
    figure("command-line", f"{len(LINES)}, each with one line and exit code 2")


def show(path: Path, environ: dict[str, str] | None = None) -> Any:
    return CliRunner().invoke(cli, ["show-config", "--secrets", "-c", str(path)], env=environ)


def test_bad_file_is_one_line_of_any_command(tmp_path: Path, figure: Figure) -> None:
    path = tmp_path / "config.yaml"
    for content, message in BAD_FILES:
        path.write_bytes(content)
        result = show(path)
        assert result.exit_code == 2
        assert result.output.startswith("Error: ")
        assert result.output.count("\n") == 1
        assert message in result.output
    assert len(BAD_FILES) >= 10
    figure("yaml", f"{len(BAD_FILES)}, each with one line")


HOSTILE = [
    "b: c",
    "0123",
    "0o17",
    "1e3",
    "yes",
    "~",
    "${A:${A}}",
    "${",
    "!env_var '${A}'",
    "!!python/object/apply:os.system ['true']",
    "*alias",
    "&anchor x",
    "x\nother: injected",
    "x\n---\nother: injected",
    "'",
    '"',
    "[",
    "}, other: {injected: 1",
    "# comment",
    "x #secret",
    " surrounded ",
]


def test_environment_is_taken_as_text(tmp_path: Path, figure: Figure) -> None:
    path = tmp_path / "config.yaml"
    for value in HOSTILE:
        path.write_text("raw: !raw_env_var ${V}\nquoted: '${V}'\nlast: 1\n")
        result = show(path, {"V": value, "A": "1"})
        assert yaml.safe_load(result.output) == {"raw": value, "quoted": "${V}", "last": 1}
        # Without a tag it is YAML, but one value of it, and no more than a value.
        path.write_text("key: ${V}\nlast: 1\n")
        result = show(path, {"V": value, "A": "1"})
        if result.exit_code == 2:
            assert result.output.count("\n") == 1
            assert result.output.startswith("Error: ")
            assert "!raw_env_var" in result.output
        else:
            assert result.exit_code == 0
            assert yaml.safe_load(result.output).keys() == {"key", "last"}
    for value, expected in SUBSTITUTIONS:
        path.write_text(f"key: {value}\n")
        assert yaml.safe_load(show(path, ENVIRON).output) == {"key": expected}
    count = len(HOSTILE) + len(SUBSTITUTIONS)
    assert count >= 15
    figure("environment", f"{count} values, each taken as it stands or refused in one line")
