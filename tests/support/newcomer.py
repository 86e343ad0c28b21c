"""Does what a page tells a newcomer to do, in terminals of its own.

`python -m tests.support.newcomer PAGE [COMMAND TO SKIP ...]` is run in a copy of the repository.
Every literal block with `$ ` lines is a terminal in that folder; one that runs services is left
open, the others must end well. What follows `$ python` is typed into an interpreter, by `doctest`,
and must print what the page prints; what follows `$ threadko shell` is typed into that.

From the first service on, all happens in a network of its own where the system can make one: there
is no broker there, whatever the machine has. It writes one line for each block that it has done.
"""

import contextlib
import ctypes
import fcntl
import os
import re
import shlex
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.timing import TIMEOUT

__all__ = ["Block", "follow", "read_blocks"]

_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 0x1

#: What goes on until it is stopped, and what it says when it is ready.
_READY = {
    "threadko run ": "services ready",
    "threadko broker": "broker at",
    "flask ": "Running on",
    "gunicorn ": "Booting worker",
    "uvicorn ": "Uvicorn running on",
}

_BLOCK = re.compile(
    r"^(?:[^\n]*::|\.\. code-block:: console)\n\n((?:[ ]+[^\n]*\n|\n)+)", re.MULTILINE
)


@dataclass(frozen=True)
class Block:
    """What one terminal is given: commands, and what is then typed into an interpreter."""

    commands: tuple[str, ...]
    typed: str = ""

    @property
    def ready(self) -> str | None:
        """What its last command says when it is ready, if that goes on until it is stopped."""
        last = self.commands[-1] if self.commands else ""
        return next((text for start, text in _READY.items() if last.startswith(start)), None)


def read_blocks(page: str) -> Iterator[Block]:
    """Yield the blocks of a page that begin with `$ ` or with `make `, in their order."""
    for match in _BLOCK.finditer(page):
        lines = match[1].rstrip().splitlines()
        indent = len(lines[0]) - len(lines[0].lstrip())
        lines = [line[indent:] for line in lines]
        if all(line.startswith("make ") for line in lines):
            for line in lines:
                yield Block((line.partition("#")[0].strip(),))
        elif lines[0].startswith("$ "):
            commands = [line[2:] for line in lines if line.startswith("$ ")]
            typed = [line for line in lines if not line.startswith("$ ")]
            if commands[-1] == "python":
                yield Block(tuple(commands[:-1]), "\n".join(typed) + "\n")
            elif typed and commands[-1] == "threadko shell":
                yield Block((*commands[:-1], _put_into_shell(typed)))
            elif typed:
                raise ValueError(f"output of commands is not looked at: {typed}")
            else:
                yield Block(tuple(commands))


def _put_into_shell(typed: list[str]) -> str:
    """Return a command that types what has a prompt, and compares what comes with the rest."""
    script = "\n".join(line[4:] for line in typed if line.startswith((">>> ", "... ")))
    printed = "\n".join(line for line in typed if not line.startswith((">>> ", "... ")))
    return f'test "$(echo {shlex.quote(script)} | threadko shell)" = {shlex.quote(printed)}'


def enter_own_network() -> bool:
    """Move this process into a network with nothing but a loopback interface, if that can be."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "unshare"):
        return False
    if libc.unshare(_CLONE_NEWNET) and libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET):
        return False
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sh", b"lo", _IFF_UP) + bytes(22)
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, request)
    return True


def run_block(block: Block, *, folder: Path, timeout: float) -> None:
    """Run a terminal whose commands end."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as typed:
        commands = list(block.commands)
        if block.typed:
            typed.write(block.typed)
            typed.flush()
            commands.append(f"python -m doctest {typed.name}")
        subprocess.run(
            ["bash", "-ec", "\n".join(commands)], cwd=folder, check=True, timeout=timeout
        )


@contextlib.contextmanager
def running(block: Block, *, folder: Path) -> Iterator[None]:
    """Keep a terminal open in which services run; they must end well when they are interrupted."""
    *before, last = block.commands
    says = block.ready
    assert says is not None
    process = subprocess.Popen(
        ["bash", "-ec", "\n".join([*before, f"exec {last}"])],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    ready = threading.Event()

    def read(lines: Iterator[str]) -> None:
        for line in lines:
            sys.stderr.write(line)
            if says in line:
                ready.set()

    reader = threading.Thread(target=read, args=(iter(process.stdout),))
    reader.start()
    try:
        if not ready.wait(3 * TIMEOUT):
            raise TimeoutError(f"{last!r} did not say {says!r}")
        yield
        os.killpg(process.pid, signal.SIGINT)
        if code := process.wait(2 * TIMEOUT):
            raise RuntimeError(f"{last!r} ended with {code}")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        reader.join()
        process.stdout.close()


def follow(
    page: str, *, folder: Path, skip: tuple[str, ...], enter: Callable[[], bool] = bool
) -> None:
    """Do what a page says, without the blocks that hold a command of `skip`.

    `enter` is called before the first service is run, and says whether we are alone then.
    """
    is_alone = False
    with contextlib.ExitStack() as terminals:
        for block in read_blocks(page):
            begin = time.monotonic()
            if any(command in skip for command in block.commands):
                continue
            if block.ready:
                is_alone = is_alone or enter()
                terminals.enter_context(running(block, folder=folder))
            else:
                run_block(block, folder=folder, timeout=30 * TIMEOUT)
            done = " && ".join((*block.commands, *(["python"] if block.typed else [])))
            print(f"{time.monotonic() - begin:.1f} s: {done}", flush=True)
    print("in a network of its own" if is_alone else "in the machine's network", flush=True)


if __name__ == "__main__":
    follow(
        Path(sys.argv[1]).read_text(encoding="utf-8"),
        folder=Path.cwd(),
        skip=tuple(sys.argv[2:]),
        enter=enter_own_network,
    )
