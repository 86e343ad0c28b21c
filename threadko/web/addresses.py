"""Where a web server listens: addresses as text, and the sockets made for them."""

import contextlib
import errno
import re
import socket
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from threadko.exceptions import ConfigurationError

__all__ = ["BindAddress", "Door", "UnixAddress", "open_door", "open_doors_by", "parse_address"]

_ADDRESS = re.compile(r"(?:(?P<host>\[[0-9A-Fa-f:.%\w]+\]|[^\[\]:/\s]*):)?(?P<port>[0-9]{1,5})")
_BACKLOG = 1024


class BindAddress(NamedTuple):
    """A host ("" for all interfaces) and a port."""

    address: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address or "0.0.0.0"
        return f"{host}:{self.port}"


class UnixAddress(NamedTuple):
    """The path of a unix socket."""

    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"


def parse_address(text: Any, key: str = "WEB_SERVER_ADDRESS") -> BindAddress | UnixAddress:
    """Return what an address says: `8000`, `host:8000`, `[::1]:8000` or `unix:/path`.

    Args:
        key: of the configuration, for the error.

    Raises:
        ConfigurationError: it says nothing of the kind.
    """
    if isinstance(text, int) and not isinstance(text, bool):
        text = str(text)
    if isinstance(text, str) and text.startswith("unix:") and len(text) > len("unix:"):
        return UnixAddress(text.removeprefix("unix:"))
    found = _ADDRESS.fullmatch(text) if isinstance(text, str) else None
    if found is None or int(found["port"]) > 0xFFFF:
        raise ConfigurationError(
            f"{key} must be [host:]port, [IPv6 address]:port or unix:/path, not {text!r}"
        )
    return BindAddress((found["host"] or "").strip("[]"), int(found["port"]))


@dataclass
class Door:
    """A listening socket, and where it really listens."""

    socket: socket.socket
    address: BindAddress | UnixAddress
    _inode: int | None = None

    def close(self) -> None:
        """Listen no more, and take the file of a unix socket away if it is still ours."""
        self.socket.close()
        if isinstance(self.address, UnixAddress) and self._inode is not None:
            with contextlib.suppress(OSError):
                path = Path(self.address.path)
                if path.stat().st_ino == self._inode:
                    path.unlink()
            self._inode = None


Opener = Callable[[BindAddress | UnixAddress, int], Door]

_opener: Opener | None = None  # replaced in one step


def open_doors_by(opener: Opener | None) -> None:
    """Have all sockets of this process made by `opener`, which may get them from another process.

    Call it before anything listens; None for the usual way.
    """
    global _opener
    _opener = opener


def open_door(
    address: BindAddress | UnixAddress, mode: int, key: str = "WEB_SERVER_ADDRESS"
) -> Door:
    """Listen at an address.

    Args:
        mode: the permissions of a unix socket.
        key: of the configuration, for the error.

    Raises:
        ConfigurationError: that cannot be done; the message says why.
    """
    if _opener is not None:
        return _opener(address, mode)
    try:
        if isinstance(address, UnixAddress):
            return _open_unix(address, mode)
        return _open_tcp(address)
    except OSError as error:
        why = error.strerror or str(error)
        if error.errno == errno.EADDRINUSE:
            why += f"; another process, or something else of this one, has it: give another {key}"
        raise ConfigurationError(f"cannot listen on {address}: {why}") from error


def _open_tcp(address: BindAddress) -> Door:
    host = address.address or "0.0.0.0"
    found = socket.getaddrinfo(host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, protocol, _, where = found[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # accepted ones inherit it
        if family == socket.AF_INET6:
            # What `::` means must not depend on the machine: IPv4 comes in by it as well.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind(where)
        sock.listen(_BACKLOG)
    except BaseException:
        sock.close()
        raise
    return Door(sock, BindAddress(address.address, sock.getsockname()[1]))


def _open_unix(address: UnixAddress, mode: int) -> Door:
    path = address.path
    _make_room(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(path)
        Path(path).chmod(mode)  # nobody can connect before `listen`
        sock.listen(_BACKLOG)
    except BaseException:
        sock.close()
        raise
    return Door(sock, address, Path(path).stat().st_ino)


def _make_room(path: str) -> None:
    """Remove the socket of a process that is gone; refuse to touch anything else."""
    try:
        kind = Path(path).lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(kind):
        raise ConfigurationError(f"cannot listen on unix:{path}: there is a file that is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            Path(path).unlink()
            return
    raise ConfigurationError(f"cannot listen on unix:{path}: another process listens there")
