"""Watching for workers that are stuck: warnings for whoever operates the service.

A worker's thread calls `arm` when it has taken the last free slot. From then on a thread of the
watch's own looks now and then, until it finds a free slot or `close` is called (by any thread).
So a service that has a slot to spare pays nothing, and a busy one a thread start now and then.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping

from threadko.concurrency.threads import format_stack, start_thread, thread_name
from threadko.extensions import WorkerContext

__all__ = ["Running", "StuckWatch", "describe_workers"]

_log = logging.getLogger(__name__)

#: The workers that run, with the ids of their threads and the monotonic times of their begin.
Running = Mapping[WorkerContext, tuple[int, float]]

# Guessed: how long after the last worker has begun calls of a service to itself are looked for. It
# takes two looks to see that one lasts, the second after twice this time.
_FIRST_LOOK_SECONDS = 2.0


class StuckWatch:
    """Warns when all workers have been busy for long without one of them ending.

    The warning is repeated when twice the time has passed, four times, and so on; it begins anew
    when a worker has ended. Earlier than that comes one when the service waits for itself.

    Args:
        service_name: stands in the warnings, and in the name of the thread.
        max_workers: how many slots there are.
        running: the workers that run; only copied.
        count_waiting: tells how many jobs wait for a slot.
        find_own_calls: returns the ids of the calls of the service to itself that wait.
        seconds: the time after which to warn; None for never.
    """

    def __init__(
        self,
        service_name: str,
        max_workers: int,
        running: dict[WorkerContext, tuple[int, float]],
        *,
        count_waiting: Callable[[], int],
        find_own_calls: Callable[[], set[str]],
        seconds: float | None,
    ) -> None:
        self._service_name = service_name
        self._max_workers = max_workers
        self._running = running
        self._count_waiting = count_waiting
        self._find_own_calls = find_own_calls
        self._seconds = seconds or 0.0
        self._lock = threading.Lock()  # guards the change of `armed` to True
        self._closed = threading.Event()
        #: Whether there is nothing to call `arm` for; read without the lock, once per worker.
        self.armed = not seconds

    def arm(self) -> None:
        """Begin to watch, if nobody does; raises nothing."""
        with self._lock:
            if self.armed or self._closed.is_set():
                return
            self.armed = True
        try:
            start_thread(self._watch, thread_name(self._service_name, "watch"))
        except RuntimeError:  # no thread to be had: the next worker tries again
            self.armed = False

    def close(self) -> None:
        """End watching."""
        self._closed.set()

    def _watch(self) -> None:
        try:
            self._watch_while_full()
        except Exception:
            _log.exception("the watch over the workers of %s failed", self._service_name)
        # In this order, while a worker enters itself first and looks at `armed` then: one of the
        # two always finds the other.
        self.armed = False
        if self._find_youngest() is not None:
            self.arm()

    def _watch_while_full(self) -> None:
        episode = None
        # Not at once: a busy pool is full many times in a second, and free again before a thread
        # has come up to look.
        if self._closed.wait(min(_FIRST_LOOK_SECONDS, self._seconds / 4)):
            return
        while (youngest := self._find_youngest()) is not None:
            if episode is None or episode.youngest != youngest:
                episode = _Episode(youngest, self._seconds)
            age = time.monotonic() - youngest
            if age >= episode.next_look:
                episode.next_look = 2 * age
                self._look_for_own_calls(episode)
            if age >= episode.next_warning:
                episode.next_warning = 2 * age
                self._warn(age)
            if self._closed.wait(min(episode.next_look, episode.next_warning) - age):
                return

    def _find_youngest(self) -> float | None:
        """Return when the last worker began, None if a slot is free."""
        if self._closed.is_set():
            return None
        running = self._running.copy()
        if len(running) < self._max_workers:
            return None
        return max(begun for _, begun in running.values())

    def _look_for_own_calls(self, episode: "_Episode") -> None:
        calls = self._find_own_calls()
        lasting, episode.own_calls = calls & episode.own_calls, calls
        if not lasting or episode.is_own_warned:
            return
        episode.is_own_warned = True
        _log.warning(
            "service %s seems to wait for itself: all its %d workers here are busy, and %d of its"
            " calls to itself wait for a reply, which only another instance could give. Call the"
            " method itself instead (self.method()), or give the calls a timeout and raise"
            " max_workers.%s",
            self._service_name,
            self._max_workers,
            len(lasting),
            describe_workers(self._running.copy()),
        )

    def _warn(self, age: float) -> None:
        _log.warning(
            "all %d workers of service %s have been busy for %.0f s without one ending, and %d"
            " jobs wait. See below what they wait for; a timeout there, or a larger max_workers,"
            " may help.%s",
            self._max_workers,
            self._service_name,
            age,
            self._count_waiting(),
            describe_workers(self._running.copy()),
        )


class _Episode:
    """A time in which no worker ended, and what has been found in it."""

    def __init__(self, youngest: float, seconds: float) -> None:
        self.youngest = youngest
        self.next_warning = seconds
        self.next_look = min(_FIRST_LOOK_SECONDS, seconds / 4)
        self.own_calls: set[str] = set()
        self.is_own_warned = False


def describe_workers(running: Running) -> str:
    """Return a text with the call id, age and stack of each worker; no values of variables."""
    now = time.monotonic()
    parts = []
    for worker_ctx, (thread_id, begun) in running.items():
        age = f"{now - begun:.1f} s"
        stack = format_stack(thread_id)
        parts.append(f"\n{worker_ctx.call_id} has run for {age}, and is at:\n{stack}")
    return "".join(parts)
