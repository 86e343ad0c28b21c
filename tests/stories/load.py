"""Threads that call a service without a pause, and what became of each of their calls."""

import itertools
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any

from tests.support.timing import TIMEOUT

__all__ = ["Load"]


class Load:
    """Calls with rising numbers from many threads at once, until its block ends.

    `answers` and `errors` hold the outcome of each number; read them when the block has ended.
    """

    def __init__(self, call: Callable[[int], Any], threads: int = 8) -> None:
        self._call = call
        self._numbers = itertools.count()
        self._enough = threading.Event()
        self._changed = threading.Condition()  # guards what follows
        self.answers: dict[int, Any] = {}
        self.errors: dict[int, BaseException] = {}
        self._threads = [threading.Thread(target=self._run) for _ in range(threads)]

    def wait_for_answers(self, count: int) -> None:
        """Wait until as many calls more have been answered."""
        with self._changed:
            target = len(self.answers) + count
            if not self._changed.wait_for(lambda: len(self.answers) >= target, TIMEOUT):
                raise TimeoutError(f"{len(self.answers)} answers, not {target}; {self.errors}")

    def end(self) -> None:
        """Begin no more calls, and wait for the outcome of those that are on their way."""
        self._enough.set()
        for thread in self._threads:
            thread.join(2 * TIMEOUT)
        assert not any(thread.is_alive() for thread in self._threads), "a call that never ends"

    def _run(self) -> None:
        while not self._enough.is_set():
            number = next(self._numbers)
            try:
                answer = self._call(number)
            except Exception as error:
                with self._changed:
                    self.errors[number] = error
            else:
                with self._changed:
                    self.answers[number] = answer
                    self._changed.notify_all()

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.end()
