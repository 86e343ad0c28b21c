"""The threads that serve requests."""

import threading
from queue import SimpleQueue

import pytest

from tests.support.timing import TIMEOUT
from threadko.web.threads import RequestThreads


@pytest.fixture
def rig():
    made = Rig()
    yield made
    made.gate.set()
    made.threads.stop()


class Rig:
    """Threads whose items wait at a gate."""

    def __init__(self):
        self.gate = threading.Event()
        self.begun = SimpleQueue()
        self.done = SimpleQueue()
        self.threads = RequestThreads("threadko-test", self.serve)

    def serve(self, item):
        self.begun.put(item)
        assert self.gate.wait(TIMEOUT)
        self.done.put(item)
        if item == "bad":
            raise SystemExit(5)


def take(queue, count):
    return sorted(queue.get(timeout=TIMEOUT) for _ in range(count))


def test_as_many_threads_as_items_up_to_the_limit(rig):
    rig.threads.set_limit(3)
    for item in range(5):
        rig.threads.put(item)
    assert take(rig.begun, 3) == [0, 1, 2]
    assert rig.threads.alive == 3
    assert rig.begun.empty()
    rig.gate.set()
    assert take(rig.done, 5) == [0, 1, 2, 3, 4]
    assert rig.threads.alive == 3


def test_thread_that_is_free_is_taken_before_one_is_made(rig):
    rig.threads.set_limit(100)
    rig.gate.set()
    for item in range(200):
        rig.threads.put(item)
        take(rig.done, 1)
    assert rig.threads.alive <= 3


def test_item_that_fails_costs_no_thread(rig, caplog):
    rig.gate.set()
    for _ in range(20):
        rig.threads.put("bad")
    assert take(rig.done, 20) == ["bad"] * 20
    rig.threads.put("good")
    assert take(rig.done, 1) == ["good"]
    assert "failed outside of its own error handling" in caplog.text


def test_no_item_is_lost_while_many_put(rig):
    rig.threads.set_limit(4)
    rig.gate.set()
    barrier = threading.Barrier(8)

    def put(first):
        barrier.wait(TIMEOUT)
        for number in range(500):
            rig.threads.put(first * 500 + number)

    players = [threading.Thread(target=put, args=(first,)) for first in range(8)]
    for player in players:
        player.start()
    for player in players:
        player.join(TIMEOUT)
    assert take(rig.done, 4000) == list(range(4000))
    assert rig.threads.alive <= 4


def test_stop_lets_threads_leave_after_their_item(rig):
    rig.threads.set_limit(2)
    rig.threads.put(1)
    rig.threads.put(2)
    take(rig.begun, 2)
    rig.threads.stop()
    rig.gate.set()
    assert take(rig.done, 2) == [1, 2]
    for thread in threading.enumerate():
        if thread.name.startswith("threadko-test"):
            thread.join(TIMEOUT)
    assert rig.threads.alive == 0


def test_join_waits_for_what_has_begun_and_not_for_those_who_stepped_aside(rig):
    rig.threads.put(1)
    take(rig.begun, 1)
    rig.threads.step_aside()
    rig.threads.stop()
    rig.threads.join(TIMEOUT)
    assert rig.threads.alive == 1
    rig.threads.step_back()
    rig.threads.join(0)
    assert rig.threads.alive == 1
    rig.gate.set()
    rig.threads.join(TIMEOUT)
    assert rig.threads.alive == 0


def test_system_without_threads_leaves_it_to_those_that_are_there(rig, monkeypatch):
    rig.threads.set_limit(5)
    rig.threads.put(1)
    take(rig.begun, 1)

    def refuse(target, name):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("threadko.web.threads.start_thread", refuse)
    rig.threads.put(2)
    rig.gate.set()
    assert take(rig.done, 2) == [1, 2]


def test_thread_that_steps_aside_is_replaced_until_it_steps_back(rig):
    rig.threads.set_limit(1)
    rig.threads.put(1)
    rig.threads.put(2)
    take(rig.begun, 1)
    assert rig.threads.is_short
    rig.threads.step_aside()
    assert take(rig.begun, 1) == [2]
    assert not rig.threads.is_short
    assert rig.threads.alive == 2
    rig.threads.step_aside()  # for nothing that waits no thread is made
    rig.threads.put(3)
    assert take(rig.begun, 1) == [3]
    assert rig.threads.alive == 3
    rig.threads.step_back()
    rig.threads.step_back()
    rig.gate.set()
    take(rig.done, 3)
    for item in range(4, 20):  # superfluous threads leave after their next item
        rig.threads.put(item)
        take(rig.done, 1)
    while rig.threads.alive > 1:
        rig.threads.put("more")
        take(rig.done, 1)


def test_stepping_aside_where_no_more_threads_can_be_made(rig, monkeypatch):
    rig.threads.set_limit(1)
    rig.threads.put(1)
    rig.threads.put(2)
    take(rig.begun, 1)

    def refuse(target, name):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("threadko.web.threads.start_thread", refuse)
    rig.threads.step_aside()
    assert rig.threads.alive == 1
    rig.threads.step_back()
    rig.gate.set()
    assert take(rig.done, 2) == [1, 2]
