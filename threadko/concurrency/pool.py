"""The pool of worker threads: a ThreadPoolExecutor that never holds the process.

The standard executor's threads are joined when the interpreter exits, so one worker that hangs
in user code would hold its host program, or a test run, for ever. These threads are daemons and
unknown to that hook. They are all created in ``start()``, on the starting thread's time: a
connection thread that hands over a delivery must not wait for a thread to come up. Nor does work
go through the executor's queue, which wakes a second thread for each job and makes a future that
nobody asks for: each thread serves ``Slots`` for as long as there is work.
"""

import concurrent.futures.thread as futures_thread
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from threadko.concurrency.deadline import Deadline

__all__ = ["WorkerPool"]

_START_SECONDS = 30.0  # guessed: far beyond what starting threads takes on a loaded machine


class WorkerPool(ThreadPoolExecutor):
    """``max_workers`` daemon threads, named ``<name>-1`` and so on.

    ``start()`` once, from any thread; ``shutdown()`` from any thread, which lets each thread end
    when its ``serve`` has returned, and joins none unless asked to.
    """

    def __init__(self, max_workers: int, name: str) -> None:
        super().__init__(max_workers, thread_name_prefix=name)
        self._name = name

    def start(self, serve: Callable[[Callable[[], object]], None]) -> None:
        """Run ``serve`` on each thread of the pool; returns when all have called what it is given.

        Raises:
            RuntimeError: the system has not so many threads; the pool is shut down then, and
                ``serve`` must return for those that were created to end.
        """
        errors: list[BaseException] = []

        def create() -> None:
            try:
                self._create_threads(serve)
            except BaseException as error:
                errors.append(error)

        # The flag is inherited: threads that a daemon thread creates are daemons.
        starter = threading.Thread(target=create, name=f"{self._name}-0", daemon=True)
        starter.start()
        starter.join(_START_SECONDS)
        if errors:
            self.shutdown()
            raise RuntimeError(f"cannot start {self._max_workers} threads: {errors[0]}")

    def _create_threads(self, serve: Callable[[Callable[[], object]], None]) -> None:
        deadline = Deadline(_START_SECONDS)
        arrivals = threading.Semaphore(0)

        try:
            # None of them is idle, so each submission creates a thread.
            for _ in range(self._max_workers):
                self.submit(serve, arrivals.release)
            for _ in range(self._max_workers):
                arrivals.acquire(timeout=deadline.remaining())
        finally:
            at_exit = getattr(futures_thread, "_threads_queues", {})
            for number, thread in enumerate(self._threads, start=1):
                thread.name = f"{self._name}-{number}"
                at_exit.pop(thread, None)

    def shutdown(self, wait: bool = False, *, cancel_futures: bool = False) -> None:
        """Let the threads end; waits for none of them unless asked to."""
        super().shutdown(wait=wait, cancel_futures=cancel_futures)
