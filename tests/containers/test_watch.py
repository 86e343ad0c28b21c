"""Warnings of workers that are stuck."""

import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.containers.conftest import Stage
from tests.containers.dummies import Gate, in_thread, spawn
from tests.support.timing import TIMEOUT, wait_until

SHORT = 0.05  # seconds


class Heard(logging.Handler):
    """The warnings of the watch, for a test to wait for."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []
        self._changed = threading.Condition()

    def emit(self, record: logging.LogRecord) -> None:
        with self._changed:
            self.messages.append(record.getMessage())
            self._changed.notify_all()

    def wait_for(self, count: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.messages) >= count, TIMEOUT)

    def find(self, is_wanted: Callable[[str], bool]) -> str:
        """Wait for a warning of some kind and return it."""
        with self._changed:
            found = self._changed.wait_for(
                lambda: [each for each in self.messages if is_wanted(each)], TIMEOUT
            )
        assert found, self.messages
        return found[0]


@pytest.fixture
def heard() -> Iterator[Heard]:
    handler = Heard()
    logger = logging.getLogger("threadko.containers.watch")
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


def watchers() -> list[threading.Thread]:
    return [item for item in threading.enumerate() if "-service-watch-" in item.name]


def wait_unwatched() -> None:
    for thread in watchers():
        thread.join(TIMEOUT)
    assert watchers() == []


def test_all_workers_that_are_busy_for_long_are_shown_with_their_stacks(
    stage: Stage, heard: Heard
) -> None:
    container = stage.start(STUCK_WARNING=SHORT)
    gate = Gate()
    contexts = [spawn(container, gate.hold) for _ in range(2)]
    waiting = in_thread(lambda: spawn(container))
    # The first may come before the workers are where they are to hang.
    first = heard.find(lambda message: message.count("in hold\n") == 2)
    assert "all 2 workers of service service have been busy" in first
    assert all(f"{ctx.call_id} has run for " in first for ctx in contexts)
    gate.released.set()
    assert waiting.finish() is None


def test_warning_tells_how_many_jobs_wait(stage: Stage, heard: Heard) -> None:
    container = stage.start(STUCK_WARNING=SHORT)
    line = container.open_line("source")
    ended = threading.Semaphore(0)
    for _ in range(3):
        line.put(ended.release)
    assert all(ended.acquire(timeout=TIMEOUT) for _ in range(3))
    gate = Gate()
    for _ in range(2):
        spawn(container, gate.hold)
    for _ in range(3):
        line.put(lambda: None)
    heard.find(lambda message: "3 jobs wait" in message)
    gate.released.set()


def test_warning_comes_again_at_growing_intervals(stage: Stage, heard: Heard) -> None:
    container = stage.start(STUCK_WARNING=SHORT)
    gate = Gate()
    ages = []
    for _ in range(2):
        spawn(container, gate.hold)
    heard.wait_for(4)
    for message in heard.messages[:4]:
        ages.append(float(message.rpartition(" has run for ")[2].split()[0]))
    gate.released.set()
    # Each comes when at least twice the age of the last is reached; ages are rounded to 0.1 s.
    assert all(age >= SHORT * 2**number - 0.06 for number, age in enumerate(ages))


def test_nothing_is_said_while_a_slot_is_free(stage: Stage, heard: Heard) -> None:
    container = stage.start(STUCK_WARNING=SHORT)
    gate = Gate()
    spawn(container, gate.hold)
    gate.wait_reached()
    assert watchers() == []
    gate.released.set()
    container.stop()
    assert heard.messages == []


def test_nothing_is_said_while_workers_end(stage: Stage, heard: Heard) -> None:
    container = stage.start(STUCK_WARNING=30)
    hung = Gate()
    spawn(container, hung.hold)
    for _ in range(100):
        spawn(container)
    assert len(watchers()) <= 1
    hung.released.set()
    container.stop()
    wait_unwatched()
    assert heard.messages == []


def test_watching_ends_when_a_slot_is_free_and_begins_again(stage: Stage, heard: Heard) -> None:
    container = stage.start(STUCK_WARNING=SHORT, max_workers=1)
    for _ in range(2):
        heard.messages.clear()
        gate = Gate()
        spawn(container, gate.hold)
        heard.wait_for(1)
        gate.released.set()
        wait_unwatched()


@pytest.mark.parametrize("value", [None, 0])
def test_warning_can_be_turned_off(stage: Stage, heard: Heard, value: Any) -> None:
    container = stage.start(STUCK_WARNING=value, max_workers=1)
    gate = Gate()
    spawn(container, gate.hold)
    gate.wait_reached()
    assert watchers() == []
    gate.released.set()


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_watch_ends_with_its_container(stage: Stage, heard: Heard, end: str) -> None:
    container = stage.start(STUCK_WARNING=30, max_workers=1)
    gate = Gate()
    spawn(container, gate.hold)
    gate.wait_reached()
    assert len(watchers()) == 1
    if end == "stop":
        gate.released.set()
    getattr(container, end)()
    wait_unwatched()
    gate.released.set()
    assert heard.messages == []


def with_own_calls(stage: Stage, find: Callable[[str], set[str]], **config: Any) -> Any:
    """A container with an extension that says which of its calls to a service wait."""
    container = stage.make(**config)
    (container.subextensions[0]).find_calls_to = find  # type: ignore[attr-defined]
    container.start()
    return container


def test_service_that_waits_for_itself_is_told_so_once(stage: Stage, heard: Heard) -> None:
    asked: list[str] = []

    def find(service: str) -> set[str]:
        asked.append(service)
        return {"the same call", f"another call {len(asked)}"}

    container = with_own_calls(stage, find, STUCK_WARNING=4 * SHORT, max_workers=1)
    gate = Gate()
    ctx = spawn(container, gate.hold)
    heard.wait_for(3)
    gate.released.set()
    own = [message for message in heard.messages if "wait for itself" in message]
    assert len(own) == 1
    assert "service service seems to wait for itself: all its 1 workers" in own[0]
    assert "1 of its calls" in own[0]
    assert ctx.call_id in own[0]
    assert set(asked) == {"service"}


def test_calls_to_itself_that_are_answered_are_no_reason_to_warn(
    stage: Stage, heard: Heard
) -> None:
    looks: list[str] = []

    def find(service: str) -> set[str]:
        looks.append(service)
        return {str(len(looks))}

    container = with_own_calls(stage, find, STUCK_WARNING=4 * SHORT, max_workers=1)
    gate = Gate()
    spawn(container, gate.hold)
    wait_until(lambda: len(looks) >= 4)  # what the third found has been told by then
    gate.released.set()
    assert not any("wait for itself" in message for message in heard.messages)


def test_extension_that_fails_to_tell_is_logged(stage: Stage, heard: Heard) -> None:
    def find(service: str) -> set[str]:
        raise ValueError("on purpose")

    container = with_own_calls(stage, find, STUCK_WARNING=4 * SHORT, max_workers=1)
    gate = Gate()
    spawn(container, gate.hold)
    heard.wait_for(1)
    gate.released.set()
    assert "watch over the workers of service failed" in heard.messages[0]
