"""The container: starting, stopping, killing."""

import subprocess
import sys
import threading
from typing import Any

import pytest

from tests.containers.conftest import Stage
from tests.containers.dummies import Gate, dummy, in_thread, spawn
from tests.support.timing import TIMEOUT
from threadko import config as global_config
from threadko.containers import (
    Observer,
    ServiceContainer,
    get_container_cls,
    new_call_id,
)
from threadko.containers.exits import kill_at_exit, list_running
from threadko.containers.lifecycle import Step
from threadko.exceptions import (
    ConfigurationError,
    ContainerBeingKilled,
    ContainerStopped,
    LifecycleError,
    WorkerKilled,
)
from threadko.extensions import DependencyProvider, ProviderCollector, SharedExtension

ERRORS = [ValueError, SystemExit, KeyboardInterrupt]

ORDER = ["server", "owner", "entrypoint"]


def hooks(*names: str) -> list[str]:
    return [f"{extension}.{name}" for name in names for extension in ORDER]


def end_of(container: ServiceContainer) -> BaseException | None:
    """Return what `wait()` raises."""
    return in_thread(container.wait).finish()


def threads_of_service() -> list[str]:
    """Those that are left; one that is about to end may be a moment behind."""
    for thread in threading.enumerate():
        if "-service-" in thread.name:
            thread.join(TIMEOUT)
    return [item.name for item in threading.enumerate() if "-service-" in item.name]


# What it has


def test_container_has_what_extensions_read() -> None:
    class Service:
        name = "service"

        @dummy
        def method(self) -> None: ...

    config = {"max_workers": 3, "parent_calls_tracked": 4, "serializer": "json"}
    container = ServiceContainer(Service, config=config)
    assert container.service_cls is Service
    assert container.service_name == "service"
    assert container.config is config
    assert container.interface is container
    assert (container.max_workers, container.parent_calls_tracked) == (3, 4)
    assert (container.serializer, container.accept) == ("json", ["json"])
    assert [item.method_name for item in container.entrypoints] == ["method"]
    assert repr(container).startswith("<ServiceContainer service new at ")


def test_extensions_are_told_apart_and_shared_ones_are_one(stage: Stage) -> None:
    container = stage.make()
    (entrypoint,) = container.entrypoints
    owner, plain = container.dependencies
    (server,) = container.subextensions
    assert owner.server is entrypoint.server is server
    assert container.extensions == (server, owner, plain, entrypoint)
    assert list(container.shared_extensions.values()) == [server]


def test_configuration_is_the_global_one_when_none_is_given() -> None:
    class Service:
        name = "service"

    with global_config.patch({"max_workers": 7}):
        container = ServiceContainer(Service)
        assert container.max_workers == 7
        assert container.config["max_workers"] == 7


def test_service_without_name_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="'name'"):
        ServiceContainer(type("Service", (), {}), config={})


class CustomContainer(ServiceContainer):
    pass


def test_container_class_is_the_one_that_configuration_names() -> None:
    path = f"{__name__}.CustomContainer"
    assert get_container_cls({}) is ServiceContainer
    assert get_container_cls({"SERVICE_CONTAINER_CLS": path}) is CustomContainer
    with global_config.patch({"SERVICE_CONTAINER_CLS": path}):
        assert get_container_cls() is CustomContainer


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("nowhere_at_all.Container", "cannot be imported: 'nowhere_at_all.Container'"),
        ("os.path", "'os.path' is no kind of ServiceContainer"),
        ("builtins.dict", "'builtins.dict' is no kind of ServiceContainer"),
    ],
)
def test_a_container_class_that_is_none_is_refused(path, problem):
    with pytest.raises(ConfigurationError, match=f"^SERVICE_CONTAINER_CLS {problem}"):
        get_container_cls({"SERVICE_CONTAINER_CLS": path})


def test_new_call_ids_differ() -> None:
    assert len({new_call_id() for _ in range(100)}) == 100


# Starting


def test_hooks_of_the_start_run_phase_by_phase_in_order(stage: Stage) -> None:
    stage.make().start()
    assert stage.journal.lines == hooks("setup", "start", "ready", "open")


