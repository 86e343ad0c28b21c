"""Connections are lost at any moment under load, and no call is.

Two services, the first calling the second for each call that it gets, and a client; each of the
three reaches the broker through a proxy of its own, which does what was armed behind the n-th
byte: in a login, a frame, between a reply and its confirm. The choice of proxy, direction, number
and fault is drawn from a seed that is printed with the figures.
"""

import random
import signal
from collections import Counter

import pytest

from tests.stories.load import Load
from tests.support.amqp import queue_depth
from tests.support.proxy import Proxy
from tests.support.timing import TIMEOUT
from threadko.exceptions import PublishFailed
from threadko.rpc import ServiceRpc, rpc
from threadko.runners import ServiceRunner
from threadko.standalone.rpc import ClusterRpcClient

# They end by what is waited for in them; under load a hundred faults take their time.
pytestmark = pytest.mark.timeout(20 * TIMEOUT)

CALLERS = 8
ROUNDS = 25

BACK = """
from tests.support.ledger import Ledger
from threadko.rpc import rpc

ledger = Ledger({ledger!r})


class Back:
    name = {back!r}

    @rpc
    def double(self, number, padding):
        ledger.enter(number)
        return number * 2
"""

FRONT = """
from threadko.rpc import ServiceRpc, rpc


class Front:
    name = {front!r}
    back = ServiceRpc({back!r})

    @rpc
    def relay(self, number, padding=""):
        return self.back.double(number, padding) + 1
"""


@pytest.fixture
def proxies(broker_uri):
    made = {role: Proxy.for_uri(broker_uri) for role in ("front", "back", "client")}
    yield made
    for proxy in made.values():
        proxy.close()


@pytest.fixture
def service_name(names):
    return {role: names.service(role) for role in ("front", "back")}


@pytest.fixture
def start(run, service_name, ledger, proxies, broker_uri):
    """Starts both services; returns their processes."""

    def start(**config):
        sources = {"back": BACK, "front": FRONT}
        processes = []
        for role, source in sources.items():
            text = source.format(ledger=str(ledger.path), **service_name)
            processes.append(run(text, AMQP_URI=proxies[role].uri_for(broker_uri), **config))
        for process in processes:
            process.wait_for("services ready", "stderr")
        return processes

    return start


@pytest.fixture
def start_here(service_name, ledger, proxies, broker_uri, amqp_config):
    """Starts both services in this process; returns their runners."""

    class Back:
        name = service_name["back"]

        @rpc
        def double(self, number, padding):
            ledger.enter(number)
            return number * 2

    class Front:
        name = service_name["front"]
        back = ServiceRpc(service_name["back"])

        @rpc
        def relay(self, number, padding=""):
            return self.back.double(number, padding) + 1

    def start_here():
        runners = []
        for role, service in {"back": Back, "front": Front}.items():
            uri = proxies[role].uri_for(broker_uri)
            runners.append(ServiceRunner({**amqp_config, "AMQP_URI": uri}))
            runners[-1].add_service(service)
            runners[-1].start()
        return runners

    return start_here


def stop_all(runners_or_processes):
    """Stop the front before the back, all gracefully."""
    for each in runners_or_processes[::-1]:
        if isinstance(each, ServiceRunner):
            each.stop()
            each.wait()
        else:
            each.send_signal(signal.SIGTERM)
            assert each.wait() == 0, each


