"""Ending a container in every state, from everywhere: it ends, once, and nothing of it is left."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

from tests.containers.conftest import Stage
from tests.containers.dummies import Call, Gate, in_thread, spawn
from tests.support.timing import TIMEOUT
from threadko.concurrency.callbacks import CallbackFuture
from threadko.containers import Observer, ServiceContainer

HOOKS_OF_START = ("setup", "start", "ready", "open")
HOOKS_OF_STOP = ("cancel", "stop")

#: How a container is ended: by one thread, or by two at once.
ENDS = {
    "stop": ("stop",),
    "kill": ("kill",),
    "two stops": ("stop", "stop"),
    "two kills": ("kill", "kill"),
    "stop and kill": ("stop", "kill"),
}


class Situation:
    """A container held in some state; `release` lets everything in it go on."""

    def __init__(self, stage: Stage, **config: Any) -> None:
        self.stage = stage
        self.container = stage.make(**config)
        self.gate = Gate()
        self.calls: list[Call] = []

    def hold_in(self, hook: str) -> None:
        """Hold whoever runs a hook until it is released, or the container stops listening."""
        self.stage.doing[hook] = lambda given: self.gate.hold()

    def listen_in(self, hook: str) -> None:
        """Hold whoever runs a hook until the container is stopped, as waiting for a broker does."""

        def wait(given: Any) -> None:
            self.gate.reached.set()
            assert self.container.stopping.wait(TIMEOUT)

        self.stage.doing[hook] = wait

    def run(self, method: str) -> None:
        self.calls.append(in_thread(getattr(self.container, method)))

    def release(self) -> None:
        self.gate.released.set()


def before_start(situation: Situation) -> None:
    """Nothing has happened."""


def starting(hook: str) -> Callable[[Situation], None]:
    def reach(situation: Situation) -> None:
        situation.listen_in(f"owner.{hook}")
        situation.run("start")
        situation.gate.wait_reached()

    return reach


def prepared(situation: Situation) -> None:
    situation.container.prepare()


def idle(situation: Situation) -> None:
    situation.container.start()


def working(situation: Situation) -> None:
    situation.container.start()
    spawn(situation.container, situation.gate.hold)
    situation.gate.wait_reached()


def with_waiting_spawns(situation: Situation) -> None:
    working(situation)
    spawn(situation.container, situation.gate.hold)
    situation.calls.append(in_thread(lambda: spawn(situation.container)))


def with_managed_thread(situation: Situation) -> None:
    situation.container.start()
    situation.container.spawn_managed_thread(lambda: situation.container.stopping.wait(TIMEOUT))


def stopping(hook: str) -> Callable[[Situation], None]:
    def reach(situation: Situation) -> None:
        situation.container.start()
        situation.hold_in(f"owner.{hook}")
        situation.run("stop")
        situation.gate.wait_reached()

    return reach


def draining(situation: Situation) -> None:
    closed = threading.Event()
    working(situation)
    situation.stage.doing["entrypoint.stop"] = lambda given: closed.set()
    situation.run("stop")
    assert closed.wait(TIMEOUT)


def stopped(situation: Situation) -> None:
    situation.container.start()
    situation.container.stop()


def killed(situation: Situation) -> None:
    situation.container.start()
    situation.container.kill()


STATES: dict[str, Callable[[Situation], None]] = {
    "before start": before_start,
    **{f"starting: {hook}": starting(hook) for hook in HOOKS_OF_START},
    "prepared": prepared,
    "idle": idle,
    "working": working,
    "working, and others wait": with_waiting_spawns,
    "with a managed thread": with_managed_thread,
    **{f"stopping: {hook}": stopping(hook) for hook in HOOKS_OF_STOP},
    "draining": draining,
    "stopped": stopped,
    "killed": killed,
}


def expect_end(container: ServiceContainer, stage: Stage) -> None:
    """It is dead, nobody who waits is held, each hook ran once, and no thread is left."""
    assert in_thread(container.wait).finish() is None
    assert not container.started
    ends = [line for line in stage.journal.lines if line.endswith((".stop", ".kill", ".cancel"))]
    assert len(ends) == len(set(ends))
    for thread in threading.enumerate():
        if "-service-" in thread.name:
            thread.join(TIMEOUT)
            assert not thread.is_alive(), thread.name


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("state", STATES)
def test_container_ends_in_every_state(stage: Stage, state: str, end: str) -> None:
    situation = Situation(stage)
    STATES[state](situation)
    barrier = threading.Barrier(len(ENDS[end]))

    def end_it(method: str) -> None:
        barrier.wait(TIMEOUT)
        getattr(situation.container, method)()

    ends = [in_thread(lambda method=method: end_it(method)) for method in ENDS[end]]
    if "kill" not in ENDS[end]:
        assert situation.container.stopping.wait(TIMEOUT)
        situation.release()
    assert [call.finish() for call in ends] == [None] * len(ends)
    situation.release()
    for call in situation.calls:
        call.finish()  # a start or a spawn may be refused; it must return
    expect_end(situation.container, stage)


def from_worker(container: ServiceContainer, end: Callable[[], None]) -> None:
    spawn(container, end)


def from_managed_thread(container: ServiceContainer, end: Callable[[], None]) -> None:
    container.spawn_managed_thread(end)


def from_job(container: ServiceContainer, end: Callable[[], None]) -> None:
    container.open_line("source").put(end)


def from_done_callback(container: ServiceContainer, end: Callable[[], None]) -> None:
    future: CallbackFuture[None] = CallbackFuture()
    future.add_done_callback(lambda _: end())
    future.set_result(None)


def from_observer(container: ServiceContainer, end: Callable[[], None]) -> None:
    container.observers.add(Observer(on_worker_result=lambda *args: end()))
    spawn(container)


def from_observer_of_death(container: ServiceContainer, end: Callable[[], None]) -> None:
    container.observers.add(Observer(on_death=lambda *args: end()))
    in_thread(container.stop)


def from_thread_of_worker(container: ServiceContainer, end: Callable[[], None]) -> None:
    def work() -> None:
        thread = threading.Thread(target=end, daemon=True)
        thread.start()

    spawn(container, work)


PLACES = {
    "worker": from_worker,
    "managed thread": from_managed_thread,
    "job": from_job,
    "done-callback": from_done_callback,
    "observer": from_observer,
    "observer of the death": from_observer_of_death,
    "thread of a worker": from_thread_of_worker,
}


@pytest.mark.parametrize("end", ["stop", "kill"])
@pytest.mark.parametrize("place", PLACES)
def test_container_is_ended_from_everywhere(stage: Stage, place: str, end: str) -> None:
    container = stage.start()
    returned = threading.Event()

    def end_it() -> None:
        getattr(container, end)()
        returned.set()

    PLACES[place](container, end_it)
    assert returned.wait(TIMEOUT)
    expect_end(container, stage)


@pytest.mark.parametrize("end", ["stop", "kill"])
@pytest.mark.parametrize(
    "hook",
    [
        *(f"owner.{hook}" for hook in (*HOOKS_OF_START, *HOOKS_OF_STOP, "kill")),
        "owner.get_dependency",
        "owner.worker_setup",
        "owner.worker_result",
        "owner.worker_teardown",
        "entrypoint.settle",
    ],
)
def test_container_is_ended_from_every_hook(stage: Stage, hook: str, end: str) -> None:
    container = stage.make()
    returned = threading.Event()

    def end_it(given: Any) -> None:
        getattr(container, end)()
        returned.set()

    stage.doing[hook] = end_it
    in_thread(container.start).finish()  # raises, if it is ended from one of its hooks
    if not container.stopping.is_set():
        spawn(container)
        if hook.endswith("kill"):
            container.kill()
        else:
            in_thread(container.stop).finish()
    assert returned.wait(TIMEOUT)
    expect_end(container, stage)