def test_first_half_lets_no_work_in(stage: Stage) -> None:
    container = stage.make()
    assert not container.started
    container.prepare()
    assert container.started
    assert stage.journal.lines == hooks("setup", "start", "ready")
    container.open()
    assert stage.journal.lines == hooks("setup", "start", "ready", "open")


def test_start_is_refused_when_it_was_started(stage: Stage) -> None:
    container = stage.start()
    with pytest.raises(LifecycleError, match="started already"):
        container.start()


def test_start_is_refused_when_it_has_stopped_or_was_killed(stage: Stage) -> None:
    container = stage.start()
    container.stop()
    with pytest.raises(ContainerStopped):
        container.start()
    container = stage.start()
    container.kill()
    with pytest.raises(ContainerBeingKilled):
        container.start()


#: By failing hook: the extensions that had begun, and so are killed, the last first.
START_FAILURES = {
    "server.setup": ["server"],
    "owner.setup": ["owner", "server"],
    "server.start": ["entrypoint", "owner", "server"],
    "entrypoint.ready": ["entrypoint", "owner", "server"],
    "owner.open": ["entrypoint", "owner", "server"],
}


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("failing", START_FAILURES)
def test_failing_start_is_undone_and_raises_the_error(
    stage: Stage, failing: str, error: type[BaseException]
) -> None:
    container = stage.make()
    stage.failing[failing] = raised = error("on purpose")
    with pytest.raises(error) as caught:
        container.start()
    assert caught.value is raised
    lines = stage.journal.lines
    after = lines[lines.index(failing) + 1 :]
    assert after == [f"{name}.kill" for name in START_FAILURES[failing]]
    assert end_of(container) is raised
    assert not container.started
    assert threads_of_service() == []


def test_thread_spawned_by_a_start_that_fails_is_ended(stage: Stage) -> None:
    container = stage.make()

    def loop() -> None:
        container.stopping.wait(TIMEOUT)

    stage.doing["server.start"] = lambda extension: container.spawn_managed_thread(loop)
    stage.failing["owner.start"] = ValueError("on purpose")
    with pytest.raises(ValueError, match="on purpose"):
        container.start()
    assert threads_of_service() == []


def test_managed_thread_that_dies_while_it_starts_fails_the_start(stage: Stage) -> None:
    container = stage.make()

    def die() -> None:
        raise ValueError("listener")

    def start_and_wait(extension: Any) -> None:
        container.spawn_managed_thread(die)
        assert container.stopping.wait(TIMEOUT)

    stage.doing["owner.start"] = start_and_wait
    with pytest.raises(ValueError, match="listener"):
        container.start()
    assert str(end_of(container)) == "listener"
    assert sorted(item for item in stage.journal.lines if item.endswith("kill")) == [
        "entrypoint.kill",
        "owner.kill",
        "server.kill",
    ]
    assert "owner.ready" not in stage.journal.lines


@pytest.mark.parametrize("hook", ["server.setup", "server.start", "owner.ready"])
def test_stop_during_start_makes_it_raise_after_undoing(stage: Stage, hook: str) -> None:
    container = stage.make()
    reached = threading.Event()

    def wait_for_stop(extension: Any) -> None:
        reached.set()
        assert extension.container.stopping.wait(TIMEOUT)

    stage.doing[hook] = wait_for_stop
    starting = in_thread(container.start)
    assert reached.wait(TIMEOUT)
    assert in_thread(container.stop).finish() is None
    assert type(starting.finish()) is ContainerStopped
    lines = stage.journal.lines
    after = lines[lines.index(hook) + 1 :]
    begun = [name for name in ORDER if f"{name}.setup" in lines]
    assert after == [f"{name}.kill" for name in reversed(begun)]
    assert end_of(container) is None
    assert threads_of_service() == []


def test_stop_during_open_stops_gracefully(stage: Stage) -> None:
    container = stage.make()
    reached = threading.Event()
    finished: list[str] = []

    def wait_for_stop(extension: Any) -> None:
        spawn(container, lambda: finished.append("worker"))
        reached.set()
        assert extension.container.stopping.wait(TIMEOUT)

    stage.doing["owner.open"] = wait_for_stop
    starting = in_thread(container.start)
    assert reached.wait(TIMEOUT)
    assert in_thread(container.stop).finish() is None
    assert type(starting.finish()) is ContainerStopped
    assert finished == ["worker"]
    assert "owner.stop" in stage.journal.lines
    assert "owner.kill" not in stage.journal.lines
    assert end_of(container) is None


