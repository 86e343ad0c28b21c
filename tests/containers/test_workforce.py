"""Workers and their slots."""

import logging
import threading
from typing import Any

import pytest

from tests.containers.conftest import Stage
from tests.containers.dummies import Gate, in_thread, spawn
from tests.support.timing import TIMEOUT
from threadko.exceptions import (
    ContainerBeingKilled,
    ContainerStopped,
    LifecycleError,
    WorkerPoolFull,
)


def test_worker_runs_on_a_named_daemon_thread_of_the_pool(stage: Stage) -> None:
    container = stage.start()
    seen: list[threading.Thread] = []
    done = threading.Event()

    def look() -> None:
        seen.append(threading.current_thread())
        done.set()

    ctx = spawn(container, look)
    assert done.wait(TIMEOUT)
    assert ctx.args == (look,)
    assert seen[0].name.startswith("threadko-service-worker-")
    assert seen[0].daemon


def test_workers_that_run_are_found_by_nameko_s_name_too(stage: Stage) -> None:
    container = stage.start()
    gate = Gate()
    ctx = spawn(container, gate.hold)
    gate.wait_reached()
    assert list(container.running_workers()) == list(container._worker_threads) == [ctx]
    gate.released.set()
    container.stop()
    assert len(container._worker_threads) == 0


def test_spawn_worker_copies_context_data(stage: Stage) -> None:
    container = stage.start()
    given = {"language": "en"}
    ctx = spawn(container, context_data=given)
    assert given == {"language": "en"}
    assert ctx.data["language"] == "en"


def test_entrypoint_settles_a_spawned_worker(stage: Stage) -> None:
    container = stage.start()
    outcomes: list[Any] = []
    stage.doing["entrypoint.settle"] = lambda given: outcomes.append(given[1:])
    spawn(container, lambda: "done")
    container.stop()
    assert outcomes == [("done", None)]


def test_spawn_worker_waits_while_every_slot_is_taken(stage: Stage) -> None:
    container = stage.start()
    gates = [Gate(), Gate(), Gate()]
    for gate in gates[:2]:
        spawn(container, gate.hold)
    third = in_thread(lambda: spawn(container, gates[2].hold))
    for gate in gates[:2]:
        gate.wait_reached()
    assert not gates[2].reached.is_set()
    gates[0].released.set()
    assert third.finish() is None
    gates[2].wait_reached()
    assert not gates[1].released.is_set()
    for gate in gates:
        gate.released.set()


def test_worker_may_spawn_another_when_a_slot_is_free(stage: Stage) -> None:
    container = stage.start()
    done = threading.Event()
    spawn(container, lambda: spawn(container, done.set))
    assert done.wait(TIMEOUT)


def test_worker_is_refused_another_when_its_container_is_full(stage: Stage) -> None:
    container = stage.start(max_workers=1)
    ran: list[str] = []
    outcomes: list[Any] = []
    settled = threading.Event()

    def settle(given: Any) -> None:
        outcomes.append(given[2][0])
        settled.set()

    stage.doing["entrypoint.settle"] = settle
    spawn(container, lambda: spawn(container, lambda: ran.append("never")))
    assert settled.wait(TIMEOUT)
    container.stop()
    assert outcomes == [WorkerPoolFull]
    assert ran == []


def test_worker_waits_for_a_slot_of_another_container(stage: Stage) -> None:
    one, other = stage.start(max_workers=1), stage.start(max_workers=1)
    gate, about_to, done = Gate(), threading.Event(), threading.Event()

    def spawn_there() -> None:
        about_to.set()
        spawn(other, done.set)

    spawn(other, gate.hold)
    gate.wait_reached()
    spawn(one, spawn_there)
    assert about_to.wait(TIMEOUT)
    gate.released.set()
    assert done.wait(TIMEOUT)


def test_spawn_worker_is_refused_before_the_start(stage: Stage) -> None:
    with pytest.raises(LifecycleError, match="has not been started"):
        spawn(stage.make())


def test_spawn_worker_is_refused_to_the_thread_that_starts(stage: Stage) -> None:
    errors: list[BaseException | None] = []

    def try_it(extension: Any) -> None:
        with pytest.raises(LifecycleError) as caught:
            spawn(extension.container)
        errors.append(caught.value)

    stage.doing["owner.start"] = try_it
    stage.start()
    assert len(errors) == 1


