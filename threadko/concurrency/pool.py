"""The pool of worker threads: a ThreadPoolExecutor that never holds the process.

The standard executor's threads are joined when the interpreter exits, so one worker that hangs
in user code would hold its host program, or a test run, for ever. These threads are daemons and
unknown to that hook. They are all created in ``start()``, on the starting thread's time: a
connection thread that hands over a delivery must not wait for a thread to come up.
"""

import concurrent.futures.thread as futures_thread
import threading
from concurrent.futures import ThreadPoolExecutor

from threadko.concurrency.deadline import Deadline

__all__ = ["WorkerPool"]

_START_SECONDS = 30.0  # guessed: far beyond what starting threads takes on a loaded machine


class WorkerPool(ThreadPoolExecutor):
    """``max_workers`` daemon threads, named ``<name>-1`` and so on.

    ``start()`` once, from any thread; ``submit()`` from any thread after it; ``shutdown()`` from
    any thread, which lets idle threads end and joins none.
    """

    def __init__(self, max_workers: int, name: str) -> None:
        super().__init__(max_workers, thread_name_prefix=name)
        self._name = name

    def start(self) -> None:
        """Create all threads of the pool; returns when each of them runs.

        Raises:
            RuntimeError: the system has not so many threads; the pool is shut down then.
        """
        errors: list[BaseException] = []

        def create() -> None:
            try:
                self._create_threads()
            except BaseException as error:
                errors.append(error)

        # The flag is inherited: threads that a daemon thread creates are daemons.
        starter = threading.Thread(target=create, name=f"{self._name}-0", daemon=True)
        starter.start()
        starter.join(_START_SECONDS)
        if errors:
            self.shutdown()
            raise RuntimeError(f"cannot start {self._max_workers} threads: {errors[0]}")

    def _create_threads(self) -> None:
        # Each task holds its thread until all have begun, or an idle one would be used again.
        deadline = Deadline(_START_SECONDS)
        all_begun = threading.Event()
        arrivals = threading.Semaphore(0)

        def hold() -> None:
            arrivals.release()
            all_begun.wait(deadline.remaining())

        try:
            for _ in range(self._max_workers):
                self.submit(hold)
            for _ in range(self._max_workers):
                arrivals.acquire(timeout=deadline.remaining())
        finally:
            all_begun.set()
            at_exit = getattr(futures_thread, "_threads_queues", {})
            for number, thread in enumerate(self._threads, start=1):
                thread.name = f"{self._name}-{number}"
                at_exit.pop(thread, None)

    def shutdown(self, wait: bool = False, *, cancel_futures: bool = False) -> None:
        """Let the threads end when they are idle; waits for none of them unless asked to."""
        super().shutdown(wait=wait, cancel_futures=cancel_futures)
