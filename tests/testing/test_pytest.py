"""The pytest plugin, in runs of its own."""

import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest

from tests.support import amqp
from tests.support.timing import TIMEOUT
from threadko.devbroker import DevBroker
from threadko.testing import pytest as plugin

# The plugin is named, not found by its entry point: the package may or may not be installed.
PLUGIN = ("-p", "no:threadko", "-p", "threadko.testing.pytest", "-p", "no:cacheprovider")


@pytest.fixture(autouse=True)
def _nothing_else_loaded(monkeypatch):
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")


@pytest.fixture
def run_tests(pytester):
    """Run the tests in a text, in a process of their own with nothing else loaded."""

    def run(source, *args, plugin=PLUGIN):
        pytester.makepyfile(source)
        command = [sys.executable, "-m", "pytest", *plugin, *args]
        return pytester.run(*command, timeout=2 * TIMEOUT)

    return run


FACTORIES = """
class Service:
    name = "service"

made = []

def test_makes_container(container_factory):
    container = container_factory(Service, {"own": 1})
    assert dict(container.config) == EXPECTED
    container.start()
    made.append(container)

def test_makes_runner(runner_factory):
    runner = runner_factory(Service, config={"own": 1})
    assert dict(runner.containers[0].config) == EXPECTED
    runner.start()
    made.append(runner)

def test_all_have_ended():
    assert len(made) == 2
    for each in made:
        each.wait()
"""


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ((), {"own": 1}),
        (("--amqp-uri", "amqp://option"), {"own": 1, "AMQP_URI": "amqp://option"}),
        (("--rabbit-amqp-uri", "amqp://option"), {"own": 1, "AMQP_URI": "amqp://option"}),
    ],
)
def test_factories_make_containers_and_runners_that_end_with_their_test(run_tests, args, expected):
    source = FACTORIES.replace("EXPECTED", repr(expected))
    run_tests(source, *args).assert_outcomes(passed=3)


def test_option_of_another_plugin_is_used_when_there_is_one(pytester, run_tests):
    pytester.makepyfile(
        otherplugin="def pytest_addoption(parser): parser.addoption('--amqp-uri', default='amqp://their')"
    )
    pytester.syspathinsert()
    source = FACTORIES.replace("EXPECTED", repr({"own": 1, "AMQP_URI": "amqp://their"}))
    result = run_tests(source, plugin=("-p", "otherplugin", *PLUGIN))
    result.assert_outcomes(passed=3)


NAMEKO_DEFAULTS = """
def pytest_addoption(parser):
    parser.addoption("--amqp-uri", default="pyamqp://guest:guest@localhost:5672/")
    parser.addoption("--rabbit-api-uri", default="http://guest:guest@localhost:15672")
    parser.addoption("--amqp-ssl-option", type=lambda text: tuple(text.split("=")), action="append",
                     default=[("ca_certs", "theirs.pem")])
"""


def test_defaults_of_the_plugin_of_nameko_still_mean_the_development_broker(pytester, run_tests):
    pytester.makepyfile(otherplugin=NAMEKO_DEFAULTS)
    pytester.syspathinsert()
    source = """
    def test_broker(threadko_broker, rabbit_uri):
        assert type(threadko_broker).__name__ == "DevelopmentBroker"

    def test_tls(rabbit_ssl_options):
        pass
    """
    result = run_tests(source, "-rs", plugin=("-p", "otherplugin", *PLUGIN))
    result.assert_outcomes(passed=1, skipped=1)
    result.stdout.fnmatch_lines(["*there is no theirs.pem*"])


@pytest.mark.parametrize(("is_blocked", "count"), [(False, 0), (True, 6)])
def test_options_are_left_to_the_plugin_of_nameko_unless_that_is_blocked(
    monkeypatch, is_blocked, count
):
    point = EntryPoint("pytest_nameko", "nameko.testing.pytest", "pytest11")
    monkeypatch.setattr(plugin, "entry_points", lambda group: [point])
    parser = pytest.Parser(_ispytest=True)
    manager = pytest.PytestPluginManager()
    if is_blocked:
        manager.set_blocked("pytest_nameko")
    plugin.pytest_addoption(parser, manager)
    assert len(parser.getgroup("threadko").options) == count


