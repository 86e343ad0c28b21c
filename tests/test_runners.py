"""Running several services as one."""

import threading
from collections.abc import Iterator
from typing import Any
from unittest.mock import ANY, patch

import pytest

from tests.containers.dummies import Gate, HookedDependency, Journal, dummy, in_thread, spawn
from tests.support.timing import TIMEOUT
from threadko.configuration import config as global_config
from threadko.containers import ServiceContainer
from threadko.context import current_worker
from threadko.exceptions import (
    ConfigurationError,
    ContainerBeingKilled,
    ContainerStopped,
    LifecycleError,
)
from threadko.extensions import DependencyProvider
from threadko.runners import ServiceRunner, run_services
from threadko.testing.services import entrypoint_hook

CONFIG = {"max_workers": 1}


class Calls(DependencyProvider):
    """Stands for a ServiceRpc: says whom its service calls."""

    def __init__(self, target_service: Any) -> None:
        self.target_service = target_service


class Stage:
    """Makes runners of services whose hooks a test can watch, hold and make fail."""

    def __init__(self) -> None:
        self.journal = Journal()
        self.doing: dict[str, Any] = {}
        self.failing: dict[str, BaseException] = {}
        self.runners: list[ServiceRunner] = []

    def call(self, line: str, given: Any) -> None:
        self.journal.write(line)
        if line in self.doing:
            self.doing[line](given)
        if line in self.failing:
            raise self.failing[line]

    def service(self, service_name: str, *targets: Any) -> type:
        class Service:
            name = service_name
            hooked = HookedDependency(self.call, service_name)

            @dummy
            def method(self, do: Any) -> Any:
                return do()

        for number, target in enumerate(targets):
            setattr(Service, f"calls_{number}", Calls(target))
        return Service

    def runner(self, *services: type) -> ServiceRunner:
        runner = ServiceRunner(config=CONFIG)
        for service in services:
            runner.add_service(service)
        self.runners.append(runner)
        return runner

    def stopped(self) -> list[str]:
        """The services whose dependencies have stopped, in order."""
        return [line[:-5] for line in self.journal.lines if line.endswith(".stop")]


@pytest.fixture
def stage() -> Iterator[Stage]:
    stage = Stage()
    yield stage
    stage.doing.clear()
    stage.failing.clear()
    for runner in stage.runners:
        runner.kill()


def test_runner_has_a_container_for_each_service(stage: Stage) -> None:
    first, second = stage.service("first"), stage.service("second")
    runner = stage.runner(first, second)
    assert runner.container_cls is ServiceContainer
    assert runner.service_names == ["first", "second"]
    assert [container.service_cls for container in runner.containers] == [first, second]
    assert runner.service_map["second"] is runner.containers[1]
    assert runner.containers[0].config is CONFIG


def test_second_service_of_the_same_name_is_refused(stage: Stage) -> None:
    runner = stage.runner(stage.service("same"))
    with pytest.raises(ConfigurationError, match="'same'"):
        runner.add_service(stage.service("same"))
    assert len(runner.containers) == 1


def test_service_is_refused_when_the_runner_was_started(stage: Stage) -> None:
    runner = stage.runner()
    runner.start()
    with pytest.raises(LifecycleError, match="add services before"):
        runner.add_service(stage.service("late"))
    runner.wait()


def test_all_are_ready_before_one_opens(stage: Stage) -> None:
    stage.runner(stage.service("a"), stage.service("b")).start()
    lines = stage.journal.lines
    assert {"a.ready", "b.ready"} <= set(lines[:6])
    assert sorted(lines[6:]) == ["a.open", "b.open"]


def test_services_start_side_by_side(stage: Stage) -> None:
    barrier = threading.Barrier(2)
    for line in ("a.start", "b.start"):
        stage.doing[line] = lambda _: barrier.wait(TIMEOUT)
    stage.runner(stage.service("a"), stage.service("b")).start()
    assert barrier.n_waiting == 0
    assert "b.open" in stage.journal.lines


@pytest.mark.parametrize("hook", ["setup", "start", "ready", "open"])
def test_failing_start_leaves_no_service_alive_and_raises_the_error(
    stage: Stage, hook: str
) -> None:
    runner = stage.runner(stage.service("a"), stage.service("b"), stage.service("c"))
    stage.failing[f"b.{hook}"] = raised = ValueError("on purpose")
    with pytest.raises(ValueError, match="on purpose") as caught:
        runner.start()
    assert caught.value is raised
    assert [container.started for container in runner.containers] == [False] * 3
    assert in_thread(runner.wait).finish() is raised


