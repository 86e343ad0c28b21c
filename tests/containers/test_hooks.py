"""Calling hooks."""

import logging
import threading
from typing import Any

import pytest

from tests.containers.dummies import FakeContainer, Gate, Hooked, Journal, in_thread
from threadko.containers.hooks import Hooks


def bind(call: Any, *names: str) -> list[Any]:
    return [Hooked(call, name).bind(FakeContainer()) for name in names]


def test_hooks_run_in_order_and_are_killed_in_reverse_and_once() -> None:
    journal, hooks = Journal(), Hooks("service")
    extensions = bind(lambda line, _: journal.write(line), "a", "b")
    assert hooks.run_starting(extensions, "setup", threading.Event())
    hooks.run_kill()
    hooks.run_kill()
    assert journal.lines == ["a.setup", "b.setup", "b.kill", "a.kill"]


def test_no_hook_begins_when_abort_is_set() -> None:
    journal, hooks, abort = Journal(), Hooks("service"), threading.Event()

    def call(line: str, _: Any) -> None:
        journal.write(line)
        abort.set()

    assert not hooks.run_starting(bind(call, "a", "b"), "setup", abort)
    assert journal.lines == ["a.setup"]


def test_no_hook_begins_when_killed() -> None:
    journal, hooks = Journal(), Hooks("service")
    extensions = bind(lambda line, _: journal.write(line), "a")
    hooks.run_kill()
    assert not hooks.run_starting(extensions, "setup", threading.Event())
    hooks.run_stopping(extensions, "stop", [])
    assert journal.lines == []


def test_extension_inside_a_starting_hook_is_killed_when_the_hook_has_ended() -> None:
    journal, hooks, gate = Journal(), Hooks("service"), Gate()

    def call(line: str, _: Any) -> None:
        if line == "b.start":
            gate.hold()
        journal.write(line)

    extensions = bind(call, "a", "b")
    start = in_thread(lambda: hooks.run_starting(extensions, "start", threading.Event()))
    gate.wait_reached()
    hooks.run_kill()
    assert journal.lines == ["a.start", "a.kill"]
    gate.released.set()
    assert start.finish() is None
    hooks.run_kill()
    assert journal.lines == ["a.start", "a.kill", "b.start", "b.kill"]


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt])
def test_all_others_are_stopped_and_killed_when_one_raises(
    error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    journal, hooks = Journal(), Hooks("service")

    def call(line: str, _: Any) -> None:
        journal.write(line)
        if line in ("b.stop", "b.kill"):
            raise error(line)

    extensions = bind(call, "a", "b", "c")
    hooks.run_starting(extensions, "setup", threading.Event())
    errors: list[BaseException] = []
    hooks.run_stopping(extensions, "stop", errors)
    hooks.run_kill()
    assert journal.lines[3:] == ["a.stop", "b.stop", "c.stop", "c.kill", "b.kill", "a.kill"]
    assert [str(item) for item in errors] == ["b.stop"]
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 2


def test_thread_is_known_while_it_runs_a_hook() -> None:
    hooks = Hooks("service")
    seen: list[bool] = []
    extensions = bind(lambda line, _: seen.append(hooks.run_in_current_thread()), "a")
    hooks.run_starting(extensions, "setup", threading.Event())
    seen.append(hooks.run_in_current_thread())
    hooks.run_stopping(extensions, "stop", [])
    hooks.run_kill()
    seen.append(hooks.run_in_current_thread())
    assert seen == [True, False, True, True, False]
