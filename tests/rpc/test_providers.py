import threading

import pytest
from pika import spec

from tests.support.amqp import has_queue, queue_depth
from tests.support.fake_broker import FakeBroker
from tests.support.timing import TIMEOUT
from threadko.concurrency.deadline import Deadline
from threadko.containers import ServiceContainer
from threadko.exceptions import (
    BrokerRefused,
    BrokerUnavailable,
    ConfigurationError,
    ContainerStopped,
    MethodNotFound,
    RemoteError,
    RpcTimeout,
    UnknownService,
    WorkerKilled,
)
from threadko.extensions import Entrypoint
from threadko.rpc import ClusterRpc, ReplyListener, ServiceRpc, rpc
from threadko.runners import run_services
from threadko.standalone.rpc import ClusterRpcClient


class once(Entrypoint):  # noqa: N801 - used as a decorator
    """A method that only tests fire."""


once = once.decorator


@pytest.fixture
def names_of(names):
    return {stem: names.service(stem) for stem in ("front", "back")}


def make_services(names_of, **options):
    class Back:
        name = names_of["back"]

        @rpc
        def double(self, value):
            return value * 2

        @rpc
        def fail(self):
            raise ValueError("from the back")

    class Front:
        name = names_of["front"]
        back = ServiceRpc(names_of["back"], **options)
        cluster = ClusterRpc(**options)

        @rpc
        def double(self, value):
            return self.back.double(value)

        @rpc
        def double_anywhere(self, service, value):
            return self.cluster[service].double(value)

        @rpc
        def fail(self):
            return self.back.fail()

        @rpc
        def miss(self):
            return self.back.nowhere()

        @rpc
        def both(self, value):
            calls = [self.back.double.call_async(value + i) for i in range(5)]
            return [call.result() for call in calls]

    return Front, Back


@pytest.fixture
def front(names_of, amqp_config):
    with run_services(*make_services(names_of), config=amqp_config):
        with ClusterRpcClient(config=amqp_config, timeout=TIMEOUT) as client:
            yield client[names_of["front"]]


def test_service_calls_another(front):
    assert front.double(21) == 42


def test_service_calls_any_other(front, names_of):
    assert front.double_anywhere(names_of["back"], 4) == 8


def test_service_calls_side_by_side(front):
    assert front.both(1) == [2, 4, 6, 8, 10]


def test_error_travels_through_both(front):
    with pytest.raises(RemoteError, match="ValueError from the back") as caught:
        front.fail()
    assert caught.value.exc_type == "RemoteError"


def test_framework_s_error_travels_through_both(front):
    with pytest.raises(MethodNotFound, match="nowhere"):
        front.miss()


def test_unknown_service_is_known_as_such_two_calls_away(front):
    with pytest.raises(RemoteError, match="Unknown service `nobody`"):
        front.double_anywhere("nobody", 4)


def test_context_data_and_call_ids_travel_along(names_of, amqp_config):
    seen = []

    class Back:
        name = names_of["back"]

        @rpc
        def look(self):
            from threadko.context import current_worker  # noqa: PLC0415 (where a worker looks)

            seen.append(current_worker.get())

    class Front:
        name = names_of["front"]
        back = ServiceRpc(names_of["back"])

        @rpc
        def look(self):
            self.back.look()

    data = {"language": "en", "ratio": 1.5, "nothing": None}
    with run_services(Front, Back, config=amqp_config):
        with ClusterRpcClient(config=amqp_config, context_data=data, timeout=TIMEOUT) as client:
            client[names_of["front"]].look()
    (ctx,) = seen
    assert ctx.context_data["language"] == "en"
    assert ctx.context_data["ratio"] == 1.5
    assert "nothing" not in ctx.context_data
    first, second, third = ctx.call_id_stack
    assert first.startswith("standalone_rpc_client.")
    assert second.startswith(f"{names_of['front']}.look.")
    assert third.startswith(f"{names_of['back']}.look.")
    assert ctx.origin_call_id == first


def test_dependencies_of_a_container_share_one_listener(names_of, amqp_config):
    front, _ = make_services(names_of)
    container = ServiceContainer(front, config=amqp_config)
    listeners = [e for e in container.extensions if isinstance(e, ReplyListener)]
    assert len(listeners) == 1
    assert [d.reply_listener for d in container.dependencies] == listeners * 2


def test_unknown_option_of_a_listener_is_an_error():
    with pytest.raises(TypeError, match="'colour', there are: accept, heartbeat, prefetch_count"):
        ReplyListener(colour="red")


