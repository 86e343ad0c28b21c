"""A worker's life: the order of its hooks, and what each kind of failure leads to."""

import logging
import threading
from contextvars import ContextVar
from typing import Any

import pytest

from tests.containers.dummies import HookedDependency, HookedEntrypoint, Journal
from threadko.containers import Observer, ServiceContainer
from threadko.context import current_worker
from threadko.exceptions import WorkerKilled

ERRORS = [ValueError, SystemExit, KeyboardInterrupt]


class Bench:
    """A container with two dependencies, whose hooks a test can watch and make fail."""

    def __init__(self, expected: Any = ()) -> None:
        self.journal = Journal()
        self.failing: dict[str, BaseException] = {}
        self.doing: dict[str, Any] = {}
        self.outcomes: dict[str, tuple[Any, Any]] = {}
        bench = self

        class Service:
            name = "service"
            first = HookedDependency(bench.call, "first")
            second = HookedDependency(bench.call, "second")

            def __init__(self) -> None:
                bench.call("service", None)

            @HookedEntrypoint.decorator(bench.call, expected_exceptions=expected)
            def method(self, value: Any = None) -> Any:
                bench.call("method", self)
                return f"result of {value}"

        self.container = ServiceContainer(Service, config={})

    def call(self, line: str, given: Any) -> None:
        self.journal.write(line)
        if isinstance(given, tuple):
            _, result, exc_info = given
            self.outcomes[line] = (result, exc_info and exc_info[1])
        if line in self.doing:
            self.doing[line](given)
        if line in self.failing:
            raise self.failing[line]

    def handle_result(self, ctx: Any, result: Any, exc_info: Any) -> Any:
        self.call("handle_result", (ctx, result, exc_info))
        return result, exc_info

    def run(self, **options: Any) -> Any:
        """Run one worker in this thread; returns its context."""
        options.setdefault("handle_result", self.handle_result)
        (entrypoint,) = self.container.entrypoints
        return self.container.run_worker(entrypoint, ("x",), {}, **options)


@pytest.fixture
def bench() -> Bench:
    return Bench()


SET_UP = [
    "service",
    "first.get_dependency",
    "second.get_dependency",
    "first.worker_setup",
    "second.worker_setup",
]
END = [
    "handle_result",
    "first.worker_result",
    "second.worker_result",
    "entrypoint.settle",
    "second.worker_teardown",
    "first.worker_teardown",
]


def test_hooks_run_in_order_and_the_outcome_leaves_after_worker_result(bench: Bench) -> None:
    bench.run()
    assert bench.journal.lines == [*SET_UP, "method", *END]
    expected = ("result of x", None)
    for line in ("handle_result", "first.worker_result", "entrypoint.settle"):
        assert bench.outcomes[line] == expected


def test_dependencies_are_injected(bench: Bench) -> None:
    seen: list[Any] = []
    bench.doing["method"] = lambda service: seen.extend([service.first, service.second])
    ctx = bench.run()
    assert seen == ["injected by first", "injected by second"]
    assert isinstance(ctx.service, bench.container.service_cls)


def test_everything_runs_in_one_thread(bench: Bench) -> None:
    seen: set[int] = set()
    for line in [*SET_UP, "method", *END]:
        bench.doing[line] = lambda _: seen.add(threading.get_ident())
    bench.run()
    assert seen == {threading.get_ident()}


def test_settle_that_is_given_stands_in_for_the_entrypoints(bench: Bench) -> None:
    settled: list[Any] = []
    bench.run(settle=lambda *args: settled.append(args[1:]))
    assert settled == [("result of x", None)]
    assert "entrypoint.settle" not in bench.journal.lines


def test_handle_result_may_change_the_outcome(bench: Bench) -> None:
    bench.run(handle_result=lambda ctx, result, exc_info: ("changed", exc_info))
    assert bench.outcomes["first.worker_result"] == ("changed", None)
    assert bench.outcomes["entrypoint.settle"] == ("changed", None)


