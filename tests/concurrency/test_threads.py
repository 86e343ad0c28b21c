"""Named daemon threads and the handle of managed ones."""

import gc
import logging
import subprocess
import sys
import threading
import traceback

import pytest

from tests.support.timing import TIMEOUT
from threadko.concurrency.threads import (
    ManagedThread,
    current_frames,
    format_stack,
    run_in_thread,
    start_thread,
    thread_name,
)
from threadko.exceptions import WorkerKilled

# The garbage has a destructor that takes a lock of the interpreter's, and the collector is to run
# at one of the moments in which the stacks are looked at.
LOOK_WHILE_COLLECTING = """
import gc, threading
from threadko.concurrency.threads import current_frames

for ahead in range(1, 30):
    started, leave = threading.Barrier(11), threading.Event()
    def wait():
        started.wait()
        leave.wait()
    threads = [threading.Thread(target=wait, daemon=True) for _ in range(10)]
    for thread in threads:
        thread.start()
    started.wait()
    gc.disable()
    gc.collect()
    garbage = threading.local()
    garbage.cycle = [garbage]
    del garbage
    gc.set_threshold(gc.get_count()[0] + ahead)
    gc.enable()
    assert {thread.ident for thread in threads} < set(current_frames())
    assert gc.isenabled()
    leave.set()
    for thread in threads:
        thread.join()
"""


class Boom(BaseException):
    """Not an Exception: whatever leaves a managed thread counts."""


def fail() -> None:
    raise Boom("no")


def test_names_tell_service_and_role_and_never_repeat() -> None:
    first, second = thread_name("shop", "worker"), thread_name("shop", "worker")
    assert first.startswith("threadko-shop-worker-")
    assert first != second


def test_a_started_thread_is_a_named_daemon() -> None:
    seen: list[threading.Thread] = []
    thread = start_thread(lambda: seen.append(threading.current_thread()), "threadko-a-b-1")
    thread.join(TIMEOUT)
    assert seen == [thread]
    assert (thread.daemon, thread.name) == (True, "threadko-a-b-1")


def test_wait_returns_when_the_function_has_returned() -> None:
    ran = threading.Event()
    thread = ManagedThread(ran.set, "threadko-a-b-1")
    thread.start()
    thread.wait(TIMEOUT)
    assert ran.is_set()
    assert not thread.is_alive()
    assert repr(thread) == "<ManagedThread threadko-a-b-1 not alive>"


def test_the_thread_is_a_named_daemon() -> None:
    seen: list[threading.Thread] = []
    thread = ManagedThread(lambda: seen.append(threading.current_thread()), "threadko-a-b-1")
    thread.start()
    thread.wait(TIMEOUT)
    assert (seen[0].name, seen[0].daemon) == ("threadko-a-b-1", True)


def test_wait_raises_a_timeout_error_when_the_thread_still_runs() -> None:
    thread = ManagedThread(lambda: thread.stopping.wait(TIMEOUT), "threadko-a-b-1")
    thread.start()
    with pytest.raises(TimeoutError, match="threadko-a-b-1"):
        thread.wait(0)
    assert thread.is_alive()
    assert repr(thread) == "<ManagedThread threadko-a-b-1 alive>"
    thread.kill()
    thread.wait(TIMEOUT)


def test_kill_sets_stopping_and_may_be_called_twice() -> None:
    thread = ManagedThread(lambda: None, "threadko-a-b-1")
    thread.kill()
    thread.kill()
    assert thread.stopping.is_set()


def test_wait_raises_what_left_the_function_the_same_way_each_time() -> None:
    errors: list[BaseException] = []
    thread = ManagedThread(fail, "threadko-a-b-1", errors.append)
    thread.start()
    depths = []
    for _ in range(3):
        with pytest.raises(Boom) as caught:
            thread.wait(TIMEOUT)
        assert caught.value is errors[0]
        depths.append(len(traceback.extract_tb(caught.value.__traceback__)))
    assert len(set(depths)) == 1


