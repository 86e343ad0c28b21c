"""The measured loops themselves: what they count, and that they leave nothing unanswered."""

from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from tests.benchmarks.workload import Spinner, pipelined, sequential
from tests.support.timing import TIMEOUT


def answered() -> "Future[None]":
    future: Future[None] = Future()
    future.set_result(None)
    return future


def test_every_call_is_counted_when_they_come_one_after_the_other() -> None:
    made: list[None] = []

    counted = sequential(lambda: made.append(None), 0.01)

    assert counted["calls"] == len(made) > 0
    assert counted["elapsed"] >= 0.01


def test_every_begun_call_is_awaited_and_counted_when_the_time_is_up() -> None:
    begun: list[Future[None]] = []

    def begin() -> "Future[None]":
        begun.append(answered())
        return begun[-1]

    counted = pipelined(begin, 0.01, 7)

    assert counted["calls"] == len(begun) >= 7


@pytest.mark.parametrize("window", [1, 5])
def test_the_window_is_full_and_never_exceeded_when_calls_are_in_flight(window: int) -> None:
    waiting = 0
    highest = 0

    class Call:
        def __init__(self) -> None:
            nonlocal waiting, highest
            waiting += 1
            highest = max(highest, waiting)

        def result(self) -> None:
            nonlocal waiting
            waiting -= 1

    pipelined(Call, 0.01, window)

    assert highest == window
    assert waiting == 0


def test_an_error_of_a_call_reaches_the_caller_when_it_is_awaited() -> None:
    failed: Future[None] = Future()
    failed.set_exception(KeyError("gone"))

    with pytest.raises(KeyError, match="gone"):
        pipelined(lambda: failed, 0.01, 3)


def test_spinning_ends_when_its_time_is_up() -> None:
    assert Spinner().spin(0.1) > 0


def test_spinning_ends_when_it_is_released() -> None:
    spinner = Spinner()
    with ThreadPoolExecutor(1) as pool:
        spinning = pool.submit(spinner.spin, TIMEOUT * 10)
        spinner.release()

        assert spinning.result(TIMEOUT) >= 0


def test_spinning_goes_on_when_only_an_earlier_one_was_released() -> None:
    spinner = Spinner()
    spinner.release()
    spinner.spin(TIMEOUT)

    assert spinner.spin(0.1) > 0
