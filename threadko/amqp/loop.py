"""The loop of one connection thread: waits for sockets, timers and posted callables.

It stands in for pika's own, whose every turn costs several times as much. Threads that meet here::

    add_callback_threadsafe            any thread; nothing once the loop is closed
    everything else                    the thread that runs ``start()``; ``close()`` after it

Where the system has epoll, a wake-up is one write by the caller and nothing to read for the loop:
a read would give the interpreter's lock away just when there is work to do.
"""

import contextlib
import math
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from threadko.concurrency.timers import Timer, TimerHeap

__all__ = ["Loop"]

_FOREVER = -1
_LONGEST_WAIT_SECONDS = 86400.0  # the system counts in 32 bits of milliseconds


class Loop:
    """Calls back whoever registered, one turn after the other, and ``before_wait`` in each turn.

    It keeps its descriptors from its creation until ``close()``, so that a process that has run
    out of them still has a loop, and what is posted to it still runs.

    Args:
        before_wait: called each time before the loop waits; returns when, in monotonic seconds,
            it wants to be called again at the latest, or None.
    """

    READ = select.POLLIN
    WRITE = select.POLLOUT
    ERROR = select.POLLERR | select.POLLHUP

    def __init__(self, before_wait: Callable[[], float | None]) -> None:
        self._before_wait = before_wait
        self._leaving = False
        #: When it last asked the sockets, in monotonic seconds.
        self.asked_at = time.monotonic()
        self._handlers: dict[int, Callable[[int, int], object]] = {}
        self._timers = TimerHeap()  # of pika's; the link has its own
        self._callbacks: deque[Callable[[], object]] = deque()
        self._waker = _EventWaker() if hasattr(select, "epoll") else _PipeWaker()
        self._poller = self._waker.poller
        self._wake_fd = self._waker.fd
        # Held while a wake-up is written, which never blocks: a moment after ``close()`` the number
        # of the descriptor may be that of somebody else's file.
        self._open_lock = threading.Lock()  # guards _open
        self._open = True

    def close(self) -> None:
        """Give the descriptors back."""
        self._handlers.clear()
        with self._open_lock:
            if self._open:
                self._open = False
                self._waker.close()

    def forget(self) -> None:
        """Give the descriptors back in a forked child, where the lock may be held for ever."""
        self._handlers.clear()
        self._waker.close()

    # Any thread

    def add_callback_threadsafe(self, callback: Callable[[], object]) -> None:
        """Run ``callback`` in the next turn, if there is to be one."""
        self._callbacks.append(callback)
        with self._open_lock:
            if self._open:
                self._waker.wake()

    # The loop's own thread

    def start(self) -> None:
        """Run until ``stop()`` is called on this thread; may be called again after that."""
        try:
            while True:
                at = self._before_wait()
                if self._leaving:
                    return
                self._turn(at)
        finally:
            self._leaving = False

    def stop(self) -> None:
        """Leave ``start()`` before its next wait."""
        self._leaving = True

    #: pika's name for it.
    add_callback = add_callback_threadsafe

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        """Call back after ``delay`` seconds."""
        return self._timers.add(time.monotonic() + delay, callback)

    def remove_timeout(self, timer: Timer) -> None:
        """Never call this timer."""
        self._timers.cancel(timer)

    def add_handler(self, fd: int, handler: Callable[[int, int], object], events: int) -> None:
        """Call ``handler(fd, events)`` when one of ``events`` is there."""
        self._poller.register(fd, events)
        self._handlers[fd] = handler

    def update_handler(self, fd: int, events: int) -> None:
        """Wait for other events from now on."""
        self._poller.modify(fd, events)

    def remove_handler(self, fd: int) -> None:
        """Wait for this descriptor no more."""
        self._handlers.pop(fd, None)
        with contextlib.suppress(OSError, KeyError):  # closed already
            self._poller.unregister(fd)

    def divert(
        self, fd: int, handler: Callable[[int, int], object]
    ) -> Callable[[int, int], object]:
        """Let ``handler`` be called in place of the one that there is, which is returned."""
        former = self._handlers[fd]
        self._handlers[fd] = handler
        return former

    def _turn(self, at: float | None) -> None:
        found = self._poller.poll(self._timeout(at))
        self.asked_at = time.monotonic()
        for fd, events in found:
            if fd == self._wake_fd:
                self._waker.rest()
                continue
            handler = self._handlers.get(fd)
            if handler is not None:
                handler(fd, events)
        # Those that are there now: one that posts itself again must not keep the others waiting.
        for _ in range(len(self._callbacks)):
            self._callbacks.popleft()()
        if self._timers.next_at is not None:
            self._timers.run_due(time.monotonic())

    def _timeout(self, at: float | None) -> float:
        """Return how long to wait, in the poller's unit."""
        if self._callbacks:
            return 0
        own = self._timers.next_at
        if own is not None and (at is None or own < at):
            at = own
        if at is None:
            return _FOREVER
        seconds = min(max(0.0, at - time.monotonic()), _LONGEST_WAIT_SECONDS)
        return self._waker.to_timeout(seconds)


class _EventWaker:
    """An event descriptor that reports each write to it once, so that nobody has to read it."""

    def __init__(self) -> None:
        self.poller: Any = select.epoll()
        try:
            self.fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        except OSError:
            self.poller.close()
            raise
        self.poller.register(self.fd, select.EPOLLIN | select.EPOLLET)

    def wake(self) -> None:
        """Have the poller return."""
        os.eventfd_write(self.fd, 1)

    def rest(self) -> None:
        """Nothing is left over from a wake-up."""

    @staticmethod
    def to_timeout(seconds: float) -> float:
        """Return a time to wait as the poller takes it."""
        return seconds

    def close(self) -> None:
        """Give the descriptors back."""
        self.poller.close()
        os.close(self.fd)


class _PipeWaker:
    """A pipe, for systems without epoll."""

    def __init__(self) -> None:
        self.poller: Any = select.poll()
        self.fd, self._writer = os.pipe()
        os.set_blocking(self.fd, False)
        os.set_blocking(self._writer, False)
        self.poller.register(self.fd, select.POLLIN)

    def wake(self) -> None:
        """Have the poller return."""
        with contextlib.suppress(BlockingIOError):  # full of wake-ups
            os.write(self._writer, b"\0")

    def rest(self) -> None:
        """Take out what woke the poller."""
        with contextlib.suppress(BlockingIOError):
            os.read(self.fd, 4096)

    @staticmethod
    def to_timeout(seconds: float) -> float:
        """Return a time to wait as the poller takes it: in whole milliseconds, not too early."""
        return math.ceil(seconds * 1000)

    def close(self) -> None:
        """Give the descriptors back."""
        os.close(self.fd)
        os.close(self._writer)
