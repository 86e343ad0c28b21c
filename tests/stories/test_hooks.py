"""Every hook of every kind of extension raises every kind of exception.

The contract: what fails before the outcome leaves becomes the outcome, what fails after it is
logged; a message is settled once; the slot is free again, the next call is served, and the
container starts, stops and dies as it should.
"""

import threading

import pytest

from tests.containers.conftest import Stage
from tests.containers.dummies import HookedDependency, HookedEntrypoint, in_thread
from tests.support.amqp import queue_depth
from tests.support.timing import TIMEOUT
from threadko.containers import ServiceContainer
from threadko.exceptions import RemoteError, WorkerKilled
from threadko.extensions import DependencyProvider, Entrypoint, ProviderCollector, SharedExtension
from threadko.rpc import Rpc, rpc
from threadko.runners import run_services
from threadko.standalone.rpc import ClusterRpcClient


class Expected(LookupError):  # noqa: N818 - its name says what it is
    """Declared as expected by the entrypoints below."""


class Mute(Exception):  # noqa: N818 (no fault by itself)
    """Has no text, in any form."""

    def __str__(self):
        raise ValueError("no text")

    __repr__ = __str__


class Leaving(Exception):  # noqa: N818 (no fault by itself)
    """Whoever wants its text is to leave."""

    def __str__(self):
        raise SystemExit("no text")

    __repr__ = __str__


class Attached(Exception):  # noqa: N818 (no fault by itself)
    """Cannot be pickled, copied or encoded."""

    def __init__(self):
        super().__init__(threading.Lock(), object(), lambda: None, self)
        self.lock = threading.Lock()


ERRORS = {
    "plain": lambda: ValueError("on purpose"),
    "expected": lambda: Expected("on purpose"),
    "SystemExit": lambda: SystemExit("on purpose"),
    "KeyboardInterrupt": KeyboardInterrupt,
    "GeneratorExit": GeneratorExit,
    "StopIteration": StopIteration,
    "mute": Mute,
    "leaving": Leaving,
    "attached": Attached,
    "huge": lambda: ValueError("x" * 3_000_000),
    "WorkerKilled": WorkerKilled,
}

each_error = pytest.mark.parametrize("kind", ERRORS)


# Starting, stopping and killing

KINDS = ("dependency", "shared", "entrypoint", "collector")


class HookedCollector(ProviderCollector, SharedExtension):
    """A collector that calls a test's function in each of its hooks."""

    def __init__(self, call):
        super().__init__()
        self.call = call

    def stop(self):
        self.call("collector.stop", self)
        super().stop()

    def kill(self):
        self.call("collector.kill", self)
        super().kill()


for _hook in ("setup", "start", "ready", "open", "cancel"):
    setattr(HookedCollector, _hook, lambda self, hook=_hook: self.call(f"collector.{hook}", self))


@pytest.fixture
def stage():
    stage = Stage()
    yield stage
    stage.doing.clear()
    stage.failing.clear()
    for container in stage.containers:
        container.kill()


@pytest.fixture
def container(stage):
    """One extension of each kind; the dependency registers with the collector."""
    call = stage.call

    class Registered(HookedDependency):
        collector = HookedCollector(call)

        def setup(self):
            self.collector.register_provider(self)
            super().setup()

        def stop(self):
            self.collector.unregister_provider(self)
            super().stop()

    class Shared(SharedExtension):
        pass

    for hook in ("setup", "start", "ready", "open", "cancel", "stop", "kill"):
        setattr(Shared, hook, lambda self, hook=hook: call(f"shared.{hook}", self))

    class Service:
        name = "service"
        dependency = Registered(call)

        @HookedEntrypoint.decorator(call)
        def method(self):
            pass

    Service.dependency.shared = Shared()
    HookedEntrypoint.shared = Service.dependency.shared
    try:
        made = ServiceContainer(Service, config={"max_workers": 1})
    finally:
        del HookedEntrypoint.shared
    stage.containers.append(made)
    assert len(made.extensions) == len(KINDS)
    return made