@pytest.mark.parametrize("options", [{"heartbeat": 0}, {"prefetch_count": -1}, {"accept": "json"}])
def test_unusable_option_of_a_listener_is_an_error(options):
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        ReplyListener(**options)


class BeatingRpc(ServiceRpc):
    reply_listener = ReplyListener(heartbeat=7, prefetch_count=1)


def agreed_heartbeats(front, config):
    """Start and stop a service on a broker that only agrees; returns the heartbeats, sorted."""
    asked = []
    with FakeBroker(is_mute=lambda _, method: asked.append(method)) as broker:
        container = ServiceContainer(front, config={**config, "AMQP_URI": broker.uri})
        container.start()
        container.stop()
    return sorted(each.heartbeat for each in asked if isinstance(each, spec.Connection.TuneOk))


def test_listeners_with_different_options_do_not_mix(names_of):
    class Front:
        name = names_of["front"]
        one = BeatingRpc(names_of["back"])
        two = BeatingRpc(names_of["back"])
        plain = ServiceRpc(names_of["back"])

    assert agreed_heartbeats(Front, {"HEARTBEAT": 9}) == [7, 9]


def test_option_of_a_listener_counts_at_a_broker_of_its_own_too(names_of):
    with FakeBroker() as own:

        class Front:
            name = names_of["front"]
            there = BeatingRpc(names_of["back"], uri=own.uri + "?heartbeat=5")
            here = BeatingRpc(names_of["back"])

        assert agreed_heartbeats(Front, {"HEARTBEAT": 9}) == [7]
        assert own.accepted == 1


def test_accept_of_the_listener_wins(names_of, amqp_config):
    class ReadingRpc(ServiceRpc):
        reply_listener = ReplyListener(accept=["yaml"])

    _, back = make_services(names_of)

    class Front:
        name = names_of["front"]
        json_back = ReadingRpc(names_of["back"])
        yaml_back = ReadingRpc(names_of["back"], serializer="yaml")

        @rpc
        def ask(self, client, value):
            return getattr(self, client).double(value)

    with run_services(Front, back, config={**amqp_config, "ACCEPT": ["json", "yaml"]}):
        with ClusterRpcClient(config=amqp_config, timeout=TIMEOUT) as client:
            front = client[names_of["front"]]
            assert front.ask("yaml_back", 2) == 4
            with pytest.raises(RemoteError, match="not accepted, only yaml"):
                front.ask("json_back", 2)


@pytest.fixture
def waiting(names_of, amqp_config):
    """A service whose worker waits for a reply that never comes, and what it is told instead."""
    begun, told = threading.Event(), []
    ended = threading.Event()

    class Front:
        name = names_of["front"]
        back = ServiceRpc(names_of["back"], timeout=None)

        @once
        def wait(self):
            call = self.back.never.call_async()
            begun.set()
            try:
                return call.result()
            except BaseException as error:
                told.append(error)
                raise
            finally:
                ended.set()

    return Front, begun, ended, told


def test_worker_is_woken_when_its_container_is_killed(waiting, names_of, amqp_config, broker_uri):
    service_cls, begun, ended, told = waiting
    _, back = make_services(names_of)
    back_up = ServiceContainer(back, config=amqp_config)
    back_up.start()
    back_up.stop()  # its queue takes requests, and nobody answers
    container = ServiceContainer(service_cls, config=amqp_config)
    container.start()
    worker_ctx = container.spawn_worker(container.entrypoints[0], (), {})
    assert begun.wait(TIMEOUT)
    container.kill()
    assert ended.wait(TIMEOUT)
    assert [type(error) for error in told] == [WorkerKilled]
    assert worker_ctx.abandoned


def test_call_is_answered_while_its_container_stops(names_of, amqp_config):
    begun, go_on, results = threading.Event(), threading.Event(), []

    class Back:
        name = names_of["back"]

        @rpc
        def slow(self):
            begun.set()
            assert go_on.wait(TIMEOUT)
            return "slow"

        @rpc
        def quick(self):
            return "quick"

    class Front:
        name = names_of["front"]
        back = ServiceRpc(names_of["back"])

        @once
        def ask(self):
            # The second is sent when the container is already stopping.
            results.extend([self.back.slow(), self.back.quick()])

    with run_services(Back, config=amqp_config):
        container = ServiceContainer(Front, config=amqp_config)
        container.start()
        container.spawn_worker(container.entrypoints[0], (), {})
        assert begun.wait(TIMEOUT)
        stopping = threading.Thread(target=container.stop)
        stopping.start()
        assert container.stopping.wait(TIMEOUT)
        go_on.set()
        stopping.join(TIMEOUT)
        assert results == ["slow", "quick"]


