"""Methods of many objects at once."""

import contextvars
import copy
import threading

import pytest

from tests.support.timing import TIMEOUT
from threadko.utils.concurrency import SpawningProxy, SpawningSet

VARIABLE = contextvars.ContextVar("VARIABLE", default="unset")


class Item:
    def __init__(self, number, before=None, error=None):
        self.number = number
        self.before = before
        self.error = error
        self.done = threading.Event()

    def act(self, *args, **kwargs):
        if self.before is not None:
            assert self.before.done.wait(TIMEOUT)
        self.done.set()
        if self.error is not None:
            raise self.error
        return self.number, args, kwargs

    def name(self, name):
        return name

    def get_variable(self):
        return VARIABLE.get()


def test_results_come_in_the_order_of_the_items_whatever_ends_first():
    last = Item(3)
    middle = Item(2, before=last)
    first = Item(1, before=middle)
    results = SpawningProxy([first, middle, last]).act("x", y=1)
    assert results == [(number, ("x",), {"y": 1}) for number in (1, 2, 3)]


def test_items_act_at_the_same_time():
    barrier = threading.Barrier(5)
    assert len(SpawningProxy([barrier] * 5).wait(TIMEOUT)) == 5


def test_no_items_give_none():
    assert SpawningProxy([]).anything() is None


def test_argument_may_be_called_name():
    assert SpawningProxy([Item(1)]).name(name="x") == ["x"]


def test_exception_is_that_of_the_first_item_that_raised_when_all_have_ended():
    slow = Item(3)
    late_error = Item(1, before=slow, error=ValueError("first in order"))
    early_error = Item(2, error=KeyError("first in time"))
    with pytest.raises(ValueError, match="first in order"):
        SpawningProxy([late_error, early_error, slow]).act()
    assert all(item.done.is_set() for item in (late_error, early_error, slow))


def test_method_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="nowhere"):
        SpawningProxy([Item(1)]).nowhere()


def test_exit_is_raised_in_the_caller():
    with pytest.raises(SystemExit):
        SpawningProxy([Item(1, error=SystemExit(3))]).act()


def test_context_of_the_caller_is_seen():
    token = VARIABLE.set("set")
    try:
        assert SpawningProxy([Item(1), Item(2)]).get_variable() == ["set", "set"]
    finally:
        VARIABLE.reset(token)


def test_threads_that_did_start_are_joined_when_one_cannot(monkeypatch):
    items = [Item(1), Item(2)]
    begin = threading.Event()
    items[0].before = type("Before", (), {"done": begin})
    start = threading.Thread.start
    started = []

    def start_one(thread):
        if started:
            begin.set()
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_one)
    with pytest.raises(RuntimeError, match="can't start"):
        SpawningProxy(items).act()
    assert not started[0].is_alive()
    assert items[0].done.is_set()


def test_set_is_a_set_and_calls_all_of_its_members():
    items = {Item(1), Item(2)}
    members = SpawningSet(items)
    assert members == items
    assert sorted(members.all.act()) == [(1, (), {}), (2, (), {})]
    members.clear()
    assert members.all.act() is None


def test_proxy_can_be_copied():
    assert copy.copy(SpawningProxy([Item(1)])).act() == [(1, (), {})]
