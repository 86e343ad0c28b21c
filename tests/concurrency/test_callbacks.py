"""Done-callbacks run on a thread of their own, one after the other, whatever they do."""

import asyncio
import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future, as_completed

import pytest

from tests.support.timing import TIMEOUT
from threadko.concurrency.callbacks import CallbackFuture


class Seen:
    """Waits for callbacks and remembers on which thread each came."""

    def __init__(self, count: int = 1) -> None:
        self.futures: list[Future[object]] = []
        self.threads: list[threading.Thread] = []
        self._left = threading.Semaphore(0)
        self._count = count

    def __call__(self, future: "Future[object]") -> None:
        self.futures.append(future)
        self.threads.append(threading.current_thread())
        self._left.release()

    def wait(self) -> None:
        for _ in range(self._count):
            assert self._left.acquire(timeout=TIMEOUT)


def test_callback_runs_neither_where_the_future_is_resolved_nor_where_it_is_added() -> None:
    future: CallbackFuture[object] = CallbackFuture()
    seen = Seen(2)
    future.add_done_callback(seen)
    future.set_result(1)
    future.add_done_callback(seen)  # done already
    seen.wait()
    assert seen.futures == [future, future]
    for thread in seen.threads:
        assert thread is not threading.current_thread()
        assert thread.daemon
        assert thread.name.startswith("threadko-")


def test_resolving_does_not_wait_for_a_callback_that_blocks() -> None:
    future: CallbackFuture[object] = CallbackFuture()
    release, ended = threading.Event(), threading.Event()

    def block(_: object) -> None:
        assert release.wait(TIMEOUT)
        ended.set()

    future.add_done_callback(block)
    future.set_result(1)
    assert not ended.is_set()
    assert future.result(0) == 1
    release.set()
    assert ended.wait(TIMEOUT)


def test_callbacks_run_one_after_the_other_in_the_order_of_resolving() -> None:
    order: list[int] = []
    running = threading.Lock()
    done = threading.Event()
    futures: list[CallbackFuture[int]] = [CallbackFuture() for _ in range(200)]

    def note(future: "Future[int]") -> None:
        assert running.acquire(blocking=False)
        order.append(future.result(0))
        running.release()
        if len(order) == len(futures):
            done.set()

    for future in futures:
        future.add_done_callback(note)
    for number, future in enumerate(futures):
        future.set_result(number)
    assert done.wait(TIMEOUT)
    assert order == list(range(200))


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt])
def test_callback_that_raises_is_logged_and_does_not_stop_the_next(
    error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    future: CallbackFuture[object] = CallbackFuture()
    seen = Seen()

    def fail(_: object) -> None:
        raise error("boom")

    future.add_done_callback(fail)
    future.add_done_callback(seen)
    future.set_result(1)
    seen.wait()
    (record,) = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert record.exc_info is not None
    assert record.exc_info[0] is error


def test_callback_runs_for_errors_and_cancelled_futures_too() -> None:
    failed: CallbackFuture[object] = CallbackFuture()
    cancelled: CallbackFuture[object] = CallbackFuture()
    seen = Seen(2)
    failed.add_done_callback(seen)
    cancelled.add_done_callback(seen)
    failed.set_exception(ValueError("boom"))
    assert cancelled.cancel()
    seen.wait()
    assert seen.futures == [failed, cancelled]


def test_thread_ends_when_no_callback_is_left_and_the_next_one_starts_another() -> None:
    threads = []
    for _ in range(2):
        future: CallbackFuture[object] = CallbackFuture()
        seen = Seen()
        future.add_done_callback(seen)
        future.set_result(1)
        seen.wait()
        (thread,) = seen.threads
        thread.join(TIMEOUT)
        assert not thread.is_alive()
        threads.append(thread)
    assert threads[0] is not threads[1]


def test_no_callback_is_lost_while_the_thread_is_about_to_end() -> None:
    # Each of the two resolves its next future when the last callback has run, which is when the
    # thread looks whether it may end.
    def play() -> None:
        for _ in range(500):
            future: CallbackFuture[object] = CallbackFuture()
            done = threading.Event()
            future.add_done_callback(lambda _, done=done: done.set())
            future.set_result(1)
            assert done.wait(TIMEOUT)
        finished.release()

    finished = threading.Semaphore(0)
    players = [threading.Thread(target=play) for _ in range(2)]
    for player in players:
        player.start()
    for player in players:
        player.join(TIMEOUT)
    assert finished.acquire(timeout=0)
    assert finished.acquire(timeout=0)


def test_standard_helpers_work_with_it() -> None:
    future: CallbackFuture[int] = CallbackFuture()
    threading.Thread(target=future.set_result, args=(5,)).start()
    assert [each.result() for each in as_completed([future], TIMEOUT)] == [5]

    async def wait() -> int:
        other: CallbackFuture[int] = CallbackFuture()
        threading.Thread(target=other.set_result, args=(7,)).start()
        return await asyncio.wait_for(asyncio.wrap_future(other), TIMEOUT)

    assert asyncio.run(wait()) == 7


@pytest.fixture
def no_new_threads() -> Iterator[None]:
    """While it lasts the system has no memory for the stack of one more thread."""
    before = threading.stack_size(1 << 46)
    yield
    threading.stack_size(before)


def test_callbacks_come_later_when_there_was_no_thread_to_be_had(
    no_new_threads: None, caplog: pytest.LogCaptureFixture
) -> None:
    early, late = Seen(), Seen()
    first: CallbackFuture[object] = CallbackFuture()
    first.add_done_callback(early)
    first.set_result(1)  # must not raise where it is resolved
    assert early.futures == []
    threading.stack_size(0)
    second: CallbackFuture[object] = CallbackFuture()
    second.add_done_callback(late)
    second.set_result(2)
    late.wait()
    early.wait()


FOREVER = """
import threading
from threadko.concurrency.callbacks import CallbackFuture

begun = threading.Event()
future = CallbackFuture()
future.add_done_callback(lambda _: (begun.set(), threading.Event().wait()))
future.set_result(1)
assert begun.wait(10)
"""


def test_callback_that_never_returns_does_not_hold_the_process() -> None:
    subprocess.run([sys.executable, "-c", FOREVER], check=True, timeout=TIMEOUT)
