"""Test cases for unittest, in runs of their own where pytest is not."""

import subprocess
import sys
import textwrap
import unittest

import pytest
from pika.exceptions import AMQPError

from tests.support import amqp
from tests.support.timing import TIMEOUT
from threadko.testing.cases import ServiceTestCase

CASES = """
    import os
    import unittest
    from threadko import config
    from threadko.events import EventDispatcher, event_handler
    from threadko.messaging import Publisher, Queue
    from threadko.rpc import ServiceRpc, rpc
    from threadko.testing.cases import ServiceTestCase
    from threadko.testing.services import dummy, once
    from threadko.web.handlers import http
    from threadko.web.websocket import rpc as websocket_rpc


    class Front:
        name = "case_front"
        back = ServiceRpc("case_back")
        dispatch = EventDispatcher()

        @rpc
        def call(self, value):
            self.dispatch("called", value)
            return self.back.double(value)


    class Back:
        name = "case_back"

        @rpc
        def double(self, value):
            return 2 * value

        @event_handler("case_front", "called")
        def on_called(self, value):
            return value


    class Web:
        name = "web"

        @websocket_rpc
        def echo(self, socket_id, value):
            return value


    class Sender:
        name = "sender"
        publish = Publisher(declare=[Queue("looked-at")])

        @dummy
        def send(self, value):
            self.publish(value, routing_key="looked-at")


    made = []


    class Cases(ServiceTestCase):
        broker_uri = os.environ.get("CASES_URI")
        broker_api_uri = os.environ.get("CASES_API_URI")

        def setUp(self):
            pass  # without a call of that of its base

        def test_1_services_call_each_other(self):
            runner = self.start(Front, Back)
            made.append(runner)
            front = self.get_container(runner, Front)
            back = self.get_container(runner, Back)
            with self.entrypoint_waiter(back, "on_called") as result:
                self.assertEqual(self.fire(front, "call", 21), 42)
            self.assertEqual(result.get(), 21)
            with self.assertRaises(AssertionError):
                self.get_container(runner, Web)

        def test_2_all_has_ended(self):
            made[0].wait()
            self.assertNotIn("AMQP_URI", config)

        def test_3_a_service_alone(self):
            self.use_broker()
            container = self.make_container(Front, {"own": 1})
            back, dispatch = self.replace_dependencies(container, "back", "dispatch")
            self.restrict_entrypoints(container, "call")
            back.double.return_value = 1
            container.start()
            self.assertEqual(self.fire(container, "call", value=2), 1)
            self.assertEqual(container.config["own"], 1)
            self.assertEqual(self.worker_factory(Back).double(1), 2)
            with self.entrypoint_hook(container, "call") as call:
                self.assertEqual(call(3), 1)

        def test_4_messages(self):
            container = self.start(Sender, config={"own": 1})
            self.fire(container, "send", "payload")
            self.assertEqual(self.get_message("looked-at").payload, "payload")

        def test_5_web(self):
            port = self.use_web()
            self.make_container(Web).start()
            socket = self.open_websocket(port)
            self.assertEqual(socket.rpc("echo", value=1), 1)

        def test_6_own_broker(self):
            self.use_config({"AMQP_URI": "amqp://elsewhere"}, clear=True)
            self.assertEqual(dict(config), {"AMQP_URI": "amqp://elsewhere"})
            container = self.start(Back, config={"amqp_uri": self.amqp_uri})
            self.assertEqual(container.config["amqp_uri"], self.amqp_uri)


    if __name__ == "__main__":
        unittest.main()
"""

# An environment in which pytest is, but cannot be had.
WITHOUT_PYTEST = "raise ImportError('pytest is not installed')"


@pytest.fixture
def run_cases(tmp_path):
    def run(source, *args):
        (tmp_path / "test_cases.py").write_text(textwrap.dedent(source), encoding="utf-8")
        (tmp_path / "pytest.py").write_text(WITHOUT_PYTEST, encoding="utf-8")
        return subprocess.run(
            [sys.executable, "-W", "error", "-m", "unittest", *args],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=2 * TIMEOUT,
        )

    return run


def test_cases_pass_without_pytest(run_cases):
    done = run_cases(CASES)
    assert "Ran 6 tests" in done.stderr, done.stderr
    assert done.stderr.endswith("OK\n"), done.stderr
    assert done.returncode == 0


def test_cases_pass_on_a_broker_that_is_named(run_cases, broker_uri, monkeypatch):
    monkeypatch.setenv("CASES_URI", broker_uri)
    done = run_cases(CASES)
    assert done.stderr.endswith("OK\n"), done.stderr
    assert not amqp.has_queue(broker_uri, "rpc-case_front")


def test_cases_pass_on_a_rabbitmq_with_its_management_api(run_cases, node, api_uri, monkeypatch):
    monkeypatch.setenv("CASES_URI", node.uri)
    monkeypatch.setenv("CASES_API_URI", api_uri)
    done = run_cases(CASES)
    assert done.stderr.endswith("OK\n"), done.stderr


FAILING = """
    import threading
    import unittest
    from threadko.containers import ServiceContainer
    from threadko.testing.cases import ServiceTestCase
    from threadko.testing.services import dummy


    class Service:
        name = "service"

        @dummy
        def hang(self):
            threading.Event().wait()


    class Cases(ServiceTestCase):
        def test_hung(self):
            self.fire(self.start(Service), "hang", timeout=2)

        def test_left(self):
            ServiceContainer(Service, config={}).start()


    class Wrong(ServiceTestCase):
        broker_uri = "http://wrong"

        def test_wrong(self):
            self.amqp_uri
"""


def test_failing_cases_tell_their_story_and_hang_nothing(run_cases):
    done = run_cases(FAILING)
    assert "EntrypointWaiterTimeout: Timeout on service.hang after 2 seconds" in done.stderr
    assert "thread threadko-service-worker" in done.stderr
    assert "LeftoverWarning: the test has left behind:" in done.stderr
    assert "* the container of service 'service'" in done.stderr
    assert "ConfigurationError: AMQP_URI cannot be used" in done.stderr
    assert done.returncode == 1


class Service:
    name = "service"


class InThisProcess(ServiceTestCase):
    """Run by a test below, so that pytest runs the kit in this process too."""

    __test__ = False
    result = None

    def runTest(self):  # noqa: N802 (the name that unittest calls)
        container = self.start(Service)
        type(self).result = container.config["AMQP_URI"]


def test_case_can_be_run_by_hand():
    result = unittest.TestResult()
    InThisProcess().run(result)
    assert (result.testsRun, result.errors, result.failures) == (1, [], [])
    with pytest.raises(AMQPError):
        amqp.has_queue(InThisProcess.result, "queue")
