import concurrent.futures
import contextlib
import gc
import os
import subprocess
import sys
import threading
import warnings

import pytest

from tests.support.amqp import declare_queue
from tests.support.proxy import Proxy
from tests.support.timing import TIMEOUT, wait_until
from threadko.configuration import config as global_config
from threadko.exceptions import (
    BrokerRefused,
    BrokerUnavailable,
    ConfigurationError,
    ContainerStopped,
    EncodeError,
    MethodNotFound,
    RemoteError,
    RpcTimeout,
    UnknownService,
)
from threadko.rpc import rpc
from threadko.runners import run_services
from threadko.standalone.rpc import (
    ClusterRpcClient,
    ClusterRpcProxy,
    ServiceRpcClient,
    ServiceRpcProxy,
)


@pytest.fixture
def name(names):
    return names.service("any-service")


@pytest.fixture
def service(name, amqp_config):
    class Service:
        @rpc
        def echo(self, value):
            return value

        @rpc
        def fail(self):
            raise ValueError("too small")

        @rpc
        def context(self):
            from threadko.context import current_worker  # noqa: PLC0415 (where a worker looks)

            return current_worker.get().context_data

        @rpc
        def call_async(self):
            return "a method of that name"

    Service.name = name
    with run_services(Service, config={**amqp_config, "max_workers": 8}) as runner:
        yield runner


@pytest.fixture
def silent(broker_uri, rpc_exchange, names):
    """The name of a service whose queue takes requests and which never answers."""
    name = names.service("silent")
    with ClusterRpcClient(config={"AMQP_URI": broker_uri, "rpc_exchange": rpc_exchange}):
        pass  # the exchange is there now
    declare_queue(
        broker_uri, f"rpc-{name}", exchange=rpc_exchange, routing_key=f"{name}.*", durable=True
    )
    return name


@pytest.fixture
def proxy(broker_uri):
    with Proxy.for_uri(broker_uri) as made:
        yield made


@pytest.mark.usefixtures("service")
def test_client_calls_any_service(name, amqp_config):
    with ClusterRpcClient(config=amqp_config, timeout=TIMEOUT) as client:
        assert client[name].echo({"a": [1, None]}) == {"a": [1, None]}
        assert client[name]["call_async"]() == "a method of that name"


@pytest.mark.usefixtures("service")
def test_client_of_one_service_calls_it(name, amqp_config):
    with ServiceRpcClient(name, config=amqp_config, timeout=TIMEOUT) as service:
        assert service.echo(1) == 1
        assert service.echo.call_async(value=2).result(TIMEOUT) == 2


@pytest.mark.usefixtures("service")
def test_errors_arrive_as_what_they_are(name, amqp_config):
    with ClusterRpcClient(config=amqp_config, timeout=TIMEOUT) as client:
        with pytest.raises(RemoteError, match="ValueError too small"):
            client[name].fail()
        with pytest.raises(MethodNotFound, match="nowhere"):
            client[name].nowhere()
        with pytest.raises(UnknownService, match="nobody"):
            client.nobody.method()
        with pytest.raises(EncodeError):
            client[name].echo(object())
        assert client[name].echo(1) == 1


@pytest.mark.usefixtures("service")
def test_context_data_goes_along_with_an_id_of_the_call(name, amqp_config):
    data = {"language": "en", "call_id_stack": ["somebody-s"]}
    with ClusterRpcClient(config=amqp_config, context_data=data, timeout=TIMEOUT) as client:
        first, second = client[name].context(), client[name].context()
    assert first["language"] == "en"
    assert first["call_id_stack"][0] == "somebody-s"
    assert first["call_id_stack"][1].startswith("standalone_rpc_client.")
    assert first["call_id_stack"][1] != second["call_id_stack"][1]
    assert data == {"language": "en", "call_id_stack": ["somebody-s"]}


@pytest.mark.usefixtures("service")
def test_global_configuration_is_used_when_none_is_given(name, amqp_config):
    with global_config.patch(amqp_config):
        with ClusterRpcClient(timeout=TIMEOUT) as client:
            assert client[name].echo(1) == 1