def test_loading_the_plugin_imports_and_starts_nothing():
    code = (
        "import sys, threading, threadko.testing.pytest;"
        "print(sorted(name for name in sys.modules if name.startswith('threadko')));"
        "print(threading.active_count());"
        "print(sorted({'pika', 'yaml', 'werkzeug', 'websockets', 'requests'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=TIMEOUT, check=True
    )
    modules, threads, libraries = done.stdout.splitlines()
    assert eval(modules) == [
        "threadko",
        "threadko.configuration",
        "threadko.configuration.store",
        "threadko.testing",
        "threadko.testing.pytest",
    ]
    assert (threads, libraries) == ("1", "[]")


FIXTURES = """
import queue
import pytest
from threadko import config
from threadko.events import EventDispatcher, event_handler
from threadko.messaging import Publisher
from threadko.rpc import ServiceRpc, rpc
from threadko.standalone.rpc import ServiceRpcClient, ServiceRpcProxy
from threadko.testing.services import entrypoint_hook, entrypoint_waiter, once
from threadko.testing.utils import get_container
from threadko.web.handlers import http
from threadko.web.websocket import rpc as websocket_rpc


class Front:
    name = "front"
    back = ServiceRpc("back")
    dispatch = EventDispatcher()

    @rpc
    def call(self, value):
        self.dispatch("called", value)
        return self.back.double(value)


class Back:
    name = "back"

    @rpc
    def double(self, value):
        return 2 * value

    @event_handler("front", "called")
    def on_called(self, value):
        return value


class Web:
    name = "web"

    @http("GET", "/page")
    def page(self, request):
        return "a page"

    @websocket_rpc
    def echo(self, socket_id, value):
        return value


uris = []


@pytest.mark.parametrize("number", [1, 2])
def test_broker_is_new_for_each_test(runner_factory, rabbit_config, rabbit_uri, amqp_uri, number):
    assert config["AMQP_URI"] == rabbit_uri == amqp_uri
    assert rabbit_uri not in uris
    uris.append(rabbit_uri)
    runner = runner_factory(Front, Back)
    runner.start()
    back = get_container(runner, Back)
    with entrypoint_waiter(back, "on_called") as result:
        with ServiceRpcClient("front") as front:
            assert front.call(number) == 2 * number
    assert result.get() == number


def test_configuration_is_as_before():
    assert "AMQP_URI" not in config
    assert "WEB_SERVER_ADDRESS" not in config


def test_messages_can_be_looked_at(container_factory, rabbit_config, get_message_from_queue):
    from threadko.messaging import Queue

    class Publishing:
        name = "publishing"
        publish = Publisher(declare=[Queue("looked-at")])

        @once("payload")
        def method(self, payload):
            self.publish(payload, routing_key="looked-at", correlation_id="an id")

    container = container_factory(Publishing)
    with entrypoint_waiter(container, "method"):
        container.start()
    message = get_message_from_queue("looked-at", ack=False)
    assert message.payload == "payload"
    assert get_message_from_queue("looked-at").properties["correlation_id"] == "an id"
    with pytest.raises(queue.Empty):
        get_message_from_queue("looked-at", block=False)


def test_fixtures_are_what_nameko_2_gave(container_factory, rabbit_config, web_config):
    both = {**rabbit_config, **web_config}
    assert both == {key: config[key] for key in ("AMQP_URI", "WEB_SERVER_ADDRESS")}
    container = container_factory(Back, {**both, "ours": 1})
    assert container.config["ours"] == 1
    container.start()
    with ServiceRpcProxy("back", rabbit_config) as back:
        assert back.double(2) == 4


def test_web(container_factory, web_config, web_config_port, web_session, websocket):
    assert config["WEB_SERVER_ADDRESS"] == f"127.0.0.1:{web_config_port}"
    container_factory(Web).start()
    response = web_session.get("/page")
    assert (response.status_code, response.text) == (200, "a page")
    assert websocket().rpc("echo", value=1) == 1


def test_mock_container(mock_container):
    assert mock_container.shared_extensions == {}


def test_empty_config(empty_config):
    assert dict(config) == empty_config == {}


@pytest.mark.parametrize("number", [1, 2])
def test_call_ids(predictable_call_ids, container_factory, number):
    seen = []

    class Own:
        name = "own"

        @once
        def method(self):
            pass

    container = container_factory(Own)
    with entrypoint_waiter(container, "method") as result:
        container.start()
    assert result.worker_ctx.call_id == "own.method.0"
    assert predictable_call_ids.call_count == 1
"""


