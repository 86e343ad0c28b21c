"""Managed threads."""

import threading
from typing import Any

import pytest

from tests.containers.dummies import Gate, in_thread
from tests.support.timing import TIMEOUT
from threadko.concurrency.deadline import Deadline
from threadko.containers.managed import ManagedThreads


def make() -> tuple[ManagedThreads, list[BaseException]]:
    errors: list[BaseException] = []
    return ManagedThreads("service", errors.append), errors


def spawn(threads: ManagedThreads, fn: Any, identifier: str | None = None) -> Any:
    handle = threads.spawn(fn, identifier)
    assert handle is not None
    return handle


def test_function_runs_in_a_named_daemon_thread() -> None:
    threads, _ = make()
    seen: list[threading.Thread] = []
    spawn(threads, lambda: seen.append(threading.current_thread()), "ticker").wait(TIMEOUT)
    assert seen[0].name.startswith("threadko-service-ticker-")
    assert seen[0].daemon


@pytest.mark.parametrize(("with_name", "role"), [(True, "tick"), (False, "<unknown>")])
def test_thread_is_named_after_its_function_when_no_name_is_given(
    with_name: bool, role: str
) -> None:
    class Callable:
        def __call__(self) -> None: ...

    def tick() -> None: ...

    threads, _ = make()
    handle = spawn(threads, tick if with_name else Callable())
    handle.wait(TIMEOUT)
    assert handle.name.startswith(f"threadko-service-{role}-")


def test_error_is_reported() -> None:
    threads, errors = make()

    def fail() -> None:
        raise ValueError("tick")

    with pytest.raises(ValueError, match="tick"):
        spawn(threads, fail).wait(TIMEOUT)
    assert [str(error) for error in errors] == ["tick"]


def test_own_threads_are_known_while_they_run() -> None:
    threads, _ = make()
    seen: list[bool] = []
    spawn(threads, lambda: seen.append(threads.owns_current())).wait(TIMEOUT)
    assert seen == [True]
    assert not threads.owns_current()


def test_no_thread_is_spawned_when_closed() -> None:
    threads, _ = make()
    threads.close()
    assert threads.spawn(lambda: None, None) is None


def test_threads_are_asked_to_end_and_joined() -> None:
    threads, _ = make()
    started = threading.Event()
    holder: list[Any] = []

    def loop() -> None:
        started.wait(TIMEOUT)
        holder[0].stopping.wait(TIMEOUT)

    holder.append(spawn(threads, loop))
    started.set()
    threads.close()
    threads.join(Deadline(TIMEOUT))
    holder[0].wait(TIMEOUT)


def test_thread_that_does_not_listen_is_named_in_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    threads, _ = make()
    gate = Gate()
    handle = spawn(threads, gate.hold, "deaf")
    gate.wait_reached()
    threads.close()
    threads.join(Deadline(0))
    assert handle.name in caplog.text
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    gate.released.set()
    handle.wait(TIMEOUT)


def test_thread_does_not_wait_for_itself() -> None:
    threads, errors = make()
    spawn(threads, lambda: threads.join(Deadline(TIMEOUT))).wait(TIMEOUT)
    assert errors == []


def test_joining_goes_on_when_a_thread_fails_meanwhile() -> None:
    threads, errors = make()
    gate = Gate()

    def fail() -> None:
        gate.hold()
        raise SystemExit("tick")

    handle = spawn(threads, fail)
    gate.wait_reached()
    joining = in_thread(lambda: threads.join(Deadline(TIMEOUT)))
    gate.released.set()
    assert joining.finish() is None
    with pytest.raises(SystemExit):
        handle.wait(TIMEOUT)
    assert [type(error) for error in errors] == [SystemExit]
