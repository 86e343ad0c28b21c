"""`threadko broker` in a process."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pika
import pytest

from tests.support.timing import TIMEOUT
from threadko.devbroker import DevBroker

ROOT = Path(__file__).parents[2]


def start(*args):
    return subprocess.Popen(
        [sys.executable, "-m", "threadko", "broker", *args],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_a_signal_and_says_what_it_is_not(number):
    process = start("--port", "0")
    uri = process.stdout.readline().removeprefix("broker at ").strip()
    assert "never for production" in process.stdout.readline()
    connection = pika.BlockingConnection(pika.URLParameters(uri))
    connection.channel().queue_declare("q")
    connection.close()
    process.send_signal(number)
    out, err = process.communicate(timeout=TIMEOUT)
    assert (process.returncode, out, err) == (0, "", "")


def test_port_that_is_taken_is_one_line():
    with DevBroker() as other:
        process = start("--port", str(other.port))
        _, err = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 2
    assert err.count("\n") == 1
    assert f"127.0.0.1:{other.port} is taken, by RabbitMQ most likely" in err


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["--host", "0.0.0.0"], "(--allow-remote)"),
        (["--host", "203.0.113.1", "--allow-remote"], "cannot listen on 203.0.113.1:5672"),
        (["--port", "70000"], "70000 is not in the range"),
    ],
)
def test_address_that_cannot_be_is_one_line(args, text):
    process = start(*args)
    _, err = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 2
    assert text in err
    assert "Traceback" not in err
