"""`threadko run --backdoor-port`: a Python prompt inside the process that runs services.

Threads that meet here: one accepts, and each connection has one of its own, in which everything
that is typed runs. `open` and `close` belong to the main thread. What those threads print goes to
their connection, for `sys.stdout` is replaced meanwhile by one that knows whose it is.
"""

import code
import contextlib
import io
import ipaddress
import logging
import socket
import sys
import threading
import traceback
from collections.abc import Mapping
from functools import partial
from types import TracebackType
from typing import IO, Any, NoReturn

import click

from threadko.cli.options import UserError
from threadko.concurrency.threads import start_thread, thread_name
from threadko.exceptions import ConfigurationError
from threadko.web.addresses import BindAddress, parse_address

__all__ = ["Backdoor", "read_address"]

_log = logging.getLogger(__name__)


def read_address(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> BindAddress | None:
    """Return the address that `[host:]port` says; only one of this machine, see the error."""
    if value is None:
        return None
    try:
        found = parse_address(value)
    except ConfigurationError:
        found = None
    if not isinstance(found, BindAddress):
        raise click.BadParameter(f"{value!r} is not of the form [host:]port, such as 3000")
    address = BindAddress(found.address or "localhost", found.port)
    if not _is_loopback(address.address):
        raise click.BadParameter(
            f"{address} could be reached by others, who could do anything there; use"
            f" localhost:{address.port}, and a tunnel such as ssh -L"
        )
    return address


def _is_loopback(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


class Backdoor:
    """Listens at an address, and gives each connection a prompt; a context manager.

    Args:
        address: where, on this machine.
        names: what is defined at the prompt.
    """

    def __init__(self, address: BindAddress, names: Mapping[str, Any]) -> None:
        self._address = address
        self._names = dict(names)
        self._listener: socket.socket | None = None
        self._stdout: _Stdout | None = None
        self._lock = threading.Lock()  # guards _connections
        self._connections: set[socket.socket] | None = set()  # None when it is closed

    @property
    def port(self) -> int:
        """The port, once it is open."""
        return self._address.port

    def __enter__(self) -> "Backdoor":
        host, port = self._address
        host = "127.0.0.1" if host == "localhost" else host
        try:
            self._listener = socket.create_server(
                (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET
            )
        except OSError as error:
            raise UserError(
                f"cannot open a backdoor at {self._address}: {error.strerror}; give another"
                " --backdoor-port"
            ) from error
        self._address = BindAddress(host, self._listener.getsockname()[1])
        self._stdout = _Stdout(sys.stdout)
        sys.stdout = self._stdout
        start_thread(self._accept, thread_name("backdoor", "accept"))
        _log.info("to connect to the backdoor: nc %s %d", *self._address)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._lock:
            connections, self._connections = self._connections or set(), None
        if self._listener is not None:
            # What waits in accept() wakes up by the one, and is refused by the other.
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        if self._stdout is not None and sys.stdout is self._stdout:
            sys.stdout = self._stdout.usual

    def _accept(self) -> None:
        assert self._listener is not None, "made before the thread"
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                if self._connections is None:
                    connection.close()
                    return
                self._connections.add(connection)
            start_thread(partial(self._serve, connection), thread_name("backdoor", "repl"))

    def _serve(self, connection: socket.socket) -> None:
        assert self._stdout is not None, "made before the thread"
        output = self._stdout.local.stream = _Output(connection)
        names = {**self._names, "exit": _refuse_exit, "quit": _refuse_exit}
        try:
            with connection, connection.makefile("r", encoding="utf-8", errors="replace") as lines:
                # A client that has gone, or a process that ends.
                with contextlib.suppress(OSError, ValueError, SystemExit):
                    _Console(lines, output, names).interact(_BANNER, exitmsg="")
        finally:
            with self._lock:
                if self._connections is not None:
                    self._connections.discard(connection)


_BANNER = f"Python {sys.version.split()[0]} in a running process; runner is at hand."


def _refuse_exit() -> NoReturn:
    raise RuntimeError("this would be felt by the services; close the connection instead")


class _Output(io.TextIOBase):
    """Writes to a connection at once: there is nothing left to write when it is broken."""

    def __init__(self, connection: socket.socket) -> None:
        super().__init__()
        self._connection = connection

    def write(self, text: str) -> int:
        self._connection.sendall(text.encode(errors="replace"))
        return len(text)


class _Console(code.InteractiveConsole):
    """A prompt at the other end of a connection."""

    def __init__(self, lines: IO[str], output: _Output, names: dict[str, Any]) -> None:
        super().__init__(names, "<backdoor>")
        self._lines = lines
        self._output = output

    def raw_input(self, prompt: str = "") -> str:
        self._output.write(prompt)
        line = self._lines.readline()
        if not line:
            raise EOFError
        return line.rstrip("\r\n")

    def write(self, data: str) -> None:
        self._output.write(data)

    # The library asks `sys.excepthook` when somebody has replaced it, which knows nothing of us.

    def showtraceback(self) -> None:
        error = sys.exc_info()[1]
        assert error is not None
        # Without our own frame, which runs what was typed in.
        trace = error.__traceback__ and error.__traceback__.tb_next
        self.write("".join(traceback.format_exception(type(error), error, trace)))

    def showsyntaxerror(self, filename: str | None = None, **_: Any) -> None:
        self.write("".join(traceback.format_exception_only(sys.exc_info()[1])))


class _Stdout:
    """Writes to the connection of the thread that writes; for others, where it always went."""

    def __init__(self, usual: Any) -> None:
        self.usual = usual
        self.local = threading.local()

    def __getattr__(self, name: str) -> Any:
        return getattr(getattr(self.local, "stream", self.usual), name)
