"""The development broker beside `threadko run --dev`, in a process of its own.

A process, for services that compute would slow down a broker in their own; and it is to be there
still while they stop. It ends with the pipe that its parent holds, however the parent ends. All
methods belong to the main thread.
"""

import contextlib
import json
import logging
import socket
import subprocess
from collections.abc import Iterator
from types import TracebackType

from threadko.amqp.parameters import BrokerParameters
from threadko.cli.broker import READY
from threadko.cli.options import UserError, own_command
from threadko.utils.redaction import sanitize_url, split_urls

__all__ = ["DevProcess", "advising"]

_log = logging.getLogger(__name__)

_STOP_SECONDS = 5.0
_CONNECT_SECONDS = 2.0
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class DevProcess:
    """Starts a broker at the address where services will look for one, if there is none.

    Args:
        uri: the broker that the services are configured for.

    Raises:
        UserError: it is not an address on this machine.
    """

    def __init__(self, uri: str | tuple[str, ...]) -> None:
        self._parameters = BrokerParameters.from_uri(uri)
        self._shown = sanitize_url(uri)
        self._process: subprocess.Popen[str] | None = None
        if self._parameters.alternatives or self._parameters.host not in _LOOPBACK:
            raise UserError(
                f"--dev starts a broker on this machine only, and AMQP_URI is {self._shown}:"
                " leave --dev out, or use amqp://guest:guest@localhost:5672/"
            )
        if self._parameters.tls is not None:
            raise UserError("--dev starts a broker without TLS: use amqp://, and no AMQP_SSL")

    def __enter__(self) -> "DevProcess":
        if self._is_there():
            _log.info("the broker at %s is used", self._shown)
        else:
            self._start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._process is None:
            return
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _is_there(self) -> bool:
        address = (self._parameters.host, self._parameters.port)
        try:
            socket.create_connection(address, _CONNECT_SECONDS).close()
        except OSError:
            return False
        return True

    def _start(self) -> None:
        wanted = self._parameters
        host = "127.0.0.1" if wanted.host == "localhost" else wanted.host
        command = [
            *own_command(),
            "broker",
            "--as-child",
            f"--host={host}",
            f"--port={wanted.port}",
        ]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        told = {"users": {wanted.user: wanted.password}, "vhosts": [wanted.virtual_host]}
        stdin, stdout = self._process.stdin, self._process.stdout
        with contextlib.suppress(BrokenPipeError):
            if stdin is not None:
                stdin.write(json.dumps(told) + "\n")
                stdin.flush()
        line = "" if stdout is None else stdout.readline().strip()
        if line == READY:
            _log.info("a development broker runs at %s; nothing in it is kept", self._shown)
        elif self._is_there():
            _log.info("the broker at %s is used", self._shown)  # somebody else was faster
        else:
            raise UserError(f"no development broker could be started at {self._shown}")


@contextlib.contextmanager
def advising(uri: str | tuple[str, ...]) -> Iterator[None]:
    """Say once how to get a broker, when a service finds none."""
    advice = _Advice(sanitize_url(uri))
    logger = logging.getLogger("threadko.amqp.link")
    logger.addHandler(advice)
    try:
        yield
    finally:
        logger.removeHandler(advice)


class _Advice(logging.Handler):
    """Listens to what connections log; any of their threads may be the first."""

    def __init__(self, uri: str) -> None:
        super().__init__(logging.WARNING)
        self._uri = uri
        self._nodes = len(set(split_urls(uri)))
        # Both guarded by the handler's lock.
        self._failed: set[str] = set()
        self._given = False

    def emit(self, record: logging.LogRecord) -> None:
        """Add the advice when connections to all nodes have failed, and none has ever stood."""
        text = record.getMessage()
        _, found, node = text.partition("cannot connect to ")
        self._given = self._given or "lost the connection to" in text
        if self._given or not found:
            return
        self._failed.add(node.partition(": ")[0])
        if len(self._failed) < self._nodes:
            return
        self._given = True
        _log.warning(
            "no broker at %s yet: start RabbitMQ there, or use `threadko run --dev ...`, which"
            " brings a broker for development; trying on",
            self._uri,
        )
