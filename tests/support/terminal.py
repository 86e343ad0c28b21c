"""A command in a terminal of its own: keys go in, and what the screen shows can be waited for."""

import contextlib
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from tests.support.timing import TIMEOUT

__all__ = ["CTRL_C", "CTRL_D", "UP", "Terminal"]

CTRL_C, CTRL_D, UP = "\x03", "\x04", "\x1b[A"

_ROOT = Path(__file__).parents[2]

# Becomes the command once the terminal is its own, so that Ctrl-C and the end of it reach it.
_LAUNCH = (
    "import fcntl, os, signal, sys, termios\n"
    "signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"
    "fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
    "os.execv(sys.argv[1], sys.argv[1:])"
)
_WHERE = b"\x1b[6n"
_ESCAPES = re.compile(r"\x1b(?:\[[0-9;?<>=]*[A-Za-z]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[()=>].?)")


class Terminal:
    """Runs a Python command; belongs to one thread, and is a context manager that ends it."""

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        cwd: Path,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 250, 0, 0))
        paths = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {
            **{key: value for key, value in os.environ.items() if key != "NO_COLOR"},
            "PYTHONPATH": os.pathsep.join(paths),
            "TERM": "xterm",
            "HOME": str(cwd),
            **(environ or {}),
        }
        self._process = subprocess.Popen(
            [sys.executable, "-c", _LAUNCH, sys.executable, *arguments],
            cwd=cwd,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            env=environment,
        )
        os.close(slave)
        self.raw = ""
        self._seen = 0  # characters of the screen that a wait has passed

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    @property
    def screen(self) -> str:
        """All that was shown, without colours and movements."""
        return _ESCAPES.sub("", self.raw)

    def press(self, keys: str) -> None:
        """Press keys."""
        os.write(self._master, keys.encode())

    def wait_for(self, text: str) -> None:
        """Wait until the screen shows a text behind what the last wait has found."""
        end = time.monotonic() + TIMEOUT
        while True:
            found = self.screen.find(text, self._seen)
            if found >= 0:
                self._seen = found + len(text)
                return
            if not self._read(end):
                raise AssertionError(f"{text!r} does not come: {self.screen!r}")

    def wait(self) -> int:
        """Wait for the end, and return the exit code."""
        end = time.monotonic() + TIMEOUT
        while self._read(end):
            pass
        return self._process.wait(max(0.1, end - time.monotonic()))

    def hang_up(self) -> int:
        """Close the terminal while the command runs, and return its exit code."""
        os.close(self._master)
        self._master = -1
        return self._process.wait(TIMEOUT)

    def _read(self, end: float) -> bool:
        ready, _, _ = select.select([self._master], [], [], max(0.0, end - time.monotonic()))
        if not ready:
            return False
        try:
            data = os.read(self._master, 65536)
        except OSError:  # the other end is closed
            return False
        self.raw += data.decode(errors="replace")
        for _ in range(data.count(_WHERE)):
            self.press("\x1b[1;1R")  # a screen is asked where its cursor is
        return bool(data)

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
        self._process.wait()
        if self._master >= 0:
            os.close(self._master)