def test_failing_start_does_not_wait_for_a_service_that_waits(stage: Stage) -> None:
    waiting = threading.Event()
    interrupted: list[bool] = []

    def wait_for_broker(extension: Any) -> None:
        waiting.set()
        interrupted.append(extension.container.stopping.wait(TIMEOUT))

    def fail(extension: Any) -> None:
        assert waiting.wait(TIMEOUT)
        raise ValueError("on purpose")

    stage.doing.update({"a.ready": wait_for_broker, "b.ready": fail})
    with pytest.raises(ValueError, match="on purpose"):
        stage.runner(stage.service("a"), stage.service("b")).start()
    assert interrupted == [True]


def test_stop_during_start_makes_it_raise_and_stops_all(stage: Stage) -> None:
    runner = stage.runner(stage.service("a"), stage.service("b"))
    waiting = threading.Event()

    def wait_for_broker(extension: Any) -> None:
        waiting.set()
        assert extension.container.stopping.wait(TIMEOUT)

    stage.doing["b.ready"] = wait_for_broker
    starting = in_thread(runner.start)
    assert waiting.wait(TIMEOUT)
    assert in_thread(runner.stop).finish() is None
    assert type(starting.finish()) is ContainerStopped
    assert in_thread(runner.wait).finish() is None


class Knowing(ServiceContainer):
    """A container as users of nameko write them: it overrides all, with nameko's signatures."""

    seen: list[str]

    def __init__(self, service_cls: type) -> None:
        super().__init__(service_cls)

    def start(self) -> None:
        self.seen.append("start")
        super().start()
        self.seen.append("started")

    def stop(self) -> None:  # type: ignore[override]
        self.seen.append("stop")
        super().stop()

    def kill(self, exc_info: Any = None) -> None:
        self.seen.append("kill")
        super().kill(exc_info=exc_info)

    def spawn_worker(
        self,
        entrypoint: Any,
        args: Any,
        kwargs: Any,
        context_data: Any = None,
        handle_result: Any = None,
    ) -> Any:
        self.seen.append(f"spawn {entrypoint.method_name}")
        context_data = {**(context_data or {}), "knows": self.service_name}
        return super().spawn_worker(entrypoint, args, kwargs, context_data, handle_result)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What `Knowing` has seen; it is the class of containers meanwhile."""
    made: list[str] = []
    monkeypatch.setattr(Knowing, "seen", made, raising=False)
    with global_config.patch({"SERVICE_CONTAINER_CLS": f"{__name__}.Knowing"}):
        yield made


def test_subclass_with_the_signatures_of_nameko_sees_all(stage: Stage, seen: list[str]) -> None:
    runner = ServiceRunner()
    runner.add_service(stage.service("known"))
    [container] = runner.containers
    runner.start()
    with entrypoint_hook(container, "method", {"was": 1}) as method:
        assert method(lambda: dict(current_worker.get().context_data)) == {
            "was": 1,
            "knows": "known",
            "call_id_stack": [ANY],
        }
    runner.stop()
    assert seen == ["start", "started", "spawn method", "stop"]


def test_subclass_is_killed_through_its_own_kill(stage: Stage, seen: list[str]) -> None:
    runner = ServiceRunner()
    runner.add_service(stage.service("known"))
    runner.start()
    runner.kill()
    assert seen == ["start", "started", "kill"]
    error = ValueError("why")
    container = Knowing(stage.service("other"))
    container.start()
    container.kill(exc_info=(ValueError, error, None))
    with pytest.raises(ValueError, match="why") as caught:
        container.wait()
    assert caught.value is error


class Dropping(ServiceContainer):
    """A container that runs no worker that comes from an entrypoint."""

    def spawn_worker(self, *worker: Any, **options: Any) -> Any:
        return None


def test_subclass_that_drops_a_worker_is_told_what_to_do(stage: Stage) -> None:
    container = Dropping(stage.service("dropping"))
    container.start()
    with (
        entrypoint_hook(container, "method", timeout=TIMEOUT) as method,
        pytest.raises(RuntimeError, match="spawn_worker has run no worker"),
    ):
        method(lambda: None)
    container.stop()


class Passing(ServiceContainer):
    """A container whose workers pass by a method of its own."""

    def spawn_worker(self, *worker: Any, **options: Any) -> Any:
        return super().spawn_worker(*worker, **options)


def test_worker_is_seen_by_what_is_put_in_place_of_spawn_worker(stage: Stage) -> None:
    container = Passing(stage.service("passing"))
    container.start()
    with (
        patch.object(container, "spawn_worker", wraps=container.spawn_worker) as spawning,
        entrypoint_hook(container, "method", timeout=TIMEOUT) as method,
    ):
        method(lambda: None)
    assert spawning.call_count == 1
    container.stop()


def test_start_of_a_subclass_waits_for_the_others(stage: Stage, seen: list[str]) -> None:
    runner = ServiceRunner()
    for name in ("a", "b"):
        runner.add_service(stage.service(name))
    gate = Gate()
    stage.doing["b.ready"] = lambda extension: gate.hold()
    starting = in_thread(runner.start)
    gate.wait_reached()
    assert "started" not in seen
    assert not {"a.open", "b.open"} & set(stage.journal.lines)
    gate.released.set()
    assert starting.finish() is None
    assert seen.count("started") == 2
    runner.stop()


def test_deadline_of_the_runner_is_that_of_a_subclass_that_takes_none(
    stage: Stage, seen: list[str]
) -> None:
    with global_config.patch({"SHUTDOWN_TIMEOUT": 0.1}):
        runner = ServiceRunner()
        runner.add_service(stage.service("known"))
        [container] = runner.containers
        runner.start()
        release = threading.Event()
        spawn(container, release.wait)
        runner.stop()
    assert container.being_killed
    assert "stop" in seen
    release.set()


class Announcing(ServiceContainer):
    """A container that says when the first half of its start is over, one way or the other."""

    over: dict[str, threading.Event]

    def prepare(self) -> None:
        try:
            super().prepare()
        finally:
            self.over[self.service_name].set()


def test_stop_during_start_is_graceful_for_those_that_are_prepared(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = {"a": threading.Event(), "b": threading.Event()}
    monkeypatch.setattr(Announcing, "over", over, raising=False)
    path = f"{__name__}.Announcing"
    runner = ServiceRunner(config={**CONFIG, "SERVICE_CONTAINER_CLS": path})
    stage.runners.append(runner)
    runner.add_service(stage.service("a"))
    runner.add_service(stage.service("b", "a"))
    b_waits = threading.Event()
    b_threads: list[threading.Thread] = []

    def wait_for_broker(extension: Any) -> None:
        b_threads.append(threading.current_thread())
        b_waits.set()
        assert extension.container.stopping.wait(TIMEOUT)

    def wait_until_b_has_left(extension: Any) -> None:
        b_threads[0].join(TIMEOUT)

    stage.doing.update({"b.ready": wait_for_broker, "a.cancel": wait_until_b_has_left})
    starting = in_thread(runner.start)
    assert over["a"].wait(TIMEOUT)
    assert b_waits.wait(TIMEOUT)
    runner.stop()
    assert type(starting.finish()) is ContainerStopped
    assert stage.stopped() == ["a"]
    assert "a.kill" not in stage.journal.lines


def test_start_is_refused_when_it_was_stopped(stage: Stage) -> None:
    runner = stage.runner(stage.service("a"))
    runner.stop()
    with pytest.raises(ContainerStopped):
        runner.start()


def test_kill_during_start_makes_it_raise(stage: Stage) -> None:
    runner = stage.runner(stage.service("a"), stage.service("b"))
    waiting = threading.Event()

    def wait_for_broker(extension: Any) -> None:
        waiting.set()
        assert extension.container.stopping.wait(TIMEOUT)

    stage.doing["b.ready"] = wait_for_broker
    starting = in_thread(runner.start)
    assert waiting.wait(TIMEOUT)
    runner.kill()
    assert isinstance(starting.finish(), ContainerBeingKilled)


@pytest.mark.parametrize(
    ("targets", "order"),
    [
        ({"a": ["b"], "b": ["c"], "c": []}, [{"a"}, {"b"}, {"c"}]),
        ({"c": [], "b": ["c"], "a": ["b"]}, [{"a"}, {"b"}, {"c"}]),
        ({"a": ["b", "c"], "b": ["d"], "c": ["d"], "d": []}, [{"a"}, {"b", "c"}, {"d"}]),
        ({"a": ["b"], "b": ["a", "c"], "c": []}, [{"a", "b"}, {"c"}]),
        ({"a": ["a"], "b": ["a"]}, [{"b"}, {"a"}]),
        ({"a": ["elsewhere"], "b": [None], "c": [7]}, [{"a", "b", "c"}]),
        ({"x": ["a"], "a": ["b"], "b": ["c"], "c": ["a", "y"], "y": []}, [{"x"}, {*"abc"}, {"y"}]),
    ],
)
def test_callers_stop_before_those_whom_they_call(
    stage: Stage, targets: dict[str, list[Any]], order: list[set[str]]
) -> None:
    runner = stage.runner(*(stage.service(name, *called) for name, called in targets.items()))
    runner.start()
    runner.stop()
    stopped = iter(stage.stopped())
    assert [{next(stopped) for _ in group} for group in order] == order
    assert next(stopped, None) is None


def test_services_that_call_one_another_stop_side_by_side(stage: Stage) -> None:
    runner = stage.runner(stage.service("a", "b"), stage.service("b", "a"))
    barrier = threading.Barrier(2)
    for line in ("a.stop", "b.stop"):
        stage.doing[line] = lambda _: barrier.wait(TIMEOUT)
    runner.start()
    runner.stop()
    assert sorted(stage.stopped()) == ["a", "b"]


def test_all_stop_and_the_first_error_is_raised_when_one_fails(stage: Stage) -> None:
    runner = stage.runner(stage.service("a", "b"), stage.service("b"))
    stage.failing["a.stop"] = raised = ValueError("first")
    stage.failing["b.stop"] = ValueError("second")
    runner.start()
    with pytest.raises(ValueError, match="first") as caught:
        runner.stop()
    assert caught.value is raised
    assert stage.stopped() == ["a", "b"]


def test_stop_by_a_worker_hands_over(stage: Stage) -> None:
    runner = stage.runner(stage.service("a"), stage.service("b", "a"))
    runner.start()
    spawn(runner.service_map["a"], runner.stop)
    assert in_thread(runner.wait).finish() is None
    assert stage.stopped() == ["b", "a"]


def test_wait_returns_when_all_have_stopped(stage: Stage) -> None:
    runner = stage.runner(stage.service("a"), stage.service("b"))
    runner.start()
    waiting = [in_thread(runner.wait) for _ in range(3)]
    runner.containers[0].stop()
    assert not waiting[0].is_over
    runner.stop()
    assert [call.finish() for call in waiting] == [None] * 3


def test_wait_returns_when_there_is_no_service(stage: Stage) -> None:
    runner = stage.runner()
    runner.start()
    runner.wait()


def test_wait_stops_the_others_and_raises_when_one_fails(stage: Stage) -> None:
    runner = stage.runner(stage.service("a"), stage.service("b"))
    runner.start()
    gate = Gate()
    spawn(runner.service_map["b"], gate.hold)
    gate.wait_reached()
    waiting = in_thread(runner.wait)
    runner.service_map["a"].kill(error := ValueError("on purpose"))
    assert runner.service_map["b"].stopping.wait(TIMEOUT)
    assert not waiting.is_over
    gate.released.set()
    assert waiting.finish() is error
    assert stage.stopped() == ["b"]


def test_kill_ends_all_and_wait_raises_what_it_was_given(stage: Stage) -> None:
    runner = stage.runner(stage.service("a"), stage.service("b"))
    runner.start()
    gate = Gate()
    spawn(runner.service_map["b"], gate.hold)
    gate.wait_reached()
    runner.kill(error := ValueError("on purpose"))
    assert in_thread(runner.wait).finish() is error
    assert [container.being_killed for container in runner.containers] == [True, True]
    gate.released.set()


def test_services_run_inside_the_with_and_stop_after_it(stage: Stage) -> None:
    with run_services(stage.service("a"), stage.service("b"), config=CONFIG) as runner:
        assert runner.service_names == ["a", "b"]
        assert [container.started for container in runner.containers] == [True, True]
    assert sorted(stage.stopped()) == ["a", "b"]


@pytest.mark.parametrize(("kill", "last"), [(False, "a.stop"), (True, "a.kill")])
def test_services_end_when_the_body_raises(stage: Stage, kill: bool, last: str) -> None:
    with pytest.raises(ValueError, match="body"):
        with run_services(stage.service("a"), config=CONFIG, kill_on_exit=kill):
            raise ValueError("body")
    assert stage.journal.lines[-1] == last