@pytest.mark.parametrize("where", ["in one process", "in three processes"])
@pytest.mark.parametrize("cuts", [20, pytest.param(100, marks=pytest.mark.long)])
def test_every_call_is_answered_while_connections_are_lost_at_any_moment(
    start, start_here, service_name, amqp_config, broker_uri, proxies, ledger, cuts, where, figure
):
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")  # noqa: T201 - to do the same again
    draw = random.Random(seed)
    services = start_here() if where == "in one process" else start()
    config = {**amqp_config, "AMQP_URI": proxies["client"].uri_for(broker_uri)}
    rpc_client = ClusterRpcClient(config=config, timeout=2 * TIMEOUT)
    struck = Counter()

    def call(number):
        # Some are of several pieces on the way, to be torn.
        return client[service_name["front"]].relay(number, "x" * (number % 4 // 3 * 100_000))

    with rpc_client as client:
        with Load(call, CALLERS) as load:
            for _ in range(cuts):
                role = draw.choice(list(proxies))
                direction = draw.choice(["up", "down"])
                fault = draw.choice(["cut", "reset"])
                # Guessed: some are within a login (600 bytes up), some many calls later.
                size = draw.randrange(1, draw.choice([1_000, 5_000, 30_000]))
                burnt = proxies[role].arm(direction, size, fault)
                assert burnt.wait(TIMEOUT), f"no byte through {role}: {proxies[role]}"
                struck[role] += 1
        assert rpc_client.pending == 0
    stop_all(services)

    assert load.errors == {}
    assert load.answers == {number: number * 2 + 1 for number in range(len(load.answers))}
    runs = ledger.count()
    assert set(runs) == {str(number) for number in load.answers}
    again = sum(runs.values()) - len(runs)
    # What was answered and not acknowledged when a connection was lost has come back, and goes
    # on waiting if the service stopped then.
    left = sum(queue_depth(broker_uri, f"rpc-{name}") for name in service_name.values())
    assert left <= 2 * CALLERS
    figures = f"{len(runs):,} calls of two services, 0 lost, {again} run again"
    figures += f", {left} to be run again"
    print(f"{cuts} cuts {where}, {dict(struck)}: {figures}")  # noqa: T201 - where they were
    if cuts == 100:
        figure("cuts", f"{cuts} cuts {where}, {figures}")


@pytest.mark.long
def test_every_call_is_answered_while_connections_go_silent(
    start, service_name, amqp_config, broker_uri, proxies, ledger, figure
):
    """One connection of each process, side by side: pika notices within 2 * (HEARTBEAT + 5) s."""
    # So long that it is the heartbeat that ends the silence.
    patient = {"HEARTBEAT": 1, "PUBLISH_TIMEOUT": 2 * TIMEOUT}
    services = start(**patient)
    config = {**amqp_config, **patient, "AMQP_URI": proxies["client"].uri_for(broker_uri)}
    rpc_client = ClusterRpcClient(config=config, timeout=2 * TIMEOUT)
    with rpc_client as client:
        with Load(lambda number: client[service_name["front"]].relay(number), CALLERS) as load:
            load.wait_for_answers(10)
            accepted = {role: proxy.accepted for role, proxy in proxies.items()}
            # Behind the next byte, which is a heartbeat's where all waits for the others.
            burnt = [proxy.arm("up", 1, "strand") for proxy in proxies.values()]
            for event in burnt:
                assert event.wait(TIMEOUT)
            for role, proxy in proxies.items():
                proxy.wait_for(lambda p=proxy, before=accepted[role]: p.accepted > before)
            load.wait_for_answers(10)
        assert rpc_client.pending == 0
    stop_all(services)
    assert load.errors == {}
    assert load.answers == {number: number * 2 + 1 for number in range(len(load.answers))}
    assert set(ledger.count()) == {str(number) for number in load.answers}
    figure("holes", f"{len(burnt)} at once, {len(load.answers):,} calls, 0 lost")


def test_calls_in_a_silent_connection_fail_clearly_and_later_ones_are_answered(
    start, service_name, amqp_config, broker_uri, proxies
):
    start()
    uri = proxies["client"].uri_for(broker_uri)
    config = {**amqp_config, "AMQP_URI": uri, "PUBLISH_TIMEOUT": 0.5}
    rpc_client = ClusterRpcClient(config=config, timeout=2 * TIMEOUT)
    with rpc_client as client:
        with Load(lambda number: client[service_name["front"]].relay(number), CALLERS) as load:
            for _ in range(3):
                load.wait_for_answers(10)
                burnt = proxies["client"].arm("up", 1000, "strand")
                assert burnt.wait(TIMEOUT)
            load.wait_for_answers(10)
        assert rpc_client.pending == 0
    assert {type(error) for error in load.errors.values()} == {PublishFailed}
    assert 3 <= len(load.errors) <= 3 * CALLERS


@pytest.mark.long
def test_every_call_is_answered_while_services_restart_and_connections_are_lost(
    run, service_name, amqp_config, broker_uri, proxies, ledger
):
    """Each stop meets a fault somewhere in its flushing and closing, or before, or not at all;
    every third is no stop but a SIGKILL."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")  # noqa: T201 - to do the same again
    draw = random.Random(seed)
    sources = {"back": BACK, "front": FRONT}

    def start(role):
        text = sources[role].format(ledger=str(ledger.path), **service_name)
        return run(text, AMQP_URI=proxies[role].uri_for(broker_uri))

    processes = {role: start(role) for role in sources}
    for process in processes.values():
        process.wait_for("services ready", "stderr")
    with ClusterRpcClient(config=amqp_config, timeout=2 * TIMEOUT) as client:
        with Load(lambda number: client[service_name["front"]].relay(number), CALLERS) as load:
            for _ in range(ROUNDS):
                load.wait_for_answers(10)
                role = draw.choice(list(sources))
                size, fault = draw.randrange(1, 1500), draw.choice(["cut", "reset"])
                proxies[role].arm(draw.choice(["up", "down"]), size, fault)
                number = draw.choice([signal.SIGTERM, signal.SIGTERM, signal.SIGKILL])
                processes[role].send_signal(number)
                code = 0 if number == signal.SIGTERM else -number
                assert processes[role].wait() == code, processes[role]
                processes[role] = start(role)
    stop_all(list(processes.values()))
    assert load.errors == {}
    assert load.answers == {number: number * 2 + 1 for number in range(len(load.answers))}
    assert set(ledger.count()) == {str(number) for number in load.answers}
    left = sum(queue_depth(broker_uri, f"rpc-{name}") for name in service_name.values())
    assert left <= 2 * CALLERS  # answered, but not acknowledged when a connection was lost
