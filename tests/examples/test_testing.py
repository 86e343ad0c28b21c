"""The tests in examples/testing/ pass, on every kind of broker and with both runners."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import amqp
from tests.support.timing import TIMEOUT

FOLDER = Path(__file__).parents[2] / "examples" / "testing"

OWN = ("-c", os.devnull, "--rootdir", str(FOLDER), "-p", "no:cacheprovider", "-W", "error", "-v")
PLUGIN = (*OWN, "-p", "threadko.testing.pytest")


def run(*command):
    return subprocess.run(
        [sys.executable, "-m", *command],
        cwd=FOLDER,
        env={
            **os.environ,
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONPATH": str(FOLDER.parents[1]),
        },
        capture_output=True,
        text=True,
        timeout=6 * TIMEOUT,
    )


def check_all_passed(done):
    assert done.returncode == 0, done.stdout + done.stderr
    ran = set(re.findall(r"^(\w+)\.py::", done.stdout, re.MULTILINE))
    assert ran == {path.stem for path in FOLDER.glob("test_*.py")}
    assert re.search(r"^=+ \d+ passed in", done.stdout, re.MULTILINE)


def test_all_pass_on_the_development_broker():
    check_all_passed(run("pytest", *PLUGIN))


def test_all_pass_on_a_broker_that_is_named(broker_uri):
    check_all_passed(run("pytest", *PLUGIN, "--amqp-uri", broker_uri))
    for queue in ("rpc-orders", "rpc-products", "evt-orders-placed--products.ship"):
        assert not amqp.has_queue(broker_uri, queue)


@pytest.mark.long
def test_all_pass_on_a_rabbitmq_with_its_management_api(node, api_uri):
    options = ("--amqp-uri", node.uri, "--rabbit-api-uri", api_uri)
    check_all_passed(run("pytest", *PLUGIN, *options))


def test_those_for_unittest_pass_without_pytest():
    done = run("unittest", "-v")
    assert done.returncode == 0, done.stderr
    assert "test_order_is_paid_and_shipped" in done.stderr
    assert "Ran 2 tests" in done.stderr
