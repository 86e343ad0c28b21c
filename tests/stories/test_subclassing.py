"""What users build on top: containers, entrypoints and extensions of their own."""

import threading
from collections import Counter

import pytest

from tests.support.timing import TIMEOUT
from threadko.containers import ServiceContainer
from threadko.exceptions import ConfigurationError, RemoteError
from threadko.extensions import DependencyProvider, Entrypoint, ProviderCollector, SharedExtension
from threadko.rpc import Rpc, rpc
from threadko.runners import ServiceRunner, run_services
from threadko.standalone.rpc import ClusterRpcClient


@pytest.fixture
def client(amqp_config):
    with ClusterRpcClient(config=amqp_config, timeout=TIMEOUT) as client:
        yield client


# Containers


class CountingContainer(ServiceContainer):
    """Counts what happens to it, and gives every worker a tenant."""

    def __init__(self, service_cls, config=None):
        self.counts = Counter()
        super().__init__(service_cls, config)
        self.counts["made"] += 1

    def start(self):
        self.counts["start"] += 1
        super().start()

    def stop(self, timeout=None):
        self.counts["stop"] += 1
        super().stop(timeout)

    def spawn_worker(self, entrypoint, args, kwargs, context_data=None, handle_result=None):
        self.counts["spawned"] += 1
        data = {**(context_data or {}), "tenant": "acme"}
        return super().spawn_worker(entrypoint, args, kwargs, data, handle_result)


