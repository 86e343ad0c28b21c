"""HTTP: nameko and threadko in turn, at keep-alive connections of `wrk`, or of a loop of our own.

Both run as their users run them, and log a line for each request.
"""

import os
import re
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from tests.interop.peer import ROOT

__all__ = ["describe_web", "load", "read_wrk"]

_CONNECTIONS = 16
_START_SECONDS = 30.0
_UNITS = {"us": 0.001, "ms": 1.0, "s": 1000.0}

#: What is asked, and how many times nameko's rate is the goal.
_PATHS: Mapping[str, tuple[str, float]] = {
    "answered at once": ("/hello/5", 1.0),
    "waits 50 ms in C": ("/wait", 10.0),
}


def describe_web(nameko_python: str, seconds: float, rounds: int) -> str:
    """Measure both, and return rates, 99th percentiles and ratios."""
    commands = {
        "nameko": [str(Path(nameko_python).with_name("nameko"))],
        "threadko": [sys.executable, "-m", "threadko"],
    }
    rates: dict[tuple[str, str], list[tuple[float, float]]] = {}
    with ExitStack() as stack:
        ports = {
            side: stack.enter_context(_Service(side, command)).port
            for side, command in commands.items()
        }
        for name, (path, _) in _PATHS.items():
            for _ in range(rounds):
                for side, port in ports.items():
                    rates.setdefault((name, side), []).append(_measure(port, path, seconds))
    tool = "wrk" if shutil.which("wrk") else "a loop of our own"
    lines = [f"HTTP at {_CONNECTIONS} connections of {tool}, 16 workers:"]
    for name, (_, goal) in _PATHS.items():
        for side in commands:
            rate, late = max(rates[name, side])
            lines.append(f"  {name}, {side}: {rate:,.0f}/s, 99 % within {late:.1f} ms")
        pairs = zip(rates[name, "threadko"], rates[name, "nameko"], strict=True)
        ratios = [ours[0] / theirs[0] for ours, theirs in pairs]
        best = max(rates[name, "threadko"])[0] / max(rates[name, "nameko"])[0]
        lines.append(f"  {name}: {best:.2f} (median {median(ratios):.2f}) times, goal {goal:g}")
    return "\n".join(lines)


class _Service:
    """A web service's process; a context manager."""

    def __init__(self, side: str, command: list[str]) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        options = ["-d", f"WEB_SERVER_ADDRESS=127.0.0.1:{self.port}", "-d", "max_workers=16"]
        module = f"tests.benchmarks.sides.{side}_web"
        self._command = [*command, "run", *options, module]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "_Service":
        self._process = subprocess.Popen(
            self._command,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        end = time.monotonic() + _START_SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return self
            except OSError:
                if time.monotonic() > end or self._process.poll() is not None:
                    self.__exit__()
                    raise RuntimeError(f"{' '.join(self._command)} did not start") from None
                time.sleep(0.05)

    def __exit__(self, *exc_info: object) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _measure(port: int, path: str, seconds: float) -> tuple[float, float]:
    """Return answers a second, and the milliseconds within which 99 of 100 came."""
    if shutil.which("wrk") is None:
        return load(port, path, seconds)
    options = ["-t1", f"-c{_CONNECTIONS}", f"-d{max(1, round(seconds))}", "--latency"]
    url = f"http://127.0.0.1:{port}{path}"
    command = ["wrk", *options, url]
    return read_wrk(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def read_wrk(text: str) -> tuple[float, float]:
    """Return rate and 99th percentile (ms) from what `wrk` prints; an error if some failed."""
    failed = re.search(r"Non-2xx.*|Socket errors.*", text)
    if failed is not None:
        raise RuntimeError(f"wrk: {failed[0]}")
    rate = re.search(r"Requests/sec:\s+([\d.]+)", text)
    late = re.search(r"99%\s+([\d.]+)(us|ms|s)", text)
    if rate is None or late is None:
        raise RuntimeError(f"wrk: {text}")
    return float(rate[1]), float(late[1]) * _UNITS[late[2]]


def load(port: int, path: str, seconds: float) -> tuple[float, float]:
    """Do what `wrk` does, in one thread; answers must have a Content-Length."""
    request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    times: list[float] = []
    with selectors.DefaultSelector() as selector, ExitStack() as stack:
        for _ in range(_CONNECTIONS):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", port), 10))
            selector.register(sock, selectors.EVENT_READ, [time.monotonic(), b""])
            sock.sendall(request)
        began = now = time.monotonic()
        while now - began < seconds:
            for key, _ in selector.select(1):
                sock, state = key.fileobj, key.data
                assert isinstance(sock, socket.socket)
                state[1] += sock.recv(65536)
                if not _is_whole(state[1]):
                    continue
                now = time.monotonic()
                times.append(now - state[0])
                state[:] = [now, b""]
                sock.sendall(request)
            now = time.monotonic()
    times.sort()
    return len(times) / (now - began), 1000 * times[int(len(times) * 0.99)]


def _is_whole(data: bytes) -> bool:
    head, gap, body = data.partition(b"\r\n\r\n")
    found = re.search(rb"(?i)content-length: (\d+)", head)
    if gap and not head.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(head.decode("latin-1"))
    return bool(gap) and found is not None and len(body) >= int(found[1])
