"""Timers: the grid by arithmetic, the rest with events."""

import itertools
import logging
import queue
import threading

import pytest

from tests.containers.dummies import Gate
from tests.support.timing import TIMEOUT
from threadko.exceptions import ConfigurationError
from threadko.extensions import DependencyProvider
from threadko.timer import Grid, Timer, timer


def ticks(grid, *times):
    return [grid.advance(now) for now in times]


def test_ticks_stand_on_a_grid_however_late_each_is_asked_for():
    grid = Grid(10, False, 100)
    assert ticks(grid, 100, 110.5, 129) == [(10, 0), (9.5, 0), (1, 0)]


def test_eager_grid_begins_at_once():
    grid = Grid(10, True, 100)
    assert ticks(grid, 100, 101, 111) == [(0, 0), (9, 0), (9, 0)]


@pytest.mark.parametrize(
    ("now", "expected", "then"),
    [
        (110, (0, 0), (10, 0)),
        (115, (0, 0), (5, 0)),  # late, and nothing is missed
        (120, (0, 1), (10, 0)),  # two are due at once: one of them is missed
        (139, (0, 2), (1, 0)),
        (1e6 + 100, (0, 99_999), (10, 0)),
    ],
)
def test_missed_ticks_are_skipped_and_one_comes_at_once(now, expected, then):
    grid = Grid(10, False, 100)
    assert grid.advance(now) == expected
    assert grid.advance(now) == then


def test_grid_of_small_steps_does_not_drift():
    grid = Grid(0.1, False, 0)
    now = 0.0
    for _ in range(100_000):
        now += grid.advance(now)[0]
    assert now == pytest.approx(10_000, abs=1e-6)


class Clock:
    """Shows what the test says, and lets the timer run one tick each time."""

    def __init__(self):
        self.times = queue.SimpleQueue()

    def __call__(self):
        return self.times.get(timeout=TIMEOUT)


@pytest.fixture
def make(container_factory):
    def make(method, *args, entrypoint=timer, **options):
        members = {"name": "ticking", "tick": entrypoint(*args, **options)(method)}
        return container_factory(type("Ticking", (), members), config={"max_workers": 2})

    return make


def test_method_is_called_again_and_again(make):
    ticked = queue.SimpleQueue()
    make(lambda self: ticked.put(1), 0.001).start()
    for _ in range(5):
        assert ticked.get(timeout=TIMEOUT)


def test_eager_timer_does_not_wait_for_its_first_interval(make):
    ticked = threading.Event()
    make(lambda self: ticked.set(), 10_000, eager=True).start()
    assert ticked.wait(TIMEOUT)


def test_timer_that_is_not_eager_waits(make):
    ticked = threading.Event()
    container = make(lambda self: ticked.set(), 10_000)
    container.start()
    container.stop()
    assert not ticked.is_set()


def test_ticks_do_not_overlap(make):
    running = threading.Semaphore(1)
    ticked = queue.SimpleQueue()

    def tick(self):
        ticked.put(running.acquire(blocking=False))
        running.release()

    make(tick, 0.0001).start()
    assert all(ticked.get(timeout=TIMEOUT) for _ in range(50))


def test_missed_ticks_are_logged_once_until_it_is_in_time_again(make, caplog):
    # beginning, then one time for each tick: in time, 1 missed, 1 missed, in time, 3 missed
    times = iter([0.0, 1.0, 3.5, 5.5, 5.9, 10.5])
    stopped = threading.Event()

    class Played(Timer):
        @staticmethod
        def clock():
            try:
                return next(times)
            except StopIteration:
                stopped.wait(TIMEOUT)
                return 100.0

    count = itertools.count()
    ticked = queue.SimpleQueue()
    container = make(lambda self: ticked.put(next(count)), 1, entrypoint=Played.decorator)
    with caplog.at_level(logging.WARNING, logger="threadko.timer"):
        container.start()
        for _ in range(5):
            ticked.get(timeout=TIMEOUT)
    container.kill()
    stopped.set()
    missed = [record.args[2] for record in caplog.records if "missed" in record.msg]
    assert missed == [1, 3]


def test_error_in_a_tick_is_logged_and_the_next_one_comes(make, caplog):
    ticked = queue.SimpleQueue()

    def tick(self):
        ticked.put(1)
        raise LookupError("of a tick")

    container = make(tick, 0.001)
    container.start()
    for _ in range(3):
        ticked.get(timeout=TIMEOUT)
    container.stop()
    assert "of a tick" in caplog.text


def test_stop_in_a_tick_waits_for_it_and_begins_no_other(make):
    gate = Gate()
    calls = []

    def tick(self):
        calls.append(1)
        gate.hold()
        calls.append(2)

    container = make(tick, 0.001)
    container.start()
    gate.wait_reached()
    stopping = threading.Thread(target=container.stop)
    stopping.start()
    assert container.stopping.wait(TIMEOUT)
    gate.released.set()
    stopping.join(TIMEOUT)
    assert calls == [1, 2]


def test_tick_that_waits_for_a_place_is_dropped_by_a_stop(container_factory):
    gate, ticked, doors_closed = Gate(), [], threading.Event()

    class Last(DependencyProvider):
        def cancel(self):
            doors_closed.set()  # entrypoints before dependencies

    class Busy:
        name = "busy"
        last = Last()

        @timer(0.001)
        def hold(self):
            gate.hold()

        @timer(0.001)
        def other(self):
            ticked.append(1)

    container = container_factory(Busy, config={"max_workers": 1})
    container.start()
    gate.wait_reached()
    before = len(ticked)
    stopping = threading.Thread(target=container.stop)
    stopping.start()
    assert doors_closed.wait(TIMEOUT)
    gate.released.set()
    stopping.join(TIMEOUT)
    assert len(ticked) == before


def test_kill_in_a_tick_lets_the_timer_go(make):
    gate = Gate()
    container = make(lambda self: gate.hold(), 0.001)
    container.start()
    gate.wait_reached()
    container.kill()
    container.wait()
    gate.released.set()


def test_worker_that_dies_in_setup_does_not_strand_the_timer(container_factory):
    attempts = queue.SimpleQueue()

    class Broken(DependencyProvider):
        def worker_setup(self, worker_ctx):
            attempts.put(1)
            raise SystemExit

    class Ticking:
        name = "ticking"
        broken = Broken()

        @timer(0.001)
        def tick(self):
            raise AssertionError("never reached")

    container_factory(Ticking).start()
    for _ in range(3):
        attempts.get(timeout=TIMEOUT)


@pytest.mark.parametrize(
    "interval",
    [0, -1, "1", None, True, float("nan"), float("inf"), 5e-324, 1e-9, 1e10, 10**400],
)
def test_interval_that_is_none_is_refused(interval):
    with pytest.raises(ConfigurationError, match="interval of a timer"):
        timer(interval)(lambda self: None)


@pytest.mark.parametrize("interval", [0.000001, 1_000_000_000])
@pytest.mark.parametrize("eager", [False, True])
def test_timer_of_any_interval_that_is_taken_runs_and_stops(make, interval, eager):
    ticked = queue.SimpleQueue()
    container = make(lambda self: ticked.put(1), interval, eager=eager)
    container.start()
    if interval < 1 or eager:
        ticked.get(timeout=TIMEOUT)
    container.stop()
    container.wait()