def test_outcome_is_the_methods_when_there_is_no_handle_result(bench: Bench) -> None:
    bench.run(handle_result=None)
    assert bench.outcomes["entrypoint.settle"] == ("result of x", None)


#: By what fails: what has run before the outcome is made, and which dependencies are set up.
BEFORE_OUTCOME = {
    "service": (SET_UP[:1], []),
    "first.get_dependency": (SET_UP[:2], []),
    "second.get_dependency": (SET_UP[:3], []),
    "first.worker_setup": (SET_UP[:4], []),
    "second.worker_setup": (SET_UP[:5], ["first"]),
    "method": ([*SET_UP, "method"], ["first", "second"]),
}


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("failing", BEFORE_OUTCOME)
def test_failure_before_the_outcome_becomes_the_outcome(
    bench: Bench, failing: str, error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    bench.failing[failing] = raised = error("on purpose")
    ctx = bench.run()
    before, set_up = BEFORE_OUTCOME[failing]
    assert bench.journal.lines == [
        *before,
        "handle_result",
        *(f"{name}.worker_result" for name in set_up),
        "entrypoint.settle",
        *(f"{name}.worker_teardown" for name in reversed(set_up)),
    ]
    assert bench.outcomes["handle_result"] == (None, raised)
    assert bench.outcomes["entrypoint.settle"] == (None, raised)
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.exc_info is not None
    assert ctx.call_id in record.getMessage()
    assert ctx.call_id.startswith("service.method.")


@pytest.mark.parametrize("error", ERRORS)
def test_failing_handle_result_becomes_the_outcome_and_is_asked_for_it(
    bench: Bench, error: type[BaseException]
) -> None:
    raised = error("on purpose")

    def fail_once(_: Any) -> None:
        bench.failing.pop("handle_result", None)
        if bench.journal.lines.count("handle_result") == 1:
            bench.failing["handle_result"] = raised

    bench.doing["handle_result"] = fail_once
    bench.run()
    assert bench.journal.lines == [*SET_UP, "method", "handle_result", *END]
    assert bench.outcomes["handle_result"] == (None, raised)
    assert bench.outcomes["entrypoint.settle"] == (None, raised)


@pytest.mark.parametrize("error", ERRORS)
def test_outcome_leaves_as_an_error_when_handle_result_always_fails(
    bench: Bench, error: type[BaseException]
) -> None:
    bench.failing["handle_result"] = raised = error("on purpose")
    bench.run()
    assert bench.journal.lines == [*SET_UP, "method", "handle_result", *END]
    assert bench.outcomes["entrypoint.settle"] == (None, raised)


@pytest.mark.parametrize("error", ERRORS)
def test_failing_worker_result_turns_the_outcome_into_an_error(
    bench: Bench, error: type[BaseException]
) -> None:
    bench.failing["first.worker_result"] = raised = error("commit failed")
    bench.run()
    assert bench.journal.lines == [
        *SET_UP,
        "method",
        *END[:3],
        "handle_result",
        *END[3:],
    ]
    assert bench.outcomes["first.worker_result"] == ("result of x", None)
    assert bench.outcomes["second.worker_result"] == (None, raised)
    assert bench.outcomes["handle_result"] == (None, raised)
    assert bench.outcomes["entrypoint.settle"] == (None, raised)


def test_first_error_stays_the_outcome_when_worker_result_fails_too(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.failing["method"] = raised = ValueError("method")
    bench.failing["first.worker_result"] = ValueError("rollback")
    bench.failing["second.worker_result"] = ValueError("rollback")
    bench.run()
    assert bench.journal.lines == [*SET_UP, "method", *END]
    assert bench.outcomes["entrypoint.settle"] == (None, raised)
    assert "worker_result of HookedDependency 'second'" in caplog.text


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize(
    "failing", ["entrypoint.settle", "second.worker_teardown", "first.worker_teardown"]
)
def test_failure_after_the_outcome_is_logged_and_the_rest_still_runs(
    bench: Bench, failing: str, error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    bench.failing[failing] = error("on purpose")
    bench.run()
    assert bench.journal.lines == [*SET_UP, "method", *END]
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    name = failing.partition(".")[0]
    assert ("settling" if name == "entrypoint" else repr(name)) in record.getMessage()


@pytest.mark.parametrize("failing", [*BEFORE_OUTCOME, *END])
def test_next_worker_runs_when_one_has_failed(bench: Bench, failing: str) -> None:
    bench.failing[failing] = SystemExit("on purpose")
    bench.run()
    bench.failing.clear()
    bench.journal.lines.clear()
    bench.run()
    assert bench.journal.lines == [*SET_UP, "method", *END]


def test_expected_failure_is_a_warning_without_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bench = Bench(expected=(KeyError, ValueError))
    bench.failing["method"] = ValueError("no such order")
    ctx = bench.run()
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.exc_info is None
    assert ctx.call_id in record.getMessage()
    assert "ValueError: no such order" in record.getMessage()


@pytest.mark.parametrize("point", [*SET_UP, "method", *END])
def test_abandoned_worker_does_nothing_more(bench: Bench, point: str) -> None:
    bench.doing[point] = lambda _: current_worker.get().abandon()
    bench.run()
    everything = [*SET_UP, "method", *END]
    # The hooks before the method are one step, which is not interrupted in the middle.
    last = "second.worker_setup" if point in SET_UP else point
    assert bench.journal.lines == everything[: everything.index(last) + 1]


@pytest.mark.parametrize("point", [*SET_UP, "method", *END])
def test_worker_ends_without_outcome_when_it_is_killed(
    bench: Bench, point: str, caplog: pytest.LogCaptureFixture
) -> None:
    bench.failing[point] = WorkerKilled()
    ctx = bench.run()
    everything = [*SET_UP, "method", *END]
    assert bench.journal.lines == everything[: everything.index(point) + 1]
    assert ctx.abandoned
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_abandoned_worker_is_no_error_in_the_log(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    def abandon(service: Any) -> None:
        current_worker.get().abandon()
        raise WorkerKilled

    bench.doing["method"] = abandon
    bench.run()
    assert caplog.records == []


variable: ContextVar[str] = ContextVar("variable", default="untouched")


def test_worker_has_a_context_of_its_own(bench: Bench) -> None:
    seen: list[Any] = []

    def look(service: Any) -> None:
        seen.append((variable.get(), current_worker.get().call_id))
        variable.set("left behind")

    variable.set("set by the test")
    bench.doing["method"] = look
    first, second = bench.run(), bench.run()
    assert seen == [("untouched", first.call_id), ("untouched", second.call_id)]
    assert current_worker.get() is None
    assert variable.get() == "set by the test"


def test_observers_are_told_in_the_workers_life(bench: Bench) -> None:
    def note(line: str) -> Any:
        return lambda ctx, *outcome: bench.journal.write(f"observer {line} {outcome}")

    bench.container.observers.add(
        Observer(
            on_worker_setup=note("setup"),
            on_worker_result=note("result"),
            on_worker_teardown=note("teardown"),
        )
    )
    bench.run()
    assert bench.journal.lines == [
        *SET_UP,
        "observer setup ()",
        "method",
        *END[:3],
        "observer result ('result of x', None)",
        *END[3:],
        "observer teardown ('result of x', None)",
    ]


def test_failing_observer_does_not_disturb_the_worker(bench: Bench) -> None:
    def fail(*args: Any) -> None:
        raise SystemExit("observer")

    bench.container.observers.add(
        Observer(on_worker_setup=fail, on_worker_result=fail, on_worker_teardown=fail)
    )
    bench.run()
    assert bench.journal.lines == [*SET_UP, "method", *END]
    assert bench.outcomes["entrypoint.settle"] == ("result of x", None)