@pytest.mark.usefixtures("service")
def test_uri_that_is_given_wins_over_the_configuration(name, amqp_config, broker_uri):
    config = {**amqp_config, "AMQP_URI": "amqp://nobody@localhost:1/"}
    with ClusterRpcClient(uri=broker_uri, config=config, timeout=TIMEOUT) as client:
        assert client[name].echo(1) == 1


@pytest.mark.usefixtures("service")
def test_client_can_be_started_again(name, amqp_config):
    rpc_client = ClusterRpcClient(config=amqp_config, timeout=TIMEOUT)
    for _ in range(2):
        client = rpc_client.start()
        assert rpc_client.start()[name].echo(1) == client[name].echo(1) == 1
        rpc_client.stop()
        rpc_client.stop()


def test_call_is_refused_when_the_client_is_not_started(silent, amqp_config):
    rpc_client = ClusterRpcClient(config=amqp_config)
    client = rpc_client.start()
    rpc_client.stop()
    with pytest.raises(RuntimeError, match="not started"):
        client[silent].method()
    assert rpc_client.pending == 0


@pytest.mark.parametrize("where", ["client", "configuration", "method"])
def test_call_times_out_when_nobody_answers(silent, amqp_config, where):
    short = TIMEOUT / 20
    config = {
        **amqp_config,
        "BROKER_START_TIMEOUT": TIMEOUT,
        "RPC_TIMEOUT": short if where == "configuration" else 500,
    }
    rpc_client = ClusterRpcClient(config=config, timeout=short if where == "client" else None)
    with rpc_client as client:
        method = client[silent].method
        if where == "method":
            method = method.with_timeout(short)
        with pytest.raises(RpcTimeout, match=f"within {short} s"):
            method()
        assert rpc_client.pending == 0


def test_calls_that_wait_fail_when_the_client_stops(silent, amqp_config):
    rpc_client = ClusterRpcClient(config=amqp_config)
    with rpc_client as client:
        calls = [client[silent].method.call_async() for _ in range(3)]
        assert rpc_client.pending == 3
    assert [type(call.exception(0)) for call in calls] == [ContainerStopped] * 3
    assert rpc_client.pending == 0


def test_waiting_thread_is_woken_when_another_stops_the_client(silent, amqp_config):
    rpc_client = ClusterRpcClient(config=amqp_config)
    call = rpc_client.start()[silent].method.call_async()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(call.exception)
        rpc_client.stop()
        assert isinstance(waiting.result(TIMEOUT), ContainerStopped)


def test_start_fails_when_the_broker_refuses_the_login(amqp_config, broker_uri):
    rpc_client = ClusterRpcClient(
        config=amqp_config, uri=broker_uri.replace("guest:guest@", "guest:wrong@")
    )
    for _ in range(2):
        with pytest.raises(BrokerRefused) as caught:
            rpc_client.start()
        assert "wrong" not in str(caught.value)


def test_start_fails_when_the_broker_is_not_there_in_time(amqp_config, broker_uri, proxy, name):
    proxy.refuse()
    rpc_client = ClusterRpcClient(
        config={**amqp_config, "BROKER_START_TIMEOUT": TIMEOUT / 10}, uri=proxy.uri_for(broker_uri)
    )
    with pytest.raises(BrokerUnavailable):
        rpc_client.start()
    proxy.accept()
    rpc_client._start_timeout = TIMEOUT
    rpc_client.start()
    rpc_client.stop()


def test_start_that_waits_ends_when_another_thread_stops_the_client(amqp_config, broker_uri, proxy):
    proxy.refuse()
    rpc_client = ClusterRpcClient(config=amqp_config, uri=proxy.uri_for(broker_uri))
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        starting = pool.submit(rpc_client.start)
        while not starting.done():
            rpc_client.stop()
        assert isinstance(starting.exception(TIMEOUT), ContainerStopped)


def test_call_fails_as_stopped_when_the_start_that_it_relied_on_fails(
    amqp_config, broker_uri, proxy, silent
):
    rpc_client = ClusterRpcClient(config=amqp_config, uri=proxy.uri_for(broker_uri))
    client = rpc_client.start()
    rpc_client.stop()
    proxy.refuse()
    rpc_client._start_timeout = 1.0
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        starting = pool.submit(rpc_client.start)
        call = None
        while call is None and not starting.done():
            with contextlib.suppress(RuntimeError, ContainerStopped):
                call = client[silent].method.call_async()
        assert isinstance(starting.exception(TIMEOUT), BrokerUnavailable)
    assert isinstance(call.exception(TIMEOUT), ContainerStopped)


