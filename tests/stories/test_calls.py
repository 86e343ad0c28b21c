"""Calls in one process, over a real broker: overlap, lost connections, stopping and killing."""

import threading
import time

import pytest

from tests.support.amqp import queue_depth
from tests.support.timing import TIMEOUT
from threadko.containers import ServiceContainer
from threadko.exceptions import WorkerKilled
from threadko.rpc import ServiceRpc, rpc
from threadko.runners import run_services
from threadko.standalone.rpc import ClusterRpcClient


def threads_of(name):
    return [t.name for t in threading.enumerate() if t.name.startswith(f"threadko-{name}-")]


class Gate:
    """Holds workers until the test lets them through."""

    def __init__(self):
        self.begun = threading.Semaphore(0)
        self.open = threading.Event()
        self.count = 0

    def hold(self):
        self.count += 1
        self.begun.release()
        assert self.open.wait(TIMEOUT)

    def wait_for(self, workers):
        for _ in range(workers):
            assert self.begun.acquire(timeout=TIMEOUT)


@pytest.fixture
def gate():
    made = Gate()
    yield made
    made.open.set()


@pytest.fixture
def service_cls(name, gate):
    class Service:
        @rpc
        def echo(self, value):
            return value

        @rpc
        def hold(self, value):
            gate.hold()
            return value

    Service.name = name
    return Service


def test_ten_calls_run_side_by_side(name, amqp_config, client):
    barrier = threading.Barrier(10, timeout=TIMEOUT)

    class Service:
        @rpc
        def meet(self):
            barrier.wait()
            return threading.current_thread().name

    Service.name = name
    with run_services(Service, config=amqp_config):
        calls = [client[name].meet.call_async() for _ in range(10)]
        assert len({call.result() for call in calls}) == 10


def test_ten_calls_that_sleep_take_about_as_long_as_one(name, amqp_config, client, record_property):
    class Service:
        @rpc
        def doze(self):
            threading.Event().wait(1.0)

    Service.name = name
    with run_services(Service, config=amqp_config):
        begun = time.monotonic()
        for call in [client[name].doze.call_async() for _ in range(10)]:
            call.result()
        seconds = time.monotonic() - begun
    record_property("ten calls of 1 s, together, in ms", round(seconds * 1000))
    print(f"ten calls of 1 s took {seconds * 1000:.0f} ms together")  # noqa: T201 - the figure
    assert seconds < 9.0, "one after the other"


def test_calls_that_run_are_answered_when_the_container_stops(
    service_cls, name, gate, amqp_config, client
):
    container = ServiceContainer(service_cls, config=amqp_config)
    container.start()
    calls = [client[name].hold.call_async(n) for n in range(5)]
    gate.wait_for(5)
    stopping = threading.Thread(target=container.stop)
    stopping.start()
    assert container.stopping.wait(TIMEOUT)
    gate.open.set()
    assert [call.result(TIMEOUT) for call in calls] == list(range(5))
    stopping.join(TIMEOUT)
    assert threads_of(name) == []
    container.wait()


@pytest.mark.parametrize("how", ["cut", "reset"])
def test_service_is_back_when_its_connection_is_lost_while_idle(
    service_cls, name, amqp_config, client, proxy, broker_uri, how
):
    config = {**amqp_config, "AMQP_URI": proxy.uri_for(broker_uri)}
    with run_services(service_cls, config=config):
        assert client[name].echo(1) == 1
        for number in range(2, 5):
            getattr(proxy, how)()
            assert client[name].echo(number) == number
            assert proxy.accepted == number


@pytest.mark.parametrize("how", ["cut", "reset"])
def test_client_is_back_when_its_connection_is_lost_while_idle(
    service_cls, name, amqp_config, proxy, broker_uri, how
):
    config = {**amqp_config, "AMQP_URI": proxy.uri_for(broker_uri)}
    with run_services(service_cls, config=amqp_config):
        with ClusterRpcClient(config=config, timeout=TIMEOUT) as client:
            for number in range(1, 4):
                assert client[name].echo(number) == number
                getattr(proxy, how)()
            assert client[name].echo(4) == 4


def test_call_is_answered_when_the_service_s_connection_is_lost_while_it_runs(
    service_cls, name, gate, amqp_config, client, raw_caller, proxy, broker_uri
):
    config = {**amqp_config, "AMQP_URI": proxy.uri_for(broker_uri)}
    with run_services(service_cls, config=config):
        call = client[name].hold.call_async("held")
        gate.wait_for(1)
        proxy.cut()
        gate.wait_for(1)  # it is delivered again, since nobody has acknowledged it
        gate.open.set()
        assert call.result(TIMEOUT) == "held"
        assert client[name].echo("next") == "next"
    assert queue_depth(broker_uri, f"rpc-{name}") == 0
    assert gate.count == 2


def test_call_is_answered_when_the_caller_s_connection_is_lost_while_it_waits(
    service_cls, name, gate, amqp_config, proxy, broker_uri
):
    config = {**amqp_config, "AMQP_URI": proxy.uri_for(broker_uri)}
    rpc_client = ClusterRpcClient(config=config, timeout=TIMEOUT)
    with run_services(service_cls, config=amqp_config), rpc_client as client:
        call = client[name].hold.call_async("held")
        gate.wait_for(1)
        proxy.cut()
        gate.open.set()
        assert call.result(TIMEOUT) == "held"
        assert client[name].echo("next") == "next"
        assert rpc_client.pending == 0
    assert gate.count == 1