def test_error_that_a_stopped_start_meets_is_kept_as_the_cause(stage: Stage) -> None:
    container = stage.make()

    def fail_when_stopped(extension: Any) -> None:
        extension.container.stop()
        raise OSError("interrupted")

    stage.doing["owner.ready"] = fail_when_stopped
    with pytest.raises(ContainerStopped) as caught:
        container.start()
    assert isinstance(caught.value.__cause__, OSError)
    assert end_of(container) is None


@pytest.mark.parametrize("hook", ["owner.start", "entrypoint.ready", "entrypoint.open"])
def test_stop_from_a_starting_hook_makes_the_start_raise(stage: Stage, hook: str) -> None:
    container = stage.make()
    stage.doing[hook] = lambda extension: container.stop()
    with pytest.raises(ContainerStopped):
        container.start()
    assert end_of(container) is None


def test_stop_between_the_halves_of_a_start_stops_gracefully(stage: Stage) -> None:
    container = stage.make()
    container.prepare()
    container.stop()
    assert "owner.stop" in stage.journal.lines
    with pytest.raises(ContainerStopped):
        container.open()


def test_second_half_is_refused_when_the_stop_has_ended(stage: Stage) -> None:
    container = stage.make()
    container.prepare()
    gate = Gate()
    stage.doing["owner.stop"] = lambda extension: gate.hold()
    stopping = in_thread(container.stop)
    gate.wait_reached()
    opening = in_thread(container.open)
    assert not opening.is_over
    gate.released.set()
    assert type(opening.finish()) is ContainerStopped
    assert stopping.finish() is None


def test_stop_kills_when_a_start_does_not_listen(stage: Stage) -> None:
    container = stage.make()
    gate = Gate()
    stage.doing["owner.start"] = lambda extension: gate.hold()
    starting = in_thread(container.start)
    gate.wait_reached()
    container.stop(timeout=0)
    assert end_of(container) is None
    assert "owner.kill" not in stage.journal.lines
    gate.released.set()
    assert isinstance(starting.finish(), ContainerBeingKilled)
    assert stage.journal.lines.count("owner.kill") == 1


def test_kill_during_start_makes_it_raise_the_error(stage: Stage) -> None:
    container = stage.make()
    gate = Gate()
    stage.doing["owner.start"] = lambda extension: gate.hold()
    starting = in_thread(container.start)
    gate.wait_reached()
    container.kill(error := ValueError("on purpose"))
    assert end_of(container) is error
    gate.released.set()
    assert starting.finish() is error
    kills = [line for line in stage.journal.lines if line.endswith("kill")]
    assert sorted(kills) == ["entrypoint.kill", "owner.kill", "server.kill"]


def test_extensions_die_once_when_start_is_killed_by_its_own_hook(stage: Stage) -> None:
    container = stage.make()
    stage.doing["owner.start"] = lambda extension: container.kill()
    with pytest.raises(ContainerBeingKilled):
        container.start()
    assert end_of(container) is None
    assert stage.journal.lines[-1] == "owner.kill"
    assert stage.journal.lines.count("owner.kill") == 1


# Stopping

STOP = [
    "entrypoint.cancel",
    "owner.cancel",
    "server.cancel",
    "entrypoint.stop",
    "owner.stop",
    "server.stop",
]


def test_hooks_of_the_stop_run_in_order(stage: Stage) -> None:
    container = stage.start()
    container.stop()
    assert stage.journal.lines == STOP
    assert end_of(container) is None
    assert not container.started
    assert threads_of_service() == []