def test_configuration_is_checked_when_the_client_is_made():
    with pytest.raises(ConfigurationError, match="HEARTBEAT"):
        ClusterRpcClient(config={"HEARTBEAT": 0})


@pytest.mark.usefixtures("service")
def test_replies_come_whatever_the_order_they_are_waited_for(name, amqp_config):
    with ClusterRpcClient(config=amqp_config, timeout=TIMEOUT) as client:
        calls = [client[name].echo.call_async(number) for number in range(100)]
        assert [call.result() for call in reversed(calls)] == list(reversed(range(100)))
        done = {call.result() for call in concurrent.futures.as_completed(calls, TIMEOUT)}
        assert done == set(range(100))


@pytest.mark.parametrize("timeout", ["5", float("nan"), -1, True, [1]])
def test_timeout_that_is_none_is_a_clear_error(amqp_config, timeout):
    with (
        ClusterRpcClient(config=amqp_config) as client,
        pytest.raises(ValueError, match="a timeout is a number of seconds or None"),
    ):
        client.some.method.with_timeout(timeout)()


def test_start_waits_for_an_absent_broker_no_longer_than_a_call_may_take(
    amqp_config, broker_uri, proxy
):
    proxy.refuse()
    rpc_client = ClusterRpcClient(
        config=amqp_config, uri=proxy.uri_for(broker_uri), timeout=TIMEOUT / 100
    )
    with pytest.raises(BrokerUnavailable, match="is the broker running"):
        rpc_client.start()


@pytest.mark.parametrize("timeout", ["1", 0, -1, True, float("nan")])
def test_timeout_of_a_client_is_checked_when_it_is_made(amqp_config, timeout):
    with pytest.raises(ConfigurationError, match="timeout must be a number of seconds above 0"):
        ClusterRpcClient(timeout=timeout, config=amqp_config)


def test_client_that_is_called_itself_says_what_to_call(amqp_config):
    client = ClusterRpcClient(config=amqp_config)
    with pytest.raises(AttributeError, match=r"call services through what start\(\)"):
        client.service.method()
    with pytest.raises(TypeError, match=r"call services through what start\(\)"):
        client["service"]
    assert not hasattr(client, "__wrapped__")


def list_threads():
    return {each for each in threading.enumerate() if "standalone" in each.name}


def forget(known, told):
    """Know them no more; the connection's thread may do for a moment longer."""
    known.clear()

    def is_told():
        gc.collect()
        return len(told) > 0

    wait_until(is_told)


@pytest.mark.usefixtures("service")
def test_first_call_of_a_forked_client_may_fail_without_harm(amqp_config, broker_uri, proxy, name):
    config = {**amqp_config, "AMQP_URI": proxy.uri_for(broker_uri), "BROKER_START_TIMEOUT": 0.1}
    client = ClusterRpcClient(config=config, timeout=TIMEOUT)
    client._is_inherited = True  # as in a child
    proxy.refuse()
    for _ in range(2):
        with pytest.raises(BrokerUnavailable):
            client._start_call(name, "echo", ("x",), {}, TIMEOUT)
    proxy.accept()
    client._start_timeout = TIMEOUT
    assert client._start_call(name, "echo", ("x",), {}, TIMEOUT).result() == "x"
    client.stop()


@pytest.mark.usefixtures("service")
def test_two_threads_may_make_the_first_call_of_a_forked_client(amqp_config, name):
    class Racing(ClusterRpcClient):
        """Another thread starts it just when one has seen that it has no caller."""

        caller = None
        races = False

        @property
        def _caller(self):
            seen = self.caller
            if self.races:
                self.races = False
                thread = threading.Thread(target=self.start)
                thread.start()
                thread.join(TIMEOUT)
            return seen

        @_caller.setter
        def _caller(self, caller):
            self.caller = caller

    client = Racing(config=amqp_config, timeout=TIMEOUT)
    client._is_inherited = client.races = True
    assert client._start_call(name, "echo", ("x",), {}, TIMEOUT).result() == "x"
    client.stop()