@each_error
@pytest.mark.parametrize("extension", KINDS)
@pytest.mark.parametrize("hook", ["setup", "start", "ready", "open"])
def test_start_raises_what_a_hook_raises_and_nothing_stays_alive(
    stage, container, extension, hook, kind
):
    stage.failing[f"{extension}.{hook}"] = error = ERRORS[kind]()
    raised = in_thread(container.start).finish()
    # A generator cannot let a StopIteration pass; it comes as the cause of what is raised.
    assert error in (raised, raised.__cause__)
    assert in_thread(container.wait).finish() is error
    killed = [line for line in stage.journal.lines if line.endswith(".kill")]
    begun = [line for line in stage.journal.lines if line.endswith(".setup")]
    assert len(killed) == len(set(killed)) == len(begun)


@each_error
@pytest.mark.parametrize("extension", KINDS)
@pytest.mark.parametrize("hook", ["cancel", "stop"])
def test_stop_raises_what_a_hook_raises_when_all_else_is_done(
    stage, container, extension, hook, kind
):
    container.start()
    stage.journal.lines.clear()
    stage.failing[f"{extension}.{hook}"] = error = ERRORS[kind]()
    raised = in_thread(container.stop).finish()
    assert not container.being_killed
    assert raised is error
    assert in_thread(container.wait).finish() is None
    everything = [f"{name}.{step}" for name in KINDS for step in ("cancel", "stop")]
    assert sorted(stage.journal.lines) == sorted(everything)


@each_error
@pytest.mark.parametrize("extension", KINDS)
def test_kill_kills_all_whatever_a_hook_raises(stage, container, extension, kind):
    container.start()
    stage.journal.lines.clear()
    stage.failing[f"{extension}.kill"] = ERRORS[kind]()
    container.kill(reason := ValueError("reason"))
    assert in_thread(container.wait).finish() is reason
    assert sorted(stage.journal.lines) == sorted(f"{name}.kill" for name in KINDS)


# Workers

WORKER_HOOKS = (
    "service",
    "dependency.get_dependency",
    "dependency.worker_setup",
    "method",
    "handle_result",
    "dependency.worker_result",
)
LATE_HOOKS = ("settle", "dependency.worker_teardown")


class Fault:
    """Raises an error at one point, as long as it is armed."""

    def __init__(self):
        self.point = ""
        self.error = None
        self.lines = []

    def call(self, line, given=None):
        self.lines.append(line)
        if line == self.point:
            raise self.error

    def wrap(self, line, original):
        def wrapped(*args, **kwargs):
            self.call(line)
            return original(*args, **kwargs)

        return wrapped


@pytest.fixture
def fault():
    return Fault()


class Queue(Entrypoint):
    """An entrypoint with a source of its own: it counts what was settled."""

    def __init__(self, fault, **kwargs):
        super().__init__(**kwargs)
        self.fault = fault
        self.settled = []

    def setup(self):
        self.line = self.container.open_line("queue")

    def cancel(self):
        self.line.close()

    def fire(self):
        """Run a worker and return when it has ended."""
        ended = threading.Event()

        def work():
            try:
                self.container.run_worker(self, (), {}, handle_result=self.handle_result)
            finally:
                ended.set()

        self.line.put(work)
        assert ended.wait(TIMEOUT)

    def handle_result(self, worker_ctx, result=None, exc_info=None):
        self.fault.call("handle_result")
        return result, exc_info

    def settle(self, worker_ctx, result=None, exc_info=None):
        self.settled.append((result, exc_info and exc_info[1]))
        self.fault.call("settle")


@each_error
@pytest.mark.parametrize("point", [*WORKER_HOOKS, *LATE_HOOKS])
def test_worker_is_settled_once_and_the_next_is_served(fault, point, kind, caplog):
    class Service:
        name = "service"
        dependency = HookedDependency(fault.call)

        def __init__(self):
            fault.call("service")

        @Queue.decorator(fault, expected_exceptions=Expected)
        def method(self):
            fault.call("method")
            return "result"

    container = ServiceContainer(Service, config={"max_workers": 1})
    container.start()
    (entrypoint,) = container.entrypoints
    fault.point, fault.error = point, ERRORS[kind]()
    entrypoint.fire()
    if point in LATE_HOOKS:
        assert entrypoint.settled == [("result", None)]
    elif kind == "WorkerKilled":
        assert entrypoint.settled == []  # it has no outcome, and its source gives it again
    else:
        assert entrypoint.settled == [(None, fault.error)]
    assert len(caplog.records) >= 1
    set_up = "dependency.worker_setup" in fault.lines and point != "dependency.worker_setup"
    if kind != "WorkerKilled":
        assert fault.lines.count("dependency.worker_teardown") == set_up

    fault.point = ""
    entrypoint.settled.clear()
    entrypoint.fire()
    assert entrypoint.settled == [("result", None)]
    container.stop()
    assert not container.being_killed