def test_workers_end_between_closed_doors_and_stopping_dependencies(stage: Stage) -> None:
    container = stage.start()
    gate = Gate()
    spawn(container, gate.hold)
    gate.wait_reached()
    stage.journal.lines.clear()
    stopping = in_thread(container.stop)
    assert container.stopping.wait(TIMEOUT)
    gate.released.set()
    assert stopping.finish() is None
    rest = [
        "owner.worker_result",
        "entrypoint.settle",
        "owner.worker_teardown",
    ]
    assert [line for line in stage.journal.lines if line not in rest] == STOP
    last = stage.journal.lines.index("owner.worker_teardown")
    assert last < stage.journal.lines.index("owner.stop")


def test_stop_waits_for_the_worker(stage: Stage) -> None:
    container = stage.start()
    gate, doors_closed = Gate(), threading.Event()
    stage.doing["entrypoint.stop"] = lambda extension: doors_closed.set()
    spawn(container, gate.hold)
    gate.wait_reached()
    stopping = in_thread(container.stop)
    assert doors_closed.wait(TIMEOUT)
    with pytest.raises(ContainerStopped):
        spawn(container)
    assert not stopping.is_over
    assert "owner.stop" not in stage.journal.lines
    gate.released.set()
    assert stopping.finish() is None


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("failing", STOP)
def test_every_step_is_done_when_a_hook_raises(
    stage: Stage, failing: str, error: type[BaseException]
) -> None:
    container = stage.start()
    stage.failing[failing] = raised = error("on purpose")
    with pytest.raises(error) as caught:
        container.stop()
    assert caught.value is raised
    assert stage.journal.lines == STOP
    assert end_of(container) is None


def test_first_error_is_raised_when_two_hooks_raise(stage: Stage) -> None:
    container = stage.start()
    stage.failing["entrypoint.stop"] = ValueError("first")
    stage.failing["owner.stop"] = ValueError("second")
    with pytest.raises(ValueError, match="first"):
        container.stop()