def test_spawn_worker_waits_until_the_container_is_open(stage: Stage) -> None:
    container = stage.make()
    container.prepare()
    ran = threading.Event()
    spawning = in_thread(lambda: spawn(container, ran.set))
    container.open()
    assert spawning.finish() is None
    assert ran.wait(TIMEOUT)


def test_no_worker_runs_before_every_extension_is_ready(stage: Stage) -> None:
    container = stage.make()
    lines: list[str] = []
    spawning: list[Any] = []
    spawned = threading.Event()

    def try_early(extension: Any) -> None:
        def work() -> None:
            lines.extend(stage.journal.lines)
            spawned.set()

        spawning.append(in_thread(lambda: spawn(container, work)))

    stage.doing["server.setup"] = try_early
    container.start()
    assert spawned.wait(TIMEOUT)
    assert spawning[0].finish() is None
    assert "entrypoint.ready" in lines


def test_spawn_worker_is_refused_when_stopped_and_when_killed(stage: Stage) -> None:
    container = stage.start()
    container.stop()
    with pytest.raises(ContainerStopped):
        spawn(container)
    container = stage.start()
    container.kill()
    with pytest.raises(ContainerBeingKilled) as caught:
        spawn(container)
    assert not isinstance(caught.value, ContainerStopped)


@pytest.mark.parametrize(
    ("end", "refusal"), [("stop", ContainerStopped), ("kill", ContainerBeingKilled)]
)
def test_caller_who_waits_for_a_slot_is_refused_when_the_container_ends(
    stage: Stage, end: str, refusal: type[Exception]
) -> None:
    container = stage.start(max_workers=1)
    gate = Gate()
    ran: list[str] = []
    spawn(container, gate.hold)
    gate.wait_reached()
    callers = [in_thread(lambda: spawn(container, lambda: ran.append("never"))) for _ in range(5)]
    ending = in_thread(getattr(container, end))
    errors = [caller.finish() for caller in callers]
    assert [type(error) for error in errors] == [refusal] * 5
    gate.released.set()
    assert ending.finish() is None
    assert ran == []


def test_each_spawn_runs_or_is_refused_when_the_container_stops_meanwhile(stage: Stage) -> None:
    container = stage.start()
    barrier = threading.Barrier(5)
    ran: list[int] = []
    refused: list[int] = []

    def spawn_many(caller: int) -> None:
        barrier.wait()
        for number in range(20):
            try:
                spawn(container, lambda number=number: ran.append((caller, number)))
            except ContainerStopped:
                refused.append(number)

    callers = [in_thread(lambda caller=caller: spawn_many(caller)) for caller in range(4)]
    barrier.wait()
    container.stop()
    assert [caller.finish() for caller in callers] == [None] * 4
    assert len(ran) == len(set(ran))
    assert len(ran) + len(refused) == 80


def test_lines_take_turns_and_are_closed_by_their_owner(stage: Stage) -> None:
    container = stage.start(max_workers=1)
    line = container.open_line("source")
    gate, ran = Gate(), threading.Event()
    line.put(gate.hold)
    gate.wait_reached()
    line.put(ran.set)
    waiting = gate.hold
    line.put(waiting)
    assert line.withdraw(waiting)
    gate.released.set()
    assert ran.wait(TIMEOUT)
    assert line.close() == []


def test_run_worker_runs_nothing_when_the_container_was_killed(stage: Stage) -> None:
    container = stage.start()
    container.kill()
    stage.journal.lines.clear()
    (entrypoint,) = container.entrypoints
    ctx = container.run_worker(entrypoint, (), {})
    assert ctx.abandoned
    assert stage.journal.lines == []


def test_stacks_of_stragglers_are_logged(
    stage: Stage, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("threadko.containers.container._LATE_SECONDS", TIMEOUT)
    container = stage.start()
    gate = Gate()

    def straggle() -> None:
        gate.hold()

    ctx = spawn(container, straggle)
    gate.wait_reached()
    container.stop(timeout=0)
    (record,) = (item for item in caplog.records if ctx.call_id in item.getMessage())
    assert record.levelno == logging.ERROR
    assert "in straggle" in record.getMessage()
    assert container.being_killed
    gate.released.set()


def test_pool_is_shut_down_when_it_is_killed_while_it_starts(stage: Stage) -> None:
    for _ in range(20):
        container = stage.make()
        starting = in_thread(container.start)
        container.kill()
        assert isinstance(starting.finish(), (ContainerBeingKilled, type(None)))
        container.wait()