@pytest.fixture
def remote(fault, name, amqp_config):
    """A client of a service that runs with these hooks, one worker at a time."""
    service_name = name

    class Hooked(Rpc):
        def handle_result(self, message, worker_ctx, result=None, exc_info=None):
            fault.call("handle_result")
            return super().handle_result(message, worker_ctx, result, exc_info)

        def settle(self, worker_ctx, result=None, exc_info=None):
            fault.call("settle")
            super().settle(worker_ctx, result, exc_info)

    class Service:
        name = service_name
        dependency = HookedDependency(fault.call)

        def __init__(self):
            fault.call("service")

        @Hooked.decorator(expected_exceptions=Expected)
        def method(self):
            fault.call("method")
            return "result"

    config = {**amqp_config, "max_workers": 1, "PREFETCH_COUNT": 1}
    with run_services(Service, config=config):
        with ClusterRpcClient(config=amqp_config, timeout=TIMEOUT) as client:
            yield client[service_name]


@pytest.mark.parametrize("point", [*WORKER_HOOKS, *LATE_HOOKS])
def test_caller_gets_one_answer_and_the_next_is_served(fault, remote, point, name, broker_uri):
    for kind, make in ERRORS.items():
        fault.point, fault.error = point, make()
        call = remote.method.call_async()
        killed = kind == "WorkerKilled" and point != "dependency.worker_teardown"
        if point in LATE_HOOKS and not killed:
            assert call.result() == "result", kind
        else:
            with pytest.raises(RemoteError):
                call.result()
        fault.point = ""
        assert remote.method() == "result", kind
    assert queue_depth(broker_uri, f"rpc-{name}") == 0


def test_failed_commit_is_not_told_as_a_success(name, amqp_config, broker_uri):
    service_name = name

    class Session(DependencyProvider):
        def worker_result(self, worker_ctx, result=None, exc_info=None):
            raise OSError("the database has gone")

    class Service:
        name = service_name
        session = Session()

        @rpc
        def save(self):
            return "saved"

    with run_services(Service, config=amqp_config):
        with ClusterRpcClient(config=amqp_config, timeout=TIMEOUT) as client:
            with pytest.raises(RemoteError, match="the database has gone"):
                client[service_name].save()
    assert queue_depth(broker_uri, f"rpc-{name}") == 0


def test_subclass_whose_handle_result_forgets_the_reply_still_answers(name, amqp_config):
    class Forgetful(Rpc):
        def handle_result(self, message, worker_ctx, result=None, exc_info=None):
            return result, exc_info

    service_name = name

    class Service:
        name = service_name

        @Forgetful.decorator
        def method(self):
            return "result"

        @Forgetful.decorator
        def fail(self):
            raise ValueError("on purpose")

    with run_services(Service, config=amqp_config):
        with ClusterRpcClient(config=amqp_config, timeout=TIMEOUT) as client:
            assert client[service_name].method() == "result"
            with pytest.raises(RemoteError, match="on purpose"):
                client[service_name].fail()


def test_success_is_not_told_when_the_error_that_it_turned_into_cannot_be(name, amqp_config):
    class Picky(Rpc):
        def handle_result(self, message, worker_ctx, result=None, exc_info=None):
            if exc_info is not None:
                raise TypeError("knows no errors")
            return super().handle_result(message, worker_ctx, result, exc_info)

    class Session(DependencyProvider):
        def worker_result(self, worker_ctx, result=None, exc_info=None):
            raise OSError("the database has gone")

    service_name = name

    class Service:
        name = service_name
        session = Session()

        @Picky.decorator
        def save(self):
            return "saved"

    with run_services(Service, config=amqp_config):
        with ClusterRpcClient(config=amqp_config, timeout=TIMEOUT) as client:
            with pytest.raises(RemoteError, match="the database has gone"):
                client[service_name].save()