def test_stop_that_is_interrupted_as_soon_as_it_has_begun_kills(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    container = stage.start()
    take = container._life.take

    def take_and_be_interrupted(step: Step) -> Any:
        previous = take(step)
        if step is Step.STOP:
            raise KeyboardInterrupt
        return previous

    monkeypatch.setattr(container._life, "take", take_and_be_interrupted)
    with pytest.raises(KeyboardInterrupt):
        container.stop()
    assert end_of(container) is None
    assert container.being_killed


def test_no_thread_is_left_when_stop_returns(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    container = stage.start()
    held, entered = threading.Event(), threading.Event()

    class SlowEvent(threading.Event):
        def set(self) -> None:
            super().set()
            entered.set()
            held.wait(TIMEOUT)

    monkeypatch.setattr(container, "_over", SlowEvent())
    monkeypatch.setattr("threadko.containers.container._LATE_SECONDS", TIMEOUT)
    stopping = in_thread(container.stop)
    assert entered.wait(TIMEOUT)
    (last,) = [item for item in threading.enumerate() if "-service-shutdown-" in item.name]
    assert not stopping.is_over
    held.set()
    assert stopping.finish() is None
    assert not last.is_alive()


def test_container_that_is_killed_before_its_start_wants_that_at_exit_is_forgotten(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    container = stage.make()

    def be_late(each: Any) -> None:
        in_thread(container.kill).finish()
        kill_at_exit(each)

    monkeypatch.setattr("threadko.containers.container.kill_at_exit", be_late)
    with pytest.raises(ContainerBeingKilled):
        container.start()
    assert container not in list_running()


def test_nothing_happens_when_it_is_stopped_before_the_start(stage: Stage) -> None:
    container = stage.make()
    container.stop()
    assert end_of(container) is None
    assert stage.journal.lines == []
    with pytest.raises(ContainerStopped):
        container.start()


def test_nothing_happens_when_it_is_stopped_again(stage: Stage) -> None:
    container = stage.start()
    container.stop()
    container.stop()
    container.kill(ValueError("too late"))
    assert stage.journal.lines == STOP
    assert end_of(container) is None


def test_second_stop_waits_for_the_first(stage: Stage) -> None:
    container = stage.start()
    gate = Gate()
    stage.doing["owner.stop"] = lambda extension: gate.hold()
    first = in_thread(container.stop)
    gate.wait_reached()
    second = in_thread(container.stop)
    assert not second.is_over
    gate.released.set()
    assert [first.finish(), second.finish()] == [None, None]
    assert stage.journal.lines == STOP


def test_second_stop_kills_when_the_first_hangs(stage: Stage) -> None:
    container = stage.start()
    gate = Gate()
    stage.doing["owner.stop"] = lambda extension: gate.hold()
    first = in_thread(container.stop)
    gate.wait_reached()
    container.stop(timeout=0)
    assert container.being_killed
    assert end_of(container) is None
    gate.released.set()
    assert first.finish() is None


def test_stop_returns_by_its_deadline_when_a_hook_hangs_and_says_where(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    container = stage.start()
    gate = Gate()
    stage.doing["owner.stop"] = lambda extension: gate.hold()
    container.stop(timeout=1)
    assert container.being_killed
    assert end_of(container) is None
    assert "gate.hold()" in caplog.text
    gate.released.set()


def test_stop_raises_what_a_hook_raised_before_another_hangs(stage: Stage) -> None:
    container = stage.start()
    gate = Gate()
    stage.failing["entrypoint.stop"] = raised = ValueError("on purpose")
    stage.doing["owner.stop"] = lambda extension: gate.hold()
    with pytest.raises(ValueError, match="on purpose") as caught:
        container.stop(timeout=1)
    assert caught.value is raised
    gate.released.set()


def test_stop_from_a_worker_hands_over_and_the_worker_ends(stage: Stage) -> None:
    container = stage.start()
    outcomes: list[Any] = []
    stage.doing["entrypoint.settle"] = lambda given: outcomes.append(given[1:])

    def stop() -> str:
        container.stop()
        return "stopped"

    spawn(container, stop)
    assert end_of(container) is None
    assert outcomes == [("stopped", None)]


def test_stop_from_a_managed_thread_hands_over(stage: Stage) -> None:
    container = stage.start()
    handle = container.spawn_managed_thread(container.stop)
    handle.wait(TIMEOUT)
    assert end_of(container) is None


def test_stop_from_a_job_that_is_no_worker_hands_over(stage: Stage) -> None:
    container = stage.start()
    container.open_line("source").put(container.stop)
    assert end_of(container) is None
    assert not container.being_killed


def test_stop_from_a_stopping_hook_hands_over(stage: Stage) -> None:
    container = stage.start()
    stage.doing["owner.stop"] = lambda extension: container.stop()
    container.stop()
    assert stage.journal.lines == STOP


def test_stop_of_another_container_by_a_worker_waits_for_it(stage: Stage) -> None:
    one, other = stage.start(), stage.start()
    died: list[bool] = []
    done = threading.Event()

    def stop() -> None:
        other.stop()
        died.append(other.started)
        done.set()

    spawn(one, stop)
    assert done.wait(TIMEOUT)
    assert died == [False]


def test_stop_that_is_handed_over_logs_what_it_raises(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    container = stage.start()
    logged = threading.Event()
    stage.failing["owner.stop"] = ValueError("on purpose")
    container.observers.add(Observer(on_death=lambda *args: logged.set()))
    container.spawn_managed_thread(container.stop).wait(TIMEOUT)
    assert end_of(container) is None
    assert "stop() of <Owner bound" in caplog.text


def test_stop_turns_into_kill_when_the_deadline_passes(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("threadko.containers.container._LATE_SECONDS", TIMEOUT)
    container = stage.start(SHUTDOWN_TIMEOUT=0.01)
    gate = Gate()
    ctx = spawn(container, gate.hold)
    gate.wait_reached()
    container.stop()
    assert ctx.abandoned
    assert end_of(container) is None
    assert stage.journal.lines[-3:] == ["entrypoint.kill", "owner.kill", "server.kill"]
    assert "owner.stop" not in stage.journal.lines
    gate.released.set()


def test_managed_threads_are_ended_when_all_else_has(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("threadko.containers.container._GRACE_SECONDS", TIMEOUT)
    container = stage.start()
    started = threading.Event()
    lines: list[str] = []

    def loop() -> None:
        started.set()
        container.stopping.wait(TIMEOUT)
        lines.append("ended")

    handle = container.spawn_managed_thread(loop)
    assert started.wait(TIMEOUT)
    container.stop()
    assert lines == ["ended"]
    handle.wait(TIMEOUT)
    with pytest.raises(ContainerStopped):
        container.spawn_managed_thread(loop)


def test_managed_thread_that_never_listens_is_named_and_left(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    container = stage.start()
    gate = Gate()
    handle = container.spawn_managed_thread(gate.hold, "deaf")
    gate.wait_reached()
    container.stop()
    assert f"thread {handle.name} does not end" in caplog.text
    assert end_of(container) is None
    gate.released.set()
    handle.wait(TIMEOUT)


# Killing


def test_kill_calls_every_kill_once_in_reverse(stage: Stage) -> None:
    container = stage.start()
    container.kill()
    container.kill()
    assert stage.journal.lines == ["entrypoint.kill", "owner.kill", "server.kill"]
    assert container.being_killed
    assert container.stopping.is_set()


@pytest.mark.parametrize("error", ERRORS)
def test_kill_goes_on_when_a_hook_raises(stage: Stage, error: type[BaseException]) -> None:
    container = stage.start()
    stage.failing["owner.kill"] = error("on purpose")
    container.kill()
    assert stage.journal.lines == ["entrypoint.kill", "owner.kill", "server.kill"]
    assert end_of(container) is None


@pytest.mark.parametrize("as_triple", [False, True])
def test_wait_raises_what_kill_was_given(stage: Stage, as_triple: bool) -> None:
    container = stage.start()
    error = ValueError("on purpose")
    container.kill((ValueError, error, None) if as_triple else error)
    assert end_of(container) is error
    assert end_of(container) is error


def test_first_error_stays_when_killed_again(stage: Stage) -> None:
    container = stage.start()
    container.kill()
    container.kill(ValueError("too late"))
    assert end_of(container) is None


def test_kill_before_the_start_ends_the_container(stage: Stage) -> None:
    container = stage.make()
    container.kill(error := ValueError("on purpose"))
    assert end_of(container) is error
    assert stage.journal.lines == []


def test_kill_does_not_wait_for_a_worker_which_then_does_nothing(stage: Stage) -> None:
    container = stage.start()
    gate = Gate()
    ended = threading.Event()
    cancelled = threading.Event()

    def work() -> str:
        gate.hold()
        ended.set()
        return "unseen"

    outcomes: list[Any] = []
    ctx = spawn(container, work, handle_result=lambda *args: outcomes.append(args))
    gate.wait_reached()
    assert not ctx.cancelled.is_set()
    container.kill()
    assert ctx.cancelled.is_set()
    assert end_of(container) is None
    stage.journal.lines.clear()
    gate.released.set()
    assert ended.wait(TIMEOUT)
    for thread in threading.enumerate():
        if thread.name.startswith("threadko-service-worker-"):
            thread.join(TIMEOUT)
    assert outcomes == []
    assert stage.journal.lines == []
    assert not cancelled.is_set()


def test_kill_from_a_worker_returns_and_the_worker_has_no_outcome(stage: Stage) -> None:
    container = stage.start()
    settled: list[Any] = []
    killed = threading.Event()
    stage.doing["entrypoint.settle"] = settled.append

    def kill() -> None:
        container.kill(ValueError("by a worker"))
        killed.set()

    spawn(container, kill)
    assert killed.wait(TIMEOUT)
    assert str(end_of(container)) == "by a worker"
    for thread in threading.enumerate():
        if thread.name.startswith("threadko-service-worker-"):
            thread.join(TIMEOUT)
    assert settled == []


def test_kill_from_a_kill_hook_returns(stage: Stage) -> None:
    container = stage.start()
    stage.doing["owner.kill"] = lambda extension: container.kill()
    container.kill()
    assert stage.journal.lines == ["entrypoint.kill", "owner.kill", "server.kill"]


def test_kill_overtakes_a_stop_that_waits_for_a_worker(stage: Stage) -> None:
    container = stage.start()
    gate, doors_closed = Gate(), threading.Event()
    stage.doing["entrypoint.stop"] = lambda extension: doors_closed.set()
    spawn(container, gate.hold)
    gate.wait_reached()
    stopping = in_thread(container.stop)
    assert doors_closed.wait(TIMEOUT)
    container.kill(error := ValueError("on purpose"))
    assert stopping.finish() is None
    assert end_of(container) is error
    assert "owner.stop" not in stage.journal.lines
    gate.released.set()


def test_stop_that_is_overtaken_returns_when_the_kill_has_ended(stage: Stage) -> None:
    container = stage.start()
    worker, killing = Gate(), Gate()
    doors_closed = threading.Event()
    alive_after_stop: list[bool] = []

    def stop() -> None:
        container.stop()
        alive_after_stop.append(container.started)

    stage.doing["entrypoint.stop"] = lambda extension: doors_closed.set()
    stage.doing["owner.kill"] = lambda extension: killing.hold()
    spawn(container, worker.hold)
    worker.wait_reached()
    stopping = in_thread(stop)
    assert doors_closed.wait(TIMEOUT)
    kill = in_thread(container.kill)
    killing.wait_reached()
    assert not stopping.is_over
    killing.released.set()
    assert [stopping.finish(), kill.finish()] == [None, None]
    assert alive_after_stop == [False]
    worker.released.set()


def test_kill_overtakes_a_stop_that_is_inside_a_hook(stage: Stage) -> None:
    container = stage.start()
    gate = Gate()
    stage.doing["owner.stop"] = lambda extension: gate.hold()
    stopping = in_thread(container.stop)
    gate.wait_reached()
    container.kill()
    assert end_of(container) is None
    gate.released.set()
    assert stopping.finish() is None
    assert "server.stop" not in stage.journal.lines
    assert stage.journal.lines.count("server.kill") == 1


def test_second_kill_waits_for_the_first(stage: Stage) -> None:
    container = stage.start()
    gate = Gate()
    stage.doing["owner.kill"] = lambda extension: gate.hold()
    first = in_thread(container.kill)
    gate.wait_reached()
    second = in_thread(container.kill)
    assert not second.is_over
    gate.released.set()
    assert [first.finish(), second.finish()] == [None, None]
    assert not container.started


@pytest.mark.parametrize("error", ERRORS)
def test_error_that_leaves_a_managed_thread_kills_the_container(
    stage: Stage, error: type[BaseException]
) -> None:
    container = stage.start()
    raised = error("listener")

    def die() -> None:
        raise raised

    container.spawn_managed_thread(die)
    assert end_of(container) is raised
    assert container.being_killed


def test_killed_managed_thread_is_no_error(stage: Stage) -> None:
    container = stage.start()

    def die() -> None:
        raise WorkerKilled

    container.spawn_managed_thread(die).wait(TIMEOUT)
    assert not container.being_killed


def test_error_of_a_managed_thread_is_only_logged_when_the_container_is_dead(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    container = stage.start()
    gate = Gate()

    def die() -> None:
        gate.hold()
        raise ValueError("too late")

    handle = container.spawn_managed_thread(die)
    gate.wait_reached()
    container.kill()
    gate.released.set()
    with pytest.raises(ValueError, match="too late"):
        handle.wait(TIMEOUT)
    assert end_of(container) is None
    assert "after its container had ended" in caplog.text


def test_managed_thread_is_refused_when_killed(stage: Stage) -> None:
    container = stage.start()
    container.kill()
    with pytest.raises(ContainerBeingKilled):
        container.spawn_managed_thread(lambda: None)


def test_observers_are_told_of_the_end(stage: Stage) -> None:
    told: list[Any] = []
    for end in ("stop", "kill"):
        container = stage.start()
        container.observers.add(Observer(on_death=lambda *args: told.append(args)))
        getattr(container, end)()
        assert told.pop() == (container, None)
    container = stage.start()
    container.observers.add(Observer(on_death=lambda *args: told.append(args)))
    container.kill(error := ValueError())
    assert told == [(container, error)]


def test_wait_returns_in_every_thread_that_waits(stage: Stage) -> None:
    container = stage.start()
    waiting = [in_thread(container.wait) for _ in range(5)]
    container.stop()
    assert [call.finish() for call in waiting] == [None] * 5


def test_one_end_alone_is_carried_out_when_many_come_at_once(stage: Stage) -> None:
    container = stage.start()
    barrier = threading.Barrier(6)

    def end(method: Any) -> None:
        barrier.wait()
        method()

    calls = [
        in_thread(lambda method=method: end(method))
        for method in [container.stop, container.kill] * 3
    ]
    assert [call.finish() for call in calls] == [None] * 6
    assert not container.started
    for line in ("owner.stop", "owner.kill", "entrypoint.stop"):
        assert stage.journal.lines.count(line) <= 1


@pytest.mark.parametrize("hook", ["entrypoint.cancel", "server.stop"])
def test_stopping_hook_that_hangs_holds_nobody(
    stage: Stage, hook: str, caplog: pytest.LogCaptureFixture
) -> None:
    container = stage.start()
    gate = Gate()
    stage.doing[hook] = lambda extension: gate.hold()
    container.stop(timeout=1)
    assert gate.reached.is_set()
    assert end_of(container) is None
    assert container.being_killed
    assert "in hold" in caplog.text
    gate.released.set()


def test_kill_hook_that_hangs_holds_nobody(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    container = stage.start()
    gate = Gate()
    stage.doing["owner.kill"] = lambda extension: gate.hold()
    container.kill(error := ValueError("on purpose"))
    assert gate.reached.is_set()
    assert end_of(container) is error
    assert "in hold" in caplog.text
    gate.released.set()


def test_collector_whose_provider_never_leaves_holds_nobody(stage: Stage) -> None:
    class Server(ProviderCollector, SharedExtension):
        pass

    class Stubborn(DependencyProvider):
        server = Server()

        def setup(self) -> None:
            self.server.register_provider(self)

    class Service:
        name = "service"
        stubborn = Stubborn()

    container = ServiceContainer(Service, config={})
    container.start()
    container.stop(timeout=0)
    assert end_of(container) is None


PROGRAM = """
import os
import signal
import threading
from threadko.containers import ServiceContainer
from threadko.extensions import DependencyProvider, Entrypoint

class Noisy(DependencyProvider):
    def kill(self):
        print("killed", flush=True)

class Service:
    name = "service"
    noisy = Noisy()

    @Entrypoint.decorator
    def hang(self):
        hanging.set()
        threading.Event().wait()

hanging = threading.Event()
container = ServiceContainer(Service, config={"max_workers": 1, "SHUTDOWN_TIMEOUT": 5})
container.start()
container.spawn_worker(container.entrypoints[0], (), {})
hanging.wait()
"""


def run_program(rest: str) -> list[str]:
    """Run a container whose one slot is taken for ever, and then `rest`; return what it prints."""
    command = [sys.executable, "-c", PROGRAM + rest]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=True)
    return ended.stdout.splitlines()


def test_running_container_is_killed_when_the_process_ends() -> None:
    assert run_program("print('end of program', flush=True)") == ["end of program", "killed"]


INTERRUPTED = """
# Whoever runs the tests in the background may have it ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)

def interrupt():
    try:
        container.spawn_worker(container.entrypoints[0], (), {})
    except Exception as error:  # refused: the stop waits for the worker now
        os.kill(os.getpid(), signal.SIGINT)

threading.Thread(target=interrupt, daemon=True).start()
try:
    container.stop()
except KeyboardInterrupt:
    print("interrupted", flush=True)
container.wait()
print(container.being_killed, flush=True)
"""


def test_stop_that_is_interrupted_kills_so_that_nobody_waits_for_ever() -> None:
    assert run_program(INTERRUPTED) == ["killed", "interrupted", "True"]


def test_loop_that_spawns_workers_for_ever_ends_with_the_service(stage: Stage) -> None:
    container = stage.start()
    entrypoint = container.entrypoints[0]
    turns = threading.Semaphore(0)

    def loop() -> None:
        while True:
            container.spawn_worker(entrypoint, (), {})
            turns.release()

    handle = container.spawn_managed_thread(loop)
    for _ in range(3):
        assert turns.acquire(timeout=TIMEOUT)
    container.stop()
    handle.wait(TIMEOUT)
    assert not container.being_killed
    assert end_of(container) is None
