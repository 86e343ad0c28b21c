"""What a test leaves behind is reported by name."""

import threading
import warnings

import pytest

from tests.support.timing import TIMEOUT
from tests.testing.conftest import Service
from threadko.concurrency.threads import start_thread, thread_name
from threadko.containers import ServiceContainer
from threadko.containers.exits import kill_at_exit, spare_at_exit
from threadko.testing.leftovers import Leftovers, LeftoverWarning


def find(leftovers, **options):
    """Return the text of the report, "" without one."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        leftovers.report(leftovers.end_containers(), **options)
    assert all(each.category is LeftoverWarning for each in caught)
    assert len(caught) <= 1
    return str(caught[0].message) if caught else ""


def test_nothing_is_reported_where_nothing_is_left():
    assert find(Leftovers(), list_connections=list) == ""


def test_container_is_named_and_killed():
    before = ServiceContainer(Service, config={})
    before.start()
    try:
        leftovers = Leftovers()
        container = ServiceContainer(Service, config={})
        container.start()
        expected = "the test has left behind:\n* the container of service 'service'"
        assert find(leftovers) == expected
        container.wait()
        assert before.started
    finally:
        before.kill()


def test_container_of_another_kind_is_named_too():
    class Own:
        def __repr__(self):
            return "<own>"

        def kill(self):
            spare_at_exit(self)

    leftovers = Leftovers()
    own = Own()
    kill_at_exit(own)
    assert find(leftovers) == "the test has left behind:\n* container <own>"


@pytest.fixture
def hold():
    event = threading.Event()

    def hold():
        assert event.wait(TIMEOUT)

    hold.release = event.set
    yield hold
    event.set()


@pytest.mark.parametrize("is_ours", [True, False])
def test_thread_that_does_not_end_is_named_with_its_place(hold, is_ours):
    leftovers = Leftovers()
    if is_ours:
        thread = start_thread(hold, thread_name("service", "loop"))
    else:
        thread = threading.Thread(target=hold, name="one of the test's")
        thread.start()
    report = find(leftovers)
    hold.release()
    thread.join(TIMEOUT)
    assert f"* thread {thread.name}, at:\n" in report
    assert "in hold" in report


def test_thread_that_ends_soon_is_waited_for(hold):
    leftovers = Leftovers()
    start_thread(hold, thread_name("service", "loop"))
    hold.release()
    assert find(leftovers) == ""


def test_threads_of_others_and_of_the_whole_run_do_not_count(hold):
    leftovers = Leftovers()
    threads = [
        start_thread(hold, name)
        for name in ("a library's", "threadko-devbroker-0", "threadko-pipeline-1")
    ]
    assert find(leftovers) == ""
    hold.release()
    for thread in threads:
        thread.join(TIMEOUT)


def test_connection_is_named():
    report = find(Leftovers(), list_connections=lambda: ["threadko publisher"])
    assert report.endswith("* connection 'threadko publisher' to the broker")


def test_connection_that_is_just_being_closed_is_waited_for():
    answers = [["a"], ["a"], []]
    assert find(Leftovers(), list_connections=lambda: answers.pop(0)) == ""