def test_each_fixture_does_what_it_is_for(run_tests):
    result = run_tests(FIXTURES, "-W", "error")
    result.assert_outcomes(passed=10)


def test_fixtures_work_on_a_broker_that_is_named(run_tests, broker_uri):
    result = run_tests(
        FIXTURES.replace("assert rabbit_uri not in uris", ""), "--amqp-uri", broker_uri
    )
    result.assert_outcomes(passed=10)
    assert "has left behind" not in result.stdout.str()
    for queue in ("rpc-front", "rpc-back", "evt-front-called--back.on_called", "looked-at"):
        assert not amqp.has_queue(broker_uri, queue)


def test_fixtures_work_on_a_rabbitmq_with_its_management_api(run_tests, node, api_uri):
    args = ("--amqp-uri", node.uri, "--rabbit-api-uri", api_uri)
    run_tests(FIXTURES, *args).assert_outcomes(passed=10)
    result = run_tests("def test_manager(rabbit_manager): rabbit_manager.get_all_vhosts()", *args)
    result.assert_outcomes(passed=1)


def test_management_api_that_is_named_is_asked(run_tests):
    source = "def test_manager(rabbit_manager): pass"
    args = ("--amqp-uri", "amqp://127.0.0.1:1", "--rabbit-api-uri", "http://127.0.0.1:1")
    result = run_tests(source, *args)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*BrokerError: no management API at http://127.0.0.1:1*"])


def test_what_needs_more_than_there_is_is_skipped_in_words(run_tests):
    source = """
    def test_manager(rabbit_manager):
        pass

    def test_tls_uri(rabbit_ssl_config):
        pass

    def test_tls_options(rabbit_ssl_options):
        pass
    """
    result = run_tests(source, "-rs")
    result.assert_outcomes(skipped=3)
    result.stdout.fnmatch_lines_random(
        [
            "*there is no management API:*--rabbit-api-uri*",
            "*the development broker speaks no TLS:*--amqp-uri*",
            "*there is no certs/cacert.pem:*--amqp-ssl-option ca_certs=FILE*",
        ]
    )


def test_tls_options_are_what_amqp_ssl_takes(pytester, run_tests):
    for name in ("ca", "cert", "key"):
        pytester.path.joinpath(f"{name}.pem").touch()
    source = """
    import ssl
    from threadko import config

    def test_tls(rabbit_ssl_options, rabbit_ssl_uri, rabbit_ssl_config):
        assert config["AMQP_URI"] == rabbit_ssl_uri
        assert config["AMQP_SSL"] == rabbit_ssl_options
        assert rabbit_ssl_options == {
            "ca_certs": "ca.pem", "certfile": "cert.pem", "keyfile": "key.pem",
            "cert_reqs": ssl.CERT_REQUIRED, "check_hostname": False,
        }
        assert rabbit_ssl_uri.endswith("@127.0.0.1:5677/")
    """
    options = ["ca_certs=ca.pem", "certfile=cert.pem", "keyfile=key.pem", "check_hostname=false"]
    given = [word for option in options for word in ("--amqp-ssl-option", option)]
    with DevBroker() as broker:
        result = run_tests(source, "--amqp-uri", broker.uri, "--amqp-ssl-port", "5677", *given)
    result.assert_outcomes(passed=1)


def test_web_session_without_requests_is_an_error_in_one_line(pytester, run_tests):
    pytester.makepyfile(requests="raise ImportError")
    result = run_tests("def test_web(web_session): pass")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*web_session needs requests: pip install requests*"])


def test_conftest_that_takes_the_fixtures_has_them(pytester, run_tests):
    pytester.makeconftest("from threadko.testing.pytest import *")
    pytester.makepyfile(
        otherplugin="""
        import pytest

        @pytest.fixture
        def rabbit_uri():
            return "theirs"
        """
    )
    pytester.syspathinsert()
    source = "def test_mine(rabbit_uri): assert rabbit_uri.startswith('amqp://guest')"
    for plugins in ((*PLUGIN, "-p", "otherplugin"), ("-p", "otherplugin", *PLUGIN)):
        run_tests(source, plugin=plugins).assert_outcomes(passed=1)


