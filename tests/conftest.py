"""Fixtures of all tests, and two rules: no thread is left behind, and nothing is skipped in CI."""

import contextlib
import faulthandler
import os
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pika
import pytest
from hypothesis import HealthCheck, settings
from pika.exceptions import AMQPError

from tests.faults.rows import FIGURES
from tests.support.broker import NoBrokerError, find_broker
from tests.support.timing import TIMEOUT
from threadko.configuration.keys import KEYS
from threadko.configuration.sources import ENVIRONMENT_PREFIX

pytest_plugins = ["pytester", "threadko.testing.pytest"]

# A busy machine holds an example up for longer than the 200 ms that it may take.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")

#: The fixtures that start a RabbitMQ node.
_NODES = frozenset(("node", "strict", "expired"))

IS_CI = os.environ.get("CI", "").lower() in ("1", "true", "yes")


def pytest_report_header() -> str:
    return f"test timeout: {TIMEOUT:.0f} s; skipping is {'a failure' if IS_CI else 'allowed'}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all that has a RabbitMQ node of its own."""
    for item in items:
        if _NODES.intersection(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.rabbitmq)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport() -> Iterator[None]:
    outcome = yield
    fail_if_skipped(outcome.get_result())
    make_encodable(outcome.get_result())


@pytest.hookimpl(hookwrapper=True)
def pytest_make_collect_report() -> Iterator[None]:
    outcome = yield
    fail_if_skipped(outcome.get_result())


def fail_if_skipped(report: Any, is_ci: bool = IS_CI) -> None:
    """Turn a skip into a failure in CI, where everything must run."""
    if is_ci and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"nothing may be skipped in CI. {reason}"


def make_encodable(report: Any) -> None:
    """Let a report with odd text in what was logged pass to the process that prints it."""
    report.sections = [
        (name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections
    ]


def pytest_configure() -> None:
    """Forget the configuration of whoever runs the tests, and hear Ctrl-C.

    So do the processes that tests start; a job in the background would not hear it.
    """
    for name in list(os.environ):
        if name.startswith(ENVIRONMENT_PREFIX) and name[len(ENVIRONMENT_PREFIX) :] in KEYS:
            del os.environ[name]
    for name in ("no_proxy", "NO_PROXY"):  # a proxy would not find this machine
        os.environ[name] = ",".join(filter(None, ["127.0.0.1,localhost,::1", os.environ.get(name)]))
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_unconfigure() -> None:
    """End the run, with every thread's stack, if a thread of a failed test would hold it up."""
    if "PYTEST_XDIST_WORKER" not in os.environ:  # such a one is ended by the process that has it
        faulthandler.dump_traceback_later(TIMEOUT, exit=True)


@pytest.fixture
def figure(record_property: Callable[[str, object], None]) -> Callable[[str, str], None]:
    """`figure(key, seen)` records a figure of tests/faults/rows.py, for `make faults`."""

    def record(key: str, seen: str) -> None:
        assert key in {figure.key for figure in FIGURES}, key
        record_property("figure", (key, seen))

    return record


@pytest.fixture(autouse=True)
def _no_thread_left() -> Iterator[None]:
    """Fail a test that leaves a thread of ours running."""
    before = set(threading.enumerate())
    yield
    end = time.monotonic() + TIMEOUT / 4
    left = [
        thread
        for thread in threading.enumerate()
        if thread not in before
        and thread.name.startswith("threadko-")
        # the brokers of the whole run, which begin with the first test that asks
        and not thread.name.startswith("threadko-devbroker-")
    ]
    for thread in left:
        thread.join(max(0.0, end - time.monotonic()))
    names = [thread.name for thread in left if thread.is_alive()]
    assert not names, f"threads left behind: {names}"


@pytest.fixture(scope="session")
def broker_uri() -> Iterator[str]:
    """The URI of a broker; without one the tests that ask are skipped."""
    try:
        broker = find_broker()
    except NoBrokerError as error:
        pytest.skip(str(error))
    with broker:
        yield broker.uri


@dataclass
class Names:
    """Names that no other test has."""

    services: list[str] = field(default_factory=list)
    queues: list[str] = field(default_factory=list)

    def queue(self, stem: str = "queue") -> str:
        """Return the name of a queue; it is deleted when the test ends, and its dead queue."""
        name = f"{stem}-{uuid.uuid4().hex[:12]}"
        self.queues.append(name)
        return name

    def service(self, stem: str = "service") -> str:
        """Return the name of a service; its queue is deleted when the test ends."""
        name = f"{stem}-{uuid.uuid4().hex[:12]}"
        self.services.append(name)
        return name


@pytest.fixture
def names(broker_uri: str) -> Iterator[Names]:
    made = Names()
    yield made
    with contextlib.suppress(AMQPError), pika_channel(broker_uri) as channel:
        for name in made.services:
            channel.queue_delete(f"rpc-{name}")
            channel.exchange_delete(f"{name}.events")
        for name in made.queues:
            channel.queue_delete(name)
            channel.queue_delete(f"{name}.dead")


@pytest.fixture
def rpc_exchange(broker_uri: str) -> Iterator[str]:
    """The name of an exchange of the test's own, so that no two tests meet."""
    name = f"rpc-{uuid.uuid4().hex[:12]}"
    yield name
    with contextlib.suppress(AMQPError), pika_channel(broker_uri) as channel:
        channel.exchange_delete(name)


@pytest.fixture
def amqp_config(broker_uri: str, rpc_exchange: str) -> dict[str, Any]:
    """The configuration of a container or runner in this test."""
    return {"AMQP_URI": broker_uri, "rpc_exchange": rpc_exchange}


@contextlib.contextmanager
def pika_channel(uri: str) -> Iterator[Any]:
    """A plain channel for tests to look at the broker with."""
    connection = pika.BlockingConnection(pika.URLParameters(uri))
    try:
        yield connection.channel()
    finally:
        with contextlib.suppress(AMQPError):
            connection.close()