@pytest.mark.parametrize(
    ("options", "config"), [({"timeout": 0.05}, {}), ({}, {"RPC_TIMEOUT": 0.05})]
)
def test_call_times_out_when_nobody_answers(names_of, amqp_config, options, config):
    _, back = make_services(names_of)
    told = []

    class Front:
        name = names_of["front"]
        back = ServiceRpc(names_of["back"], **options)

        @rpc
        def ask(self):
            try:
                self.back.double(1)
            except RpcTimeout as error:
                told.append(str(error))
            return "told"

    back_up = ServiceContainer(back, config=amqp_config)
    back_up.start()
    back_up.stop()
    with run_services(Front, config={**amqp_config, **config}):
        with ClusterRpcClient(config=amqp_config, timeout=TIMEOUT) as client:
            assert client[names_of["front"]].ask() == "told"
    assert "0.05" in told[0]


def test_service_that_calls_itself_in_vain_is_alive_after_its_timeout(
    names_of, amqp_config, broker_uri
):
    executed = []

    class Front:
        name = names_of["front"]
        me = ServiceRpc(names_of["front"], timeout=0.1)

        @rpc
        def outer(self):
            executed.append("outer")
            try:
                self.me.inner()
            except RpcTimeout:
                # The request came to the broker a little later, and expires as much later.
                deadline = Deadline(TIMEOUT)
                while queue_depth(broker_uri, f"rpc-{self.name}") and not deadline.expired:
                    pass
                return "no slot for it"

        @rpc
        def inner(self):
            executed.append("inner")

        @rpc
        def next(self):
            executed.append("next")

    config = {**amqp_config, "max_workers": 1, "PREFETCH_COUNT": 1}
    with run_services(Front, config=config):
        with ClusterRpcClient(config=amqp_config, timeout=TIMEOUT) as client:
            service = client[names_of["front"]]
            assert service.outer() == "no slot for it"
            service.next()
    assert executed == ["outer", "next"]


def test_reply_queue_lives_on_after_the_container(names_of, amqp_config, broker_uri):
    front, _ = make_services(names_of)
    container = ServiceContainer(front, config=amqp_config)
    container.start()
    (listener,) = [e for e in container.extensions if isinstance(e, ReplyListener)]
    queue = f"rpc.reply-{container.service_name}-{listener.link.reply_key}"
    assert has_queue(broker_uri, queue)
    container.stop()
    assert has_queue(broker_uri, queue)


def test_start_fails_when_the_broker_refuses_the_login(names_of, amqp_config, broker_uri):
    front, _ = make_services(names_of)
    bad = broker_uri.replace("guest:guest@", "guest:wrong@")
    container = ServiceContainer(front, config={**amqp_config, "AMQP_URI": bad})
    with pytest.raises(BrokerRefused):
        container.start()


def test_start_fails_when_the_broker_is_not_there_in_time(names_of, amqp_config, broker_uri, proxy):
    front, _ = make_services(names_of)
    proxy.refuse()
    config = {
        **amqp_config,
        "AMQP_URI": proxy.uri_for(broker_uri),
        "BROKER_START_TIMEOUT": 0.1,
    }
    container = ServiceContainer(front, config=config)
    with pytest.raises(BrokerUnavailable):
        container.start()


def test_start_that_waits_for_the_broker_ends_when_it_is_stopped(
    names_of, amqp_config, broker_uri, proxy
):
    front, _ = make_services(names_of)
    proxy.refuse()
    config = {**amqp_config, "AMQP_URI": proxy.uri_for(broker_uri)}
    container = ServiceContainer(front, config=config)
    raised = []

    def start():
        try:
            container.start()
        except ContainerStopped as error:
            raised.append(error)

    starting = threading.Thread(target=start)
    starting.start()
    container.stop()
    starting.join(TIMEOUT)
    assert len(raised) == 1


def test_unknown_service_is_said_at_once(names_of, amqp_config):
    told = []

    class Front:
        name = names_of["front"]
        cluster = ClusterRpc()

        @rpc
        def ask(self):
            try:
                self.cluster["nobody-serves-this"].method()
            except UnknownService as error:
                told.append(error)

    with run_services(Front, config=amqp_config):
        with ClusterRpcClient(config=amqp_config, timeout=TIMEOUT) as client:
            client[names_of["front"]].ask()
    assert len(told) == 1
