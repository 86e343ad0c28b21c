"""The pool of worker threads: all there from the start, named, and never in anyone's way."""

import concurrent.futures
import concurrent.futures.thread as futures_thread
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from tests.support.timing import TIMEOUT
from threadko.concurrency.pool import WorkerPool
from threadko.concurrency.slots import Slots

MakePool = Callable[..., WorkerPool]


@pytest.fixture
def make_pool() -> Iterator[MakePool]:
    """Makes pools that end with the test, if what they serve returns."""
    pools: list[WorkerPool] = []

    def make(max_workers: int, name: str = "threadko-shop-worker-7") -> WorkerPool:
        pools.append(WorkerPool(max_workers, name))
        return pools[-1]

    yield make
    for pool in pools:
        pool.shutdown(wait=True)


class Service:
    """What the threads of a pool do: they wait together until they are let go."""

    def __init__(self) -> None:
        self.release = threading.Event()
        self.threads: list[threading.Thread] = []  # appended to by all; each append is one step

    def serve(self, arrived: Callable[[], object]) -> None:
        self.threads.append(threading.current_thread())
        arrived()
        assert self.release.wait(TIMEOUT)


@pytest.fixture
def service() -> Iterator[Service]:
    made = Service()
    yield made
    made.release.set()


def threads_named(stem: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith(stem)]


@pytest.mark.parametrize("count", [1, 2, 25])
def test_all_threads_run_when_start_returns(
    make_pool: MakePool, service: Service, count: int
) -> None:
    pool = make_pool(count, "threadko-shop-worker-8")
    assert threads_named("threadko-shop-worker-8") == []
    pool.start(service.serve)
    names = {thread.name for thread in threads_named("threadko-shop-worker-8")}
    assert names == {f"threadko-shop-worker-8-{number}" for number in range(1, count + 1)}
    service.release.set()


def test_start_returns_when_as_many_slots_are_free_as_there_are_threads(
    make_pool: MakePool,
) -> None:
    slots = Slots()
    late = threading.Event()

    def serve(arrived: Callable[[], object]) -> None:
        if threading.current_thread().name.endswith("_2"):  # its name until all have arrived
            late.wait(TIMEOUT)
        slots.serve(arrived)

    pool = make_pool(3)
    with concurrent.futures.ThreadPoolExecutor(1) as other:
        starting = other.submit(pool.start, serve)
        assert not starting.done()
        late.set()
        starting.result(TIMEOUT)
    assert len(slots._seats) == 3
    slots.dismiss()


def test_each_thread_serves_once(make_pool: MakePool) -> None:
    together = threading.Barrier(25)
    served: list[threading.Thread] = []

    def serve(arrived: Callable[[], object]) -> None:
        arrived()
        together.wait(TIMEOUT)
        served.append(threading.current_thread())

    pool = make_pool(25)
    pool.start(serve)
    pool.shutdown(wait=True)
    assert len(set(served)) == len(served) == 25


def test_threads_are_daemons_and_unknown_to_the_hook_that_joins_at_exit(
    make_pool: MakePool, service: Service
) -> None:
    known = set(futures_thread._threads_queues)
    make_pool(3, "threadko-shop-worker-9").start(service.serve)
    threads = threads_named("threadko-shop-worker-9")
    assert len(threads) == 3
    assert all(thread.daemon for thread in threads)
    assert set(futures_thread._threads_queues) <= known
    service.release.set()


def test_threads_that_served_end_when_the_pool_is_shut_down(
    make_pool: MakePool, service: Service
) -> None:
    pool = make_pool(3, "threadko-shop-worker-11")
    pool.start(service.serve)
    threads = threads_named("threadko-shop-worker-11")
    service.release.set()
    pool.shutdown()
    for thread in threads:
        thread.join(TIMEOUT)
        assert not thread.is_alive()


def test_shutdown_does_not_wait_for_a_worker_that_hangs(
    make_pool: MakePool, service: Service
) -> None:
    pool = make_pool(1)
    pool.start(service.serve)
    pool.shutdown()
    assert service.threads[0].is_alive()
    service.release.set()


HUNG = """
import threading
from threadko.concurrency.pool import WorkerPool

pool = WorkerPool(2, "threadko-shop-worker-1")
pool.start(lambda arrived: (arrived(), threading.Event().wait()))
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
release = threading.Event()
try:
    pool.start(lambda arrived: (arrived(), release.wait()))
except RuntimeError as error:
    print("refused:", error)
release.set()
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
