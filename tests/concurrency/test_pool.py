"""The pool of worker threads: all there from the start, named, and never in anyone's way."""

import concurrent.futures.thread as futures_thread
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from tests.support.timing import TIMEOUT
from threadko.concurrency.pool import WorkerPool

MakePool = Callable[..., WorkerPool]


@pytest.fixture
def make_pool() -> Iterator[MakePool]:
    """Makes pools that end with the test."""
    pools: list[WorkerPool] = []

    def make(max_workers: int, name: str = "threadko-shop-worker-7") -> WorkerPool:
        pools.append(WorkerPool(max_workers, name))
        return pools[-1]

    yield make
    for pool in pools:
        pool.shutdown(wait=True)


def threads_named(stem: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith(stem)]


@pytest.mark.parametrize("count", [1, 2, 25])
def test_all_threads_run_when_start_returns(make_pool: MakePool, count: int) -> None:
    pool = make_pool(count, "threadko-shop-worker-8")
    assert threads_named("threadko-shop-worker-8") == []
    pool.start()
    names = {thread.name for thread in threads_named("threadko-shop-worker-8")}
    assert names == {f"threadko-shop-worker-8-{number}" for number in range(1, count + 1)}


def test_threads_are_daemons_and_unknown_to_the_hook_that_joins_at_exit(
    make_pool: MakePool,
) -> None:
    known = set(futures_thread._threads_queues)
    make_pool(3, "threadko-shop-worker-9").start()
    threads = threads_named("threadko-shop-worker-9")
    assert len(threads) == 3
    assert all(thread.daemon for thread in threads)
    assert set(futures_thread._threads_queues) <= known


def test_work_runs_on_the_threads_there_are(make_pool: MakePool) -> None:
    pool = make_pool(3, "threadko-shop-worker-10")
    pool.start()
    together = threading.Barrier(3)

    def work() -> str:
        together.wait(TIMEOUT)
        return threading.current_thread().name

    futures = [pool.submit(work) for _ in range(3)]
    names = {future.result(TIMEOUT) for future in futures}
    assert names == {thread.name for thread in threads_named("threadko-shop-worker-10")}
    assert len(names) == 3


def test_submitting_starts_no_thread_once_the_pool_is_started(make_pool: MakePool) -> None:
    pool = make_pool(4)
    pool.start()
    before = threading.active_count()
    for _ in range(50):
        pool.submit(int).result(TIMEOUT)
    assert threading.active_count() == before


def test_idle_threads_end_when_the_pool_is_shut_down(make_pool: MakePool) -> None:
    pool = make_pool(3, "threadko-shop-worker-11")
    pool.start()
    threads = threads_named("threadko-shop-worker-11")
    pool.shutdown()
    for thread in threads:
        thread.join(TIMEOUT)
        assert not thread.is_alive()
    with pytest.raises(RuntimeError):
        pool.submit(int)


def test_shutdown_does_not_wait_for_a_worker_that_hangs(make_pool: MakePool) -> None:
    pool = make_pool(1)
    pool.start()
    release = threading.Event()
    future = pool.submit(release.wait, TIMEOUT)
    pool.shutdown()
    assert not future.done()
    release.set()
    assert future.result(TIMEOUT) is True


def test_work_that_was_accepted_runs_though_the_pool_is_shut_down(make_pool: MakePool) -> None:
    pool = make_pool(1)
    pool.start()
    release = threading.Event()
    pool.submit(release.wait, TIMEOUT)
    future = pool.submit(int)
    pool.shutdown()
    release.set()
    assert future.result(TIMEOUT) == 0


HUNG = """
import threading
from threadko.concurrency.pool import WorkerPool

pool = WorkerPool(2, "threadko-shop-worker-1")
pool.start()
begun = threading.Event()
pool.submit(lambda: (begun.set(), threading.Event().wait()))
assert begun.wait(10)
print("leaving")
"""


def test_worker_that_hangs_does_not_hold_the_interpreter_at_exit() -> None:
    done = subprocess.run(
        [sys.executable, "-c", HUNG], check=True, timeout=TIMEOUT, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("leaving\n", "")


TOO_MANY = """
import resource, threading
from threadko.concurrency.pool import WorkerPool

threading.stack_size(64 << 20)
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
before = threading.active_count()
pool = WorkerPool(100, "threadko-shop-worker-1")
try:
    pool.start()
except RuntimeError as error:
    print("refused:", error)
threads = [thread for thread in threading.enumerate() if thread is not threading.main_thread()]
for thread in threads:
    thread.join(10)
print("left:", threading.active_count() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the address space")
def test_start_raises_and_leaves_no_thread_when_the_system_has_too_few() -> None:
    done = subprocess.run(
        [sys.executable, "-c", TOO_MANY],
        check=True,
        timeout=TIMEOUT,
        capture_output=True,
        text=True,
    )
    assert done.stdout.startswith("refused: ")
    assert done.stdout.endswith("left: 0\n")
    assert done.stderr == ""
