"""The workers of a container: the pool that they run in, the slots, and those that run now.

==================================  ===========================================================
`spawn`, `open_line`, `running`     any thread
`owns_current`                      any thread
`run`, `begin`                      a thread that holds a slot
`start`, `open`                     the thread that starts the container
`close`, `wait_idle`, `shut_down`   the thread that stops it
`kill`                              any thread, at any time; never waits
==================================  ===========================================================
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

from threadko.concurrency.deadline import Deadline
from threadko.concurrency.pool import WorkerPool
from threadko.concurrency.slots import Line, Slots
from threadko.concurrency.threads import thread_name
from threadko.containers.watch import Running, StuckWatch, describe_workers
from threadko.containers.worker import WorkerLife, WorkerSteps
from threadko.context import current_worker
from threadko.exceptions import ContainerStopped, LifecycleError, WorkerPoolFull
from threadko.extensions import HandleResult, Settle, WorkerContext

__all__ = ["Workforce"]

_log = logging.getLogger(__name__)


class Workforce:
    """Runs workers, as many at once as there are slots.

    Args:
        service_name: stands in the names of the threads.
        max_workers: the number of slots.
        life: what each worker does.
        refusal: makes the error for those whose worker will never begin.
        stuck_warning: seconds after which to warn of workers that are all busy; None for never.
        find_own_calls: returns the ids of the calls of the service to itself that wait.
    """

    def __init__(
        self,
        service_name: str,
        max_workers: int,
        life: WorkerLife,
        refusal: Callable[[], LifecycleError],
        *,
        stuck_warning: float | None = None,
        find_own_calls: Callable[[], set[str]] = set,
    ) -> None:
        self._max_workers = max_workers
        self._life = life
        self._refusal = refusal
        self._name = thread_name(service_name, "worker")
        self._pool = WorkerPool(max_workers, self._name)
        self._slots = Slots()
        self._spawning = self._slots.open_line(f"spawn_worker of {service_name}")
        # The workers that run, with the ids of their threads and when they began. Adding, removing
        # and copying are one step each, so it needs no lock.
        self._running: dict[WorkerContext, tuple[int, float]] = {}
        #: The same for others to read, as it is at any time.
        self.live: Mapping[WorkerContext, tuple[int, float]] = MappingProxyType(self._running)
        self._watch = StuckWatch(
            service_name,
            max_workers,
            self._running,
            count_waiting=lambda: self._slots.waiting,
            find_own_calls=find_own_calls,
            seconds=stuck_warning,
        )
        self._pool_lock = threading.Lock()  # guards _starting and _killed
        self._starting = False
        self._killed = False

    # Starting and ending

    def start(self) -> None:
        """Create the threads."""
        with self._pool_lock:
            if self._killed:
                return
            self._starting = True
        try:
            self._pool.start(self._slots.serve)
        except BaseException:
            self._slots.dismiss()
            raise
        if self._killed_while_starting():
            self._pool.shutdown(wait=False)

    def _killed_while_starting(self) -> bool:
        with self._pool_lock:
            self._starting = False
            return self._killed

    def open(self) -> None:
        """Begin to run workers."""
        self._slots.open()

    def close(self) -> None:
        """Let no worker begin any more; whoever waits in `spawn` is refused."""
        self._slots.close()
        self._refuse_spawning()

    def wait_idle(self, deadline: Deadline) -> bool:
        """Wait until no worker runs; False if the deadline or `kill()` came first."""
        return self._slots.wait_idle(deadline)

    def shut_down(self) -> None:
        """End the threads, and wait for them if none runs a worker."""
        self._watch.close()
        self._slots.dismiss()
        self._pool.shutdown(wait=not self._slots.busy)

    def kill(self) -> None:
        """Abandon the workers that run, and let no other begin."""
        with self._pool_lock:
            # A pool that is shut down while its threads are made would be left with half of them.
            self._killed = True
            starting = self._starting
        self._watch.close()
        self._slots.kill()
        self._refuse_spawning()
        for worker_ctx in self._running.copy():
            worker_ctx.abandon()
        if not starting:
            self._pool.shutdown(wait=False)

    # Work

    def open_line(self, name: str) -> Line:
        """Return a new waiting line for one source of work."""
        return self._slots.open_line(name)

    def spawn(
        self, worker_ctx: WorkerContext, handle_result: HandleResult | None, settle: Settle
    ) -> None:
        """Run a worker on a thread of the pool, and return when it has begun."""
        job = _Spawn(partial(self.run, worker_ctx, handle_result, settle))
        try:
            self._spawning.put(job, at_once=True)
        except ContainerStopped:
            raise self._refusal() from None
        caller = current_worker.get()
        # Taken out again, rather than asked beforehand whether a slot is free: by the time of the
        # answer, another worker may have taken it.
        if (
            caller is not None
            and caller.container is worker_ctx.container
            and self._spawning.withdraw(job)
        ):
            raise WorkerPoolFull(
                f"{caller.call_id} asked for another worker of its own container, and all"
                f" {self._max_workers} are busy; it would wait for itself"
            )
        job.wait()

    def run(
        self, worker_ctx: WorkerContext, handle_result: HandleResult | None, settle: Settle
    ) -> None:
        """Run a worker in this thread, from its beginning to its end."""
        # Entered first and looked then, while `kill` says so first and looks then: one of the two
        # always finds the other.
        self._running[worker_ctx] = threading.get_ident(), time.monotonic()
        try:
            if not self._watch.armed and len(self._running) >= self._max_workers:
                self._watch.arm()
            if self._killed:
                worker_ctx.abandon()
            else:
                self._life.run(worker_ctx, handle_result, settle)
        finally:
            del self._running[worker_ctx]

    def begin(self, worker_ctx: WorkerContext, handle_result: HandleResult | None) -> WorkerSteps:
        """Return a worker that this thread, which holds a slot, runs step by step."""
        self._running[worker_ctx] = threading.get_ident(), time.monotonic()
        if not self._watch.armed and len(self._running) >= self._max_workers:
            self._watch.arm()
        if self._killed:
            worker_ctx.abandon()
        on_end = partial(self._running.pop, worker_ctx, None)
        return self._life.begin(worker_ctx, handle_result, on_end)

    def running(self) -> Running:
        """Return the workers that run now; any thread."""
        return self._running.copy()

    def owns_current(self) -> bool:
        """Whether the calling thread is one of the pool's."""
        return threading.current_thread().name.startswith(f"{self._name}-")

    def log_stacks(self) -> None:
        """Log what each worker that runs is doing."""
        _log.error("these workers have not ended:%s", describe_workers(self._running.copy()))

    def _refuse_spawning(self) -> None:
        for job in self._spawning.close():
            if isinstance(job, _Spawn):
                job.refuse(self._refusal())


class _Spawn:
    """A job in the line of `spawn`, and its caller who waits for it to begin."""

    __slots__ = ("_decided", "_refusal", "_run")

    def __init__(self, run: Callable[[], None]) -> None:
        self._run = run
        self._decided = threading.Event()
        self._refusal: LifecycleError | None = None

    def __call__(self) -> None:
        self._decided.set()
        self._run()

    def refuse(self, refusal: LifecycleError) -> None:
        self._refusal = refusal
        self._decided.set()

    def wait(self) -> None:
        """Wait until the job has begun, or raise the refusal."""
        self._decided.wait()
        if self._refusal is not None:
            raise self._refusal