HUNG = """
import threading
from threadko.rpc import rpc
from threadko.testing.services import entrypoint_hook, entrypoint_waiter


class Service:
    name = "service"

    @rpc
    def hang(self):
        threading.Event().wait()

    @rpc
    def work(self):
        return "done"


def test_hook(container_factory, rabbit_config):
    container = container_factory(Service)
    container.start()
    with entrypoint_hook(container, "hang", timeout=2) as hang:
        hang()


def test_waiter(container_factory, rabbit_config):
    container = container_factory(Service)
    container.start()
    with entrypoint_waiter(container, "hang", timeout=0.2):
        with entrypoint_hook(container, "work") as work:
            work()
"""


def test_hung_worker_cannot_hang_the_run_and_is_named(run_tests):
    result = run_tests(HUNG)
    result.assert_outcomes(failed=2, warnings=1)
    result.stdout.fnmatch_lines(
        [
            "*EntrypointWaiterTimeout: Timeout on service.hang after 2 seconds; nothing fired*",
            "*and hang still runs, at:",
            "*threading.Event().wait()*",
            "*EntrypointWaiterTimeout: Timeout on service.hang after 0.2 s*fired: work -> 'done'",
            "*LeftoverWarning: the test has left behind:",
            "*thread threadko-service-worker*",
            "*threading.Event().wait()*",
        ]
    )


MANY = """
import pytest
from threadko.rpc import ServiceRpc, rpc
from threadko.testing.services import entrypoint_hook
from threadko.testing.utils import get_container


class Front:
    name = "front"
    back = ServiceRpc("back")

    @rpc
    def call(self, value):
        return self.back.double(value)


class Back:
    name = "back"

    @rpc
    def double(self, value):
        return 2 * value


@pytest.mark.parametrize("number", range(COUNT))
def test_call(runner_factory, rabbit_config, number):
    runner = runner_factory(Front, Back)
    runner.start()
    with entrypoint_hook(get_container(runner, Front), "call") as call:
        assert call(number) == 2 * number


def test_nothing_is_left(threadko_broker):
    import threading, os, gc
    broker = threadko_broker._broker
    assert list(broker.vhosts) == ["/"]
    assert broker._clients == {}
    names = [thread.name for thread in threading.enumerate()]
    assert sorted(names) == ["MainThread", "threadko-devbroker-0"], names
    open_now = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    assert open_now < 40
"""


@pytest.mark.parametrize("count", [pytest.param(500, marks=pytest.mark.long), 25])
@pytest.mark.timeout(600)
def test_many_tests_leave_nothing_behind(pytester, count):
    pytester.makepyfile(MANY.replace("COUNT", str(count)))
    command = [sys.executable, "-m", "pytest", *PLUGIN, "-W", "error", "-q"]
    result = pytester.run(*command, timeout=20 * TIMEOUT)
    result.assert_outcomes(passed=count + 1)


DISPATCHERS = """
import pytest
from threadko.events import event_handler
from threadko.standalone.events import event_dispatcher
from threadko.testing.services import entrypoint_waiter


class Listener:
    name = "listener"

    @event_handler("shop", "sold")
    def sold(self, data):
        return data


@pytest.fixture
def dispatch(rabbit_config):
    return event_dispatcher()


@pytest.mark.parametrize("number", range(3))
def test_of_a_fixture(dispatch, container_factory, number):
    container = container_factory(Listener)
    container.start()
    with entrypoint_waiter(container, "sold", timeout=10) as result:
        dispatch("shop", "sold", number)
    assert result.get() == number


def test_kept_by_an_exception(rabbit_config):
    def fail():
        dispatch = event_dispatcher()
        dispatch("shop", "sold", 1)
        raise ValueError("broken")

    with pytest.raises(ValueError) as caught:
        fail()
    pytest.caught = caught
"""


def test_dispatcher_that_nobody_closes_leaves_nothing_behind(run_tests):
    result = run_tests(DISPATCHERS, "-W", "error::threadko.testing.leftovers.LeftoverWarning")
    result.assert_outcomes(passed=4)
    result.stdout.no_fnmatch_line("*WARNING*")
