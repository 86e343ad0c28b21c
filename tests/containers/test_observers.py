"""Observers."""

import logging
from typing import Any

import pytest

from threadko.containers import Observer, Observers


class Seen:
    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def on_worker_setup(self, *args: Any) -> None:
        self.calls.append(args)


def test_there_is_nobody_to_tell_at_first() -> None:
    observers = Observers()
    assert not observers.on_worker_setup
    assert not observers.on_worker_result
    assert not observers.on_worker_teardown
    assert not observers.on_death


def test_observer_is_told_of_what_it_has_a_method_for() -> None:
    observers, seen = Observers(), Seen()
    observers.add(seen)
    observers.tell(observers.on_worker_setup, "ctx")
    assert seen.calls == [("ctx",)]
    assert not observers.on_worker_result


def test_functions_are_told_when_wrapped_in_an_observer() -> None:
    observers = Observers()
    told: list[Any] = []
    observers.add(Observer(on_death=lambda *args: told.append(args)))
    observers.tell(observers.on_death, "container", None)
    assert told == [("container", None)]


def test_observer_is_told_once_when_added_twice() -> None:
    observers, seen = Observers(), Seen()
    observers.add(seen)
    observers.add(seen)
    observers.tell(observers.on_worker_setup, "ctx")
    assert len(seen.calls) == 1


def test_observer_is_told_no_more_when_removed() -> None:
    observers, seen, other = Observers(), Seen(), Seen()
    observers.add(seen)
    observers.add(other)
    observers.remove(seen)
    observers.remove(seen)
    observers.tell(observers.on_worker_setup, "ctx")
    assert (seen.calls, other.calls) == ([], [("ctx",)])


def test_what_has_no_such_method_is_refused() -> None:
    with pytest.raises(TypeError, match="no observer"):
        Observers().add(object())


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt])
def test_failure_is_logged_and_the_others_are_told(
    error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    def fail(ctx: Any) -> None:
        raise error("broken observer")

    observers, seen = Observers(), Seen()
    observers.add(Observer(on_worker_setup=fail))
    observers.add(seen)
    observers.tell(observers.on_worker_setup, "ctx")
    assert seen.calls == [("ctx",)]
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