def test_client_that_is_forgotten_is_stopped_and_warned_of(amqp_config):
    before = list_threads()
    known = [ClusterRpcClient(config=amqp_config).start()]
    match = r"ClusterRpcClient was forgotten without stop\(\)"
    with pytest.warns(ResourceWarning, match=match) as told:
        forget(known, told)
    for thread in list_threads() - before:
        thread.join(TIMEOUT)
    assert list_threads() <= before


@pytest.mark.usefixtures("service")
def test_client_is_not_forgotten_while_a_call_of_its_is_known(name, amqp_config):
    known = [ClusterRpcClient(config=amqp_config).start()[name].echo.call_async("late")]
    gc.collect()
    assert known[0].result(TIMEOUT) == "late"
    with pytest.warns(ResourceWarning) as told:
        forget(known, told)


def test_client_that_was_stopped_or_never_started_is_forgotten_without_a_word(amqp_config):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ClusterRpcClient(config=amqp_config)
        with ClusterRpcClient(config=amqp_config):
            pass
        client = ClusterRpcClient(config=amqp_config)
        for _ in range(2):
            client.start()
            client.stop()
        del client
        gc.collect()


@pytest.mark.usefixtures("service")
def test_names_of_nameko_2_take_its_arguments(name, amqp_config):
    context_data = {"language": "de"}
    with ClusterRpcProxy(amqp_config, context_data, TIMEOUT) as client:
        found = client[name].context()
    assert {key: found[key] for key in found if key != "call_id_stack"} == context_data
    with ServiceRpcProxy(name, amqp_config, timeout=TIMEOUT) as service:
        assert set(service.context()) == {"call_id_stack"}


@pytest.mark.usefixtures("service")
def test_names_of_nameko_2_take_the_arguments_of_nameko_3_as_well(name, amqp_config):
    with global_config.patch(amqp_config):
        with ClusterRpcProxy({"language": "de"}, TIMEOUT) as client:
            assert client[name].context()["language"] == "de"
        with ServiceRpcProxy(name, context_data={"language": "de"}) as service:
            assert service.context()["language"] == "de"
        with ServiceRpcProxy(name, global_config) as service:
            assert set(service.context()) == {"call_id_stack"}


def test_configuration_in_the_wrong_place_is_not_sent_along(amqp_config):
    with pytest.raises(TypeError, match="config="):
        ClusterRpcClient(amqp_config)
    with pytest.raises(TypeError, match="config="):
        ServiceRpcProxy("any", context_data=amqp_config)
    with pytest.raises(TypeError, match="twice"):
        ClusterRpcProxy(amqp_config, config=amqp_config)


FORKED = """
import os, sys, threading
from threadko.rpc import rpc
from threadko.runners import run_services
from threadko.standalone.rpc import ClusterRpcClient

uri, exchange, name = sys.argv[1:]
config = {"AMQP_URI": uri, "rpc_exchange": exchange}

class Service:
    @rpc
    def echo(self, value):
        return value

Service.name = name
over = threading.Event()
answers = []

with run_services(Service, config=config), ClusterRpcClient(timeout=20, config=config) as client:
    assert client[name].echo("before") == "before"

    def go_on():
        while not over.is_set():
            answers.append(client[name].echo(len(answers)))

    busy = [threading.Thread(target=go_on) for _ in range(3)]
    for each in busy:
        each.start()
    children = []
    for number in range(5):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                calls = [client[name].echo.call_async([number, n]) for n in range(20)]
                if [call.result() for call in calls] == [[number, n] for n in range(20)]:
                    code = 0
            finally:
                os._exit(code)
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    over.set()
    for each in busy:
        each.join()
    assert client[name].echo("after") == "after"
print(codes, len(answers) > 0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system that forks")
def test_forked_child_becomes_a_client_of_its_own(broker_uri, rpc_exchange, names):
    ended = subprocess.run(
        [sys.executable, "-c", FORKED, broker_uri, rpc_exchange, names.service("forked")],
        capture_output=True,
        text=True,
        timeout=4 * TIMEOUT,
    )
    assert (ended.returncode, ended.stdout.strip()) == (0, "[0, 0, 0, 0, 0] True"), ended.stderr
