import os
import subprocess
import sys

from tests.support.broker import find_free_ports
from tests.support.timing import TIMEOUT


def run(*command, uri):
    return subprocess.run(
        [sys.executable, "-m", "tests.support.with_broker", *command],
        env={**os.environ, "AMQP_URI": uri},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )


def test_command_is_given_the_broker(broker_uri):
    script = "import os; print(os.environ['AMQP_URI'])"
    assert run(sys.executable, "-c", script, uri=broker_uri).stdout.strip() == broker_uri


def test_exit_code_is_that_of_the_command(broker_uri):
    assert run(sys.executable, "-c", "raise SystemExit(7)", uri=broker_uri).returncode == 7


def test_command_that_dies_by_a_signal_is_128_and_its_number(broker_uri):
    script = "import os; os.kill(os.getpid(), 9)"
    assert run(sys.executable, "-c", script, uri=broker_uri).returncode == 137


def test_missing_broker_is_one_line_and_code_3():
    [port] = find_free_ports(1)
    result = run("true", uri=f"amqp://guest:guest@127.0.0.1:{port}/")
    assert result.returncode == 3
    assert result.stderr.count("\n") == 1


def test_missing_command_is_code_2(broker_uri):
    assert run(uri=broker_uri).returncode == 2
