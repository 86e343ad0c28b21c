"""A peer: a subprocess that answers JSON lines, and ends when its input is closed.

``ask`` and ``close`` are for the thread that made the peer. A reader thread takes the answers
off the pipe, so that waiting for one has a deadline.
"""

import json
import os
import queue
import subprocess
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, final

from tests.support.timing import TIMEOUT

__all__ = ["ROOT", "Peer", "PeerError"]

#: The folder from which ``python -m tests...`` finds its modules.
ROOT = Path(__file__).resolve().parents[2]


class PeerError(Exception):
    """The process ended, or was silent, when an answer was due."""


@final
class Peer:
    """``python -m module arguments...``, once it has told that it is ready."""

    def __init__(
        self,
        python: str,
        module: str,
        *arguments: str,
        environment: Mapping[str, str] | None = None,
        timeout: float = 1.5 * TIMEOUT,
    ) -> None:
        self._command: Sequence[str] = (python, "-W", "ignore", "-m", module, *arguments)
        self._timeout = timeout
        self._answers: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, **(environment or {})},
        )
        self._reader = threading.Thread(target=self._read, name="peer-reader", daemon=True)
        self._reader.start()
        try:
            self.greeting = self.answer()
        except PeerError:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """The process id, for those who measure it."""
        return self.process.pid

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send one request and return its answer.

        Raises:
            PeerError: no answer came in time, or the process ended.
        """
        self.tell(**request)
        return self.answer()

    def tell(self, **request: Any) -> None:
        """Send one request; ``answer`` takes what comes of it.

        Raises:
            PeerError: the process ended.
        """
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        except OSError as error:
            raise PeerError(f"{self._name} does not listen any more") from error

    def answer(self) -> dict[str, Any]:
        """Return the next answer.

        Raises:
            PeerError: none came in time, or the process ended.
        """
        try:
            line = self._answers.get(timeout=self._timeout)
        except queue.Empty:
            raise PeerError(f"{self._name} was silent for {self._timeout} s") from None
        if not line:
            raise PeerError(f"{self._name} ended when an answer was due")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> int:
        """End the input, wait for the process and return its exit code; kill it if it is late."""
        assert self.process.stdin is not None
        with suppress(OSError):  # a line that it never read; it is gone
            self.process.stdin.close()
        try:
            self.process.wait(self._timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._reader.join(TIMEOUT)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return self.process.returncode

    def __enter__(self) -> "Peer":
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def _name(self) -> str:
        return " ".join(self._command)

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._answers.put(line)
        self._answers.put("")  # the end, for whoever waits
