"""What every thread of the process is doing, for SIGUSR1. Plain functions, for any thread."""

import contextlib
import faulthandler
import signal
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

from threadko.cli.inbox import DUMP
from threadko.concurrency.threads import format_stack
from threadko.extensions import WorkerContext

__all__ = ["dumping_early", "format_stacks"]


class Container(Protocol):
    """What is asked of a container."""

    def running_workers(self) -> Mapping[WorkerContext, tuple[int, float]]: ...


def format_stacks(containers: Iterable[Container]) -> str:
    """Return the stack of each thread, and of those that run a worker its call and age.

    Those that are at the same place, as idle workers are, have it once. No values of variables are
    in it.
    """
    now = time.monotonic()
    workers: dict[int, str] = {}
    for container in containers:
        for ctx, (thread_id, begun) in container.running_workers().items():
            workers[thread_id] = (
                f", runs {ctx.service_name}.{ctx.entrypoint.method_name} for"
                f" {now - begun:.1f} s as {ctx.call_id}"
            )
    threads_by_stack: dict[str, list[str]] = {}
    for thread in sorted(threading.enumerate(), key=lambda thread: thread.name):
        worker = workers.get(thread.ident or 0, "")
        threads = threads_by_stack.setdefault(format_stack(thread.ident), [])
        threads.append(f"thread {thread.name}{worker}")
    return "\n".join(
        "\n".join(threads) + f":\n{stack}" for stack, threads in threads_by_stack.items()
    )


@contextlib.contextmanager
def dumping_early() -> Iterator[None]:
    """Have SIGUSR1 write plain stacks to stderr until an inbox hears it, and never end the process.

    A handler in Python would not run while an import hangs in a driver.
    """
    signal.signal(DUMP, signal.SIG_IGN)
    # Without a stderr there is nobody to tell.
    with contextlib.suppress(AttributeError, OSError, RuntimeError, ValueError):
        faulthandler.register(DUMP, all_threads=True)
    try:
        yield
    finally:
        faulthandler.unregister(DUMP)
