"""`threadko run` in a process of its own, with what it prints."""

import os
import queue
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import IO

from tests.support.timing import TIMEOUT

__all__ = ["Process"]

_ROOT = Path(__file__).parents[2]


class Process:
    """A Python process whose lines on stdout and stderr a test waits for; a context manager.

    It is killed when the test ends, if it has not ended by itself.
    """

    def __init__(self, *arguments: str, cwd: Path) -> None:
        paths = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        self._process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=cwd,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        )
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self.stdout: list[str] = []
        self.stderr: list[str] = []
        self._unread: dict[str, queue.SimpleQueue[str | None]] = {}
        self._threads = [
            self._read("stdout", self._process.stdout, self.stdout),
            self._read("stderr", self._process.stderr, self.stderr),
        ]

    def _read(self, name: str, stream: IO[str], lines: list[str]) -> threading.Thread:
        unread = self._unread[name] = queue.SimpleQueue()

        def read() -> None:
            for line in stream:
                lines.append(line.rstrip("\n"))
                unread.put(lines[-1])
            unread.put(None)

        thread = threading.Thread(target=read, name=f"reader-{name}", daemon=True)
        thread.start()
        return thread

    def wait_for(self, text: str, stream: str = "stdout", timeout: float = TIMEOUT) -> str:
        """Wait for the next line that contains a text."""
        while True:
            try:
                line = self._unread[stream].get(timeout=timeout)
            except queue.Empty:
                raise TimeoutError(f"no line with {text!r}: {self}") from None
            if line is None:
                raise EOFError(f"it ended without a line with {text!r}: {self}")
            if text in line:
                return line

    def tell(self, line: str) -> None:
        """Write a line to its stdin."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def send_signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    def poll(self) -> int | None:
        """Return the exit code, None as long as it runs."""
        return self._process.poll()

    def wait(self, timeout: float = TIMEOUT) -> int:
        """Wait for its end and return the exit code."""
        code = self._process.wait(timeout)
        for thread in self._threads:
            thread.join(TIMEOUT)
        return code

    def __str__(self) -> str:
        return "\n".join(["stdout:", *self.stdout, "stderr:", *self.stderr])

    def __enter__(self) -> "Process":
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self.wait()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            assert stream is not None
            stream.close()
