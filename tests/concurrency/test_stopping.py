"""The stop event and the callbacks of those who wait elsewhere."""

import threading

from tests.support.timing import TIMEOUT
from threadko.concurrency.stopping import StopEvent


def test_callback_runs_when_the_event_is_set_inside_the_block():
    event, woken = StopEvent(), threading.Event()
    with event.calling(woken.set):
        assert not woken.is_set()
        event.set()
        assert woken.is_set()
    assert event.is_set()


def test_callback_runs_at_once_if_the_event_was_set_before():
    event, woken = StopEvent(), threading.Event()
    event.set()
    with event.calling(woken.set):
        assert woken.is_set()


def test_callback_does_not_run_after_the_block():
    event, woken = StopEvent(), threading.Event()
    with event.calling(woken.set):
        pass
    event.set()
    assert not woken.is_set()


def test_callback_is_forgotten_when_the_block_raises():
    event, woken = StopEvent(), threading.Event()
    try:
        with event.calling(woken.set):
            raise ValueError
    except ValueError:
        pass
    event.set()
    assert not woken.is_set()


def test_no_set_is_missed_by_a_block_that_begins_meanwhile():
    for _ in range(200):
        event, woken, both = StopEvent(), threading.Event(), threading.Barrier(2)

        def set_it(event=event, both=both):
            both.wait(TIMEOUT)
            event.set()

        thread = threading.Thread(target=set_it)
        thread.start()
        both.wait(TIMEOUT)
        with event.calling(woken.set):
            assert woken.wait(TIMEOUT)
        thread.join(TIMEOUT)


def test_a_set_event_still_is_an_event():
    event = StopEvent()
    assert not event.wait(0)
    event.set()
    assert event.wait(0)
    event.clear()
    assert not event.is_set()


def test_callback_that_fails_is_logged_and_does_not_keep_the_others_waiting(caplog):
    event, woken = StopEvent(), threading.Event()

    def fail():
        raise ValueError("boom")

    with event.calling(fail), event.calling(woken.set):
        event.set()
        assert woken.is_set()
    assert "boom" in caplog.text