def test_calls_are_answered_while_both_sides_lose_their_connections(
    service_cls, name, amqp_config, proxy, broker_uri
):
    config = {**amqp_config, "AMQP_URI": proxy.uri_for(broker_uri)}
    rpc_client = ClusterRpcClient(config=config, timeout=TIMEOUT * 2)
    with run_services(service_cls, config=config), rpc_client as client:
        wrong = []

        def work(number):
            for call in range(30):
                if client[name].echo([number, call]) != [number, call]:
                    wrong.append((number, call))

        threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for round_ in range(1, 5):
            proxy.wait_for(lambda n=round_: proxy.connections == 2 and proxy.accepted >= 2 * n)
            proxy.cut()
        for thread in threads:
            thread.join(TIMEOUT * 3)
        assert wrong == []
        # What came twice has begun by now, and will be acknowledged before the end.
        assert client[name].echo("last") == "last"
        assert rpc_client.pending == 0
    assert queue_depth(broker_uri, f"rpc-{name}") == 0


def test_reply_of_an_abandoned_worker_never_arrives_and_its_request_goes_back(
    service_cls, name, gate, amqp_config, raw_caller, broker_uri
):
    container = ServiceContainer(service_cls, config=amqp_config)
    container.start()
    raw_caller.send(f"{name}.hold", {"args": ["held"], "kwargs": {}})
    gate.wait_for(1)
    container.kill()
    gate.open.set()
    # Another instance gets it, once, and its reply is the only one.
    with run_services(service_cls, config=amqp_config):
        assert raw_caller.take()[1]["result"] == "held"
    assert raw_caller.left() is None
    assert queue_depth(broker_uri, f"rpc-{name}") == 0
    assert gate.count == 2


def test_worker_that_waits_for_a_reply_is_killed_with_its_container(
    names, gate, amqp_config, raw_caller, broker_uri
):
    caller_name, callee_name = names.service("caller"), names.service("callee")
    told, woken = [], threading.Event()

    class Callee:
        name = callee_name

        @rpc
        def hold(self):
            gate.hold()

    class Caller:
        name = caller_name
        callee = ServiceRpc(callee_name)

        @rpc
        def ask(self):
            try:
                return self.callee.hold()
            except BaseException as error:
                told.append(type(error))
                raise
            finally:
                woken.set()

    with run_services(Callee, config=amqp_config):
        container = ServiceContainer(Caller, config=amqp_config)
        container.start()
        raw_caller.send(f"{caller_name}.ask", {"args": [], "kwargs": {}})
        gate.wait_for(1)
        container.kill()
        assert woken.wait(TIMEOUT)
        assert told == [WorkerKilled]
        gate.open.set()
        with run_services(Caller, config=amqp_config):
            assert raw_caller.take()[1] == {"result": None, "error": None}
    assert raw_caller.left() is None
    assert queue_depth(broker_uri, f"rpc-{caller_name}") == 0


def test_worker_gets_its_reply_while_the_services_of_its_process_stop(
    names, gate, amqp_config, client
):
    caller_name, callee_name = names.service("caller"), names.service("callee")

    class Callee:
        name = callee_name

        @rpc
        def hold(self, value):
            gate.hold()
            return value

        @rpc
        def double(self, value):
            return value * 2

    class Caller:
        name = caller_name
        callee = ServiceRpc(callee_name)

        @rpc
        def ask(self, value):
            # The second call begins when all is stopping; the callee still takes it.
            return self.callee.double(self.callee.hold(value))

    with run_services(Callee, Caller, config=amqp_config) as runner:
        call = client[caller_name].ask.call_async(4)
        gate.wait_for(1)
        stopping = threading.Thread(target=runner.stop)
        stopping.start()
        (caller,) = [c for c in runner.containers if c.service_name == caller_name]
        assert caller.stopping.wait(TIMEOUT)
        gate.open.set()
        assert call.result(TIMEOUT) == 8
        stopping.join(TIMEOUT)
        assert threads_of(caller_name) == threads_of(callee_name) == []


def test_client_shared_by_32_threads_gets_each_its_own_answers(service_cls, name, amqp_config):
    rpc_client = ClusterRpcClient(config=amqp_config, timeout=TIMEOUT * 3)
    barrier = threading.Barrier(32, timeout=TIMEOUT)
    right, failed = [], []

    def work(number, client):
        barrier.wait()
        try:
            for call in range(200):
                value = f"{number}:{call}"
                (right if client[name].echo(value) == value else failed).append(value)
        except Exception as error:
            failed.append(error)

    with run_services(service_cls, config=amqp_config), rpc_client as client:
        threads = [threading.Thread(target=work, args=(n, client)) for n in range(32)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(TIMEOUT * 4)
        assert failed == []
        assert len(set(right)) == 6400
        assert rpc_client.pending == 0