def test_an_error_is_handed_on_in_the_thread_itself_before_wait_returns() -> None:
    names: list[str] = []
    thread = ManagedThread(
        fail, "threadko-a-b-1", lambda exc: names.append(threading.current_thread().name)
    )
    thread.start()
    with pytest.raises(Boom):
        thread.wait(TIMEOUT)
    assert names == ["threadko-a-b-1"]


def test_an_error_is_logged_when_nobody_takes_it(caplog: pytest.LogCaptureFixture) -> None:
    thread = ManagedThread(fail, "threadko-a-b-1")
    thread.start()
    with pytest.raises(Boom):
        thread.wait(TIMEOUT)
    record = caplog.records[0]
    assert record.levelno == logging.ERROR
    assert record.exc_info is not None
    assert record.exc_info[0] is Boom


def test_a_failing_report_is_logged_and_the_first_error_stays(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def report(exc: BaseException) -> None:
        raise ValueError("report failed")

    thread = ManagedThread(fail, "threadko-a-b-1", report)
    thread.start()
    with pytest.raises(Boom):
        thread.wait(TIMEOUT)
    assert "report failed" in caplog.text


def test_worker_killed_is_no_error() -> None:
    def leave() -> None:
        raise WorkerKilled

    errors: list[BaseException] = []
    thread = ManagedThread(leave, "threadko-a-b-1", errors.append)
    thread.start()
    thread.wait(TIMEOUT)
    assert errors == []


def test_a_thread_cannot_wait_for_itself() -> None:
    thread = ManagedThread(lambda: thread.wait(TIMEOUT), "threadko-a-b-1", lambda exc: None)
    thread.start()
    with pytest.raises(RuntimeError, match="its own end"):
        thread.wait(TIMEOUT)


def test_many_waiters_all_get_the_error() -> None:
    waiters = 8
    go = threading.Event()
    barrier = threading.Barrier(waiters + 1)
    caught: list[BaseException] = []

    def run() -> None:
        go.wait(TIMEOUT)
        fail()

    thread = ManagedThread(run, "threadko-a-b-1", lambda exc: None)
    thread.start()

    def wait() -> None:
        barrier.wait(TIMEOUT)
        try:
            thread.wait(TIMEOUT)
        except Boom as exc:
            caught.append(exc)

    threads = [start_thread(wait, f"waiter-{n}") for n in range(waiters)]
    barrier.wait(TIMEOUT)
    go.set()
    for waiter in threads:
        waiter.join(TIMEOUT)
    assert len(caught) == waiters


def test_stack_of_a_thread_shows_where_it_is() -> None:
    reached, released = threading.Event(), threading.Event()

    def wait_here() -> None:
        reached.set()
        released.wait(TIMEOUT)

    thread = start_thread(wait_here, "threadko-test-stack-1")
    assert reached.wait(TIMEOUT)
    assert "in wait_here" in format_stack(thread.ident)
    released.set()
    thread.join(TIMEOUT)
    assert format_stack(thread.ident) == format_stack(None) == ""


def test_work_is_done_in_a_thread_of_its_own() -> None:
    seen: list[threading.Thread] = []
    thread = run_in_thread(lambda: seen.append(threading.current_thread()), "threadko-test-run-1")
    assert thread is not None
    thread.join(TIMEOUT)
    assert seen == [thread]
    assert thread.daemon


def test_work_is_done_even_where_no_thread_can_be_started() -> None:
    program = """
import atexit, threading
from threadko.concurrency.threads import run_in_thread

def work():
    print("done", flush=True)

def at_exit():
    thread = run_in_thread(work, "work")
    if thread is not None:
        thread.join()

atexit.register(at_exit)
"""
    command = [sys.executable, "-c", program]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=True)
    assert ended.stdout == "done\n"


def test_process_goes_on_when_the_collector_wants_to_run_while_stacks_are_looked_at() -> None:
    command = [sys.executable, "-c", LOOK_WHILE_COLLECTING]
    subprocess.run(command, check=True, timeout=TIMEOUT)


def test_collector_that_was_off_stays_off() -> None:
    gc.disable()
    try:
        assert threading.get_ident() in current_frames()
        assert not gc.isenabled()
    finally:
        gc.enable()
