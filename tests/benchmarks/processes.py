"""The processes that are measured: how they are started, found ready, measured and ended.

Services run as a user runs them, by ``nameko run`` and ``threadko run``. One is ready when the
broker shows a consumer on its queue: the same sign for every side.
"""

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pika
import pika.exceptions

from tests.interop.peer import ROOT

__all__ = ["Service", "cpu_seconds", "delete_queues", "resident_mib"]

_START_SECONDS = 30.0
_STOP_SECONDS = 10.0
_LOOK_SECONDS = 0.05


class Service:
    """A service's process, from ``start`` to ``stop``."""

    def __init__(self, queue: str, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self.queue = queue
        self._command = list(command)
        self._environment = {**os.environ, **environment}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id; the service must have been started."""
        assert self._process is not None
        return self._process.pid

    def start(self, uri: str, log: Path, consumers: int = 1) -> None:
        """Run the command, its output going to ``log``, until its queue has a consumer, or more.

        Raises:
            RuntimeError: it ended, or was not ready in time; the end of its log is in the text.
        """
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env=self._environment,
            )
        deadline = time.monotonic() + _START_SECONDS
        connection = pika.BlockingConnection(pika.URLParameters(uri))
        try:
            while _count_consumers(connection, self.queue) < consumers:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    text = log.read_text(errors="replace")[-2_000:]
                    raise RuntimeError(f"{' '.join(self._command)} did not start:\n{text}")
                connection.sleep(_LOOK_SECONDS)
        finally:
            connection.close()

    def stop(self) -> None:
        """Ask the process to end and wait for it; kill it if it is late."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _count_consumers(connection: pika.BlockingConnection, queue: str) -> int:
    channel = connection.channel()
    try:
        declared = channel.queue_declare(queue, passive=True)
    except pika.exceptions.ChannelClosedByBroker:  # there is no such queue yet
        return 0
    channel.close()
    return int(declared.method.consumer_count)


def delete_queues(uri: str, queues: Sequence[str], *exchanges: str) -> None:
    """Delete what the services declared to outlive them."""
    connection = pika.BlockingConnection(pika.URLParameters(uri))
    try:
        channel = connection.channel()
        for queue in queues:
            channel.queue_delete(queue)
        for exchange in exchanges:
            channel.exchange_delete(exchange)
    finally:
        connection.close()


def cpu_seconds(pids: Sequence[int]) -> float | None:
    """The processor time, user and system, that these processes used; None without /proc."""
    ticks = 0
    for pid in pids:
        try:
            text = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            return None
        # The name may hold spaces and brackets: fields are counted from behind its last bracket.
        fields = text.rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def resident_mib(pid: int) -> float | None:
    """The resident memory of a process in MiB; None without /proc."""
    try:
        text = Path(f"/proc/{pid}/statm").read_text()
    except OSError:
        return None
    return int(text.split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