class Once(Entrypoint):
    """Fires its method once, when the container opens; keeps the result."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.fired = threading.Event()
        self.result = None

    def open(self):
        self.container.spawn_managed_thread(self.fire)

    def fire(self):
        self.container.spawn_worker(self, (), {}, handle_result=self.handle_result)

    def handle_result(self, worker_ctx, result=None, exc_info=None):
        self.result = result, worker_ctx.data["tenant"]
        self.fired.set()
        return result, exc_info


def make_service(service_name, **members):
    class Service:
        name = service_name

        @Once.decorator
        def once(self):
            return "fired"

    for key, value in members.items():
        setattr(Service, key, value)
    return Service


def test_container_of_ones_own_starts_spawns_and_stops():
    container = CountingContainer(make_service("counting"), config={})
    container.start()
    (entrypoint,) = container.entrypoints
    assert entrypoint.fired.wait(TIMEOUT)
    container.stop()
    assert entrypoint.result == ("fired", "acme")
    assert container.counts == {"made": 1, "start": 1, "spawned": 1, "stop": 1}


def test_runner_runs_the_container_that_configuration_names():
    config = {"SERVICE_CONTAINER_CLS": f"{__name__}.CountingContainer"}
    runner = ServiceRunner(config)
    runner.add_service(make_service("one"))
    runner.add_service(make_service("two"))
    runner.start()
    containers = runner.containers
    for container in containers:
        assert container.entrypoints[0].fired.wait(TIMEOUT)
    runner.stop()
    assert [type(container) for container in containers] == [CountingContainer] * 2
    assert [container.counts["stop"] for container in containers] == [1, 1]
    assert [container.counts["spawned"] for container in containers] == [1, 1]


def test_container_that_cannot_be_imported_is_named():
    config = {"SERVICE_CONTAINER_CLS": "nowhere.Container"}
    with pytest.raises((ConfigurationError, ImportError), match="nowhere"):
        ServiceRunner(config)


# Entrypoints


class EnvelopeRpc(Rpc):
    """Answers with an envelope, for errors as well."""

    def handle_result(self, message, worker_ctx, result=None, exc_info=None):
        if exc_info is None:
            result = {"ok": True, "value": result}
        else:
            result, exc_info = {"ok": False, "error": type(exc_info[1]).__name__}, None
        return super().handle_result(message, worker_ctx, result, exc_info)


def test_rpc_of_ones_own_puts_outcomes_into_envelopes(name, amqp_config, client):
    seen = []

    class Watching(DependencyProvider):
        def worker_result(self, worker_ctx, result=None, exc_info=None):
            seen.append((result, exc_info))

    service_name = name

    class Service:
        name = service_name
        watching = Watching()

        @EnvelopeRpc.decorator
        def divide(self, a, b):
            return a // b

    with run_services(Service, config=amqp_config):
        assert client[name].divide(6, 3) == {"ok": True, "value": 2}
        assert client[name].divide(6, 0) == {"ok": False, "error": "ZeroDivisionError"}
    # What the entrypoint returns is what dependencies see.
    assert seen == [
        ({"ok": True, "value": 2}, None),
        ({"ok": False, "error": "ZeroDivisionError"}, None),
    ]


def test_failed_commit_comes_in_an_envelope_too(name, amqp_config, client):
    class Session(DependencyProvider):
        def worker_result(self, worker_ctx, result=None, exc_info=None):
            raise OSError("the database has gone")

    service_name = name

    class Service:
        name = service_name
        session = Session()

        @EnvelopeRpc.decorator
        def save(self):
            return "saved"

    with run_services(Service, config=amqp_config):
        assert client[name].save() == {"ok": False, "error": "OSError"}


def test_rpc_of_ones_own_sees_the_message_and_when_the_answer_leaves(name, amqp_config, client):
    seen = []

    class AuditedRpc(Rpc):
        def handle_message(self, body, message):
            seen.append(("message", message.routing_key, body["args"]))
            super().handle_message(body, message)

        def settle(self, worker_ctx, result=None, exc_info=None):
            seen.append(("settle", result, exc_info and exc_info[0]))
            super().settle(worker_ctx, result, exc_info)

    service_name = name

    class Service:
        name = service_name

        @AuditedRpc.decorator(expected_exceptions=KeyError)
        def get(self, key):
            return {"a": 1}[key]

        @rpc
        def plain(self):
            return "plain"

    with run_services(Service, config=amqp_config):
        assert client[name].get("a") == 1
        with pytest.raises(RemoteError):
            client[name].get("b")
        assert client[name].plain() == "plain"
    assert seen == [
        ("message", f"{name}.get", ["a"]),
        ("settle", 1, None),
        ("message", f"{name}.get", ["b"]),
        ("settle", None, KeyError),
    ]


def test_rpc_of_ones_own_that_refuses_a_message_answers_with_its_error(name, amqp_config, client):
    class GuardedRpc(Rpc):
        def handle_message(self, body, message):
            if not body["kwargs"].pop("token", None):
                raise PermissionError("no token")
            super().handle_message(body, message)

    service_name = name

    class Service:
        name = service_name

        @GuardedRpc.decorator
        def secret(self):
            return "secret"

    with run_services(Service, config=amqp_config):
        with pytest.raises(RemoteError, match="no token"):
            client[name].secret()
        assert client[name].secret(token=1) == "secret"


# Extensions


class Poller(ProviderCollector, SharedExtension):
    """Polls one source for all the methods that ask for it; written as for nameko 2."""

    def __init__(self, source):
        super().__init__()
        self.source = source
        self.events = []

    @property
    def sharing_key(self):
        return type(self), self.source

    def start(self):
        self.events.append(f"start for {len(self._providers)}")

    def fire(self, payload):
        for provider in self._providers:
            provider.handle(payload)

    def stop(self):
        self.wait_for_providers()
        self.events.append("stopped")
        super().stop()


class Polled(Entrypoint):
    def __init__(self, source, **kwargs):
        self.poller = Poller(source)
        super().__init__(**kwargs)

    def setup(self):
        self.poller.register_provider(self)

    def stop(self):
        self.poller.unregister_provider(self)
        self.poller.events.append(f"{self.method_name} left")

    def handle(self, payload):
        self.container.spawn_worker(self, (payload,), {})


def test_extensions_written_for_nameko_2_share_register_and_stop_in_order():
    handled = []

    class Service:
        name = "polled"

        @Polled.decorator("first")
        def one(self, payload):
            handled.append(("one", payload))

        @Polled.decorator("first")
        def two(self, payload):
            handled.append(("two", payload))

        @Polled.decorator("second")
        def three(self, payload):
            handled.append(("three", payload))

    container = ServiceContainer(Service, config={})
    container.start()
    pollers = {poller.source: poller for poller in container.subextensions}
    assert sorted(pollers) == ["first", "second"]
    pollers["first"].fire(1)
    pollers["second"].fire(2)
    container.stop()
    assert sorted(handled) == [("one", 1), ("three", 2), ("two", 1)]
    events = pollers["first"].events
    assert events[0] == "start for 2"
    assert sorted(events[1:3]) == ["one left", "two left"]
    assert events[3:] == ["stopped"]
