"""The heap of timers: order, cancelling, and what it holds on to."""

import gc

import pytest

from threadko.concurrency.timers import Timer, TimerHeap


def test_empty_heap_is_never_due() -> None:
    heap = TimerHeap()
    heap.run_due(1e12)
    assert (len(heap), heap.next_at) == (0, None)


def test_timers_run_in_the_order_of_their_time() -> None:
    heap = TimerHeap()
    ran: list[float] = []
    for at in (3.0, 1.0, 2.0):
        heap.add(at, lambda at=at: ran.append(at))
    assert heap.next_at == 1.0
    heap.run_due(10.0)
    assert ran == [1.0, 2.0, 3.0]
    assert (len(heap), heap.next_at) == (0, None)


def test_timer_runs_at_its_time_and_not_before() -> None:
    heap = TimerHeap()
    ran: list[float] = []
    heap.add(1.0, lambda: ran.append(1.0))
    heap.add(2.0, lambda: ran.append(2.0))
    heap.run_due(0.999)
    assert ran == []
    heap.run_due(1.0)
    assert (ran, heap.next_at) == ([1.0], 2.0)


def test_cancelled_timer_never_runs() -> None:
    heap = TimerHeap()
    ran: list[str] = []
    first = heap.add(1.0, lambda: ran.append("first"))
    heap.add(2.0, lambda: ran.append("second"))
    heap.cancel(first)
    assert (len(heap), heap.next_at) == (1, 2.0)
    heap.run_due(5.0)
    assert ran == ["second"]


def test_cancelling_twice_or_too_late_changes_nothing() -> None:
    heap = TimerHeap()
    cancelled = heap.add(1.0, int)
    done = heap.add(2.0, int)
    heap.add(3.0, int)
    heap.cancel(cancelled)
    heap.cancel(cancelled)
    heap.run_due(2.0)
    heap.cancel(done)
    assert (len(heap), heap.next_at) == (1, 3.0)


def test_timer_may_cancel_another_that_is_due_with_it() -> None:
    heap = TimerHeap()
    ran: list[str] = []
    heap.add(1.0, lambda: heap.cancel(second))
    second = heap.add(2.0, lambda: ran.append("second"))
    heap.run_due(5.0)
    assert (ran, len(heap)) == ([], 0)


def test_timer_may_add_another_that_is_due_already() -> None:
    heap = TimerHeap()
    ran: list[str] = []
    heap.add(1.0, lambda: ran.append("first") or heap.add(0.5, lambda: ran.append("second")))
    heap.run_due(1.0)
    assert ran == ["first", "second"]


def test_timer_that_fails_leaves_the_others_due() -> None:
    heap = TimerHeap()
    ran: list[str] = []
    heap.add(1.0, lambda: {}["missing"])
    heap.add(2.0, lambda: ran.append("second"))
    with pytest.raises(KeyError):
        heap.run_due(5.0)
    assert heap.next_at == 2.0
    heap.run_due(5.0)
    assert ran == ["second"]


def test_callback_is_let_go_when_its_timer_is_cancelled_or_has_run() -> None:
    heap = TimerHeap()
    cancelled, done = heap.add(1.0, int), heap.add(2.0, int)
    heap.cancel(cancelled)
    heap.run_due(2.0)
    assert (cancelled.callback, done.callback) == (None, None)


def test_right_timers_run_when_most_of_many_are_cancelled() -> None:
    heap = TimerHeap()
    ran: list[int] = []
    timers = [
        heap.add(float(number % 97), lambda number=number: ran.append(number))
        for number in range(4000)
    ]
    for number, timer in enumerate(timers):
        if number % 10:
            heap.cancel(timer)
    assert len(heap) == 400
    heap.run_due(97.0)
    assert sorted(ran) == list(range(0, 4000, 10))
    assert [number % 97 for number in ran] == sorted(number % 97 for number in ran)
    assert (len(heap), heap.next_at) == (0, None)


def test_cancelled_timers_do_not_pile_up_behind_one_that_waits() -> None:
    heap = TimerHeap()
    heap.add(0.0, int)
    before = count_timers()
    for number in range(20_000):
        heap.cancel(heap.add(1.0 + number, int))
    assert len(heap) == 1
    assert count_timers() - before < 2000


def count_timers() -> int:
    """How many timers are kept alive by anybody, cancelled ones too."""
    return sum(type(each) is Timer for each in gc.get_objects())
