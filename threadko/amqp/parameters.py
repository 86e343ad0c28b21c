"""Where the broker is, and how to log in: URIs taken apart once, at the edge.

Only what was said is kept, so a value can be compared, logged (`uri_redacted`) and handed to any
thread. The password is in no message and no repr.
"""

import re
import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pika

from threadko.amqp.credentials import check_login_method, make_credentials
from threadko.amqp.tls import TlsOptions, make_context, read_tls
from threadko.exceptions import ConfigurationError
from threadko.utils.redaction import REDACTED, split_urls

__all__ = ["BrokerParameters", "check_heartbeat"]

DEFAULT_HOST = "localhost"  # of an address that has nothing before its vhost
DEFAULT_PORT = 5672
DEFAULT_TLS_PORT = 5671
SCHEMES = ("amqp", "pyamqp")
TLS_SCHEMES = ("amqps", "pyamqps")

#: How long the TCP connect, and the whole of TCP connect and AMQP handshake, may take.
SOCKET_TIMEOUT_SECONDS = 10
STACK_TIMEOUT_SECONDS = 15

#: The heartbeat travels as 16 bits.
_MAX_HEARTBEAT = 0xFFFF

_ENCODE_HINT = "characters such as @ : / ? # in user, password or vhost must be percent-encoded"


# What the resolver takes: labels of letters, digits, hyphens and underscores, of 63 bytes at most.
_HOST = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)(\.(?!-)[a-z0-9_-]{1,63}(?<!-))*\.?", re.IGNORECASE)
_MAX_HOST = 253


@dataclass(frozen=True, kw_only=True)
class BrokerParameters:
    """A broker's address and login.

    Attributes:
        heartbeat: whole seconds.
        tls: checked options; None for a connection in clear text.
        login_method: PLAIN, AMQPLAIN or EXTERNAL.
        alternatives: other nodes of the same cluster, to be tried in this order after this one.
    """

    host: str
    port: int = DEFAULT_PORT
    user: str = "guest"
    password: str = field(default="guest", repr=False)
    virtual_host: str = "/"
    heartbeat: int = 20
    connection_name: str = "threadko"
    tls: TlsOptions | None = field(default=None, repr=False)
    login_method: str = "PLAIN"
    alternatives: tuple["BrokerParameters", ...] = ()

    def __post_init__(self) -> None:
        check_heartbeat(self.heartbeat)

    @classmethod
    def from_uri(
        cls,
        uri: str | Sequence[str],
        heartbeat: int = 20,
        connection_name: str = "threadko",
        *,
        ssl: Any = None,
        login_method: str | None = None,
    ) -> "BrokerParameters":
        """Read `amqp://user:password@host:port/vhost?heartbeat=20`.

        All of it can be left out; the host only together with user, password and port.

        Several addresses, in a list or joined by `;`, are the nodes of one cluster. `amqps` is TLS,
        and so is `ssl`; `pyamqp` means the same as `amqp`. A missing vhost, `/` and `/%2F` are the
        vhost "/"; user and password are "guest" where they are missing. A heartbeat in the URI
        wins.

        Args:
            ssl: True, or a mapping of options, or an `ssl.SSLContext`; see `amqp.tls`.
            login_method: PLAIN, AMQPLAIN or EXTERNAL.

        Raises:
            ConfigurationError: The URI is no such address, or an option cannot be used; the
                message never holds the password.
        """
        tls = read_tls(ssl)
        method = check_login_method(login_method)
        nodes = [
            _read_uri(cls, each, heartbeat, connection_name, tls, method) for each in _split(uri)
        ]
        return replace(nodes[0], alternatives=tuple(nodes[1:]))

    @property
    def nodes(self) -> tuple["BrokerParameters", ...]:
        """Each node by itself, in the order in which they are tried."""
        return (replace(self, alternatives=()), *self.alternatives)

    @property
    def uri_redacted(self) -> str:
        """The URI, for people: with stars in place of the password."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        user = urllib.parse.quote(self.user, safe="")
        vhost = "" if self.virtual_host == "/" else urllib.parse.quote(self.virtual_host, safe="")
        scheme = "amqp" if self.tls is None else "amqps"
        return f"{scheme}://{user}:{REDACTED}@{host}:{self.port}/{vhost}"

    def to_pika(self) -> pika.ConnectionParameters:
        """Return what pika connects with: one attempt, ours is the loop that tries again.

        Raises:
            ConfigurationError: A certificate cannot be read.
        """
        return pika.ConnectionParameters(
            host=self.host,
            port=self.port,
            virtual_host=self.virtual_host,
            credentials=make_credentials(self.login_method, self.user, self.password),
            ssl_options=self._make_ssl_options(),
            heartbeat=self.heartbeat,
            connection_attempts=1,
            socket_timeout=SOCKET_TIMEOUT_SECONDS,
            stack_timeout=STACK_TIMEOUT_SECONDS,
            client_properties={"connection_name": self.connection_name},
        )

    def _make_ssl_options(self) -> pika.SSLOptions | None:
        if self.tls is None:
            return None
        name = dict(self.tls).get("server_hostname", self.host)
        return pika.SSLOptions(make_context(self.tls), name)


def check_heartbeat(value: object) -> None:
    """Raise `ConfigurationError` unless this can be the seconds of a heartbeat."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigurationError(f"the heartbeat must be whole seconds, not {type(value).__name__}")
    if not 0 < value <= _MAX_HEARTBEAT:
        raise ConfigurationError(
            f"the heartbeat must be 1 to {_MAX_HEARTBEAT} seconds, not {value}: "
            "without one a dead connection is never noticed"
        )


def _refuse(reason: str) -> ConfigurationError:
    return ConfigurationError(
        f"AMQP_URI cannot be used: {reason} (expected amqp://user:password@host:5672/vhost)"
    )


def _split(uri: Any) -> list[Any]:
    if isinstance(uri, (list, tuple)):
        parts = [part for each in uri for part in _split(each)]
    elif isinstance(uri, str):
        parts = [part.strip() for part in split_urls(uri.strip().rstrip(";"))]
    else:
        parts = [uri]
    if not parts:
        raise _refuse("the list of brokers is empty")
    return parts


def _read_uri(
    cls: type[BrokerParameters],
    uri: Any,
    heartbeat: int,
    connection_name: str,
    tls: TlsOptions | None,
    login_method: str,
) -> BrokerParameters:
    # no cause is kept below: the parser's own messages may quote pieces of the password
    if not isinstance(uri, str):
        raise _refuse(f"it must be a str, not {type(uri).__name__}")
    try:
        parts = urllib.parse.urlsplit(uri)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise _refuse(f"host or port cannot be read; {_ENCODE_HINT}") from None
    _check_shape(parts)
    if not parts.netloc and uri[len(parts.scheme) :].startswith("://"):
        host = DEFAULT_HOST
    if not host:
        raise _refuse(f"it names no host; {_ENCODE_HINT}")
    if not _is_host(host):
        raise _refuse(f"its host cannot be the name of one; {_ENCODE_HINT}")
    if port == 0:
        raise _refuse("the port must be 1 to 65535")
    if tls is None and parts.scheme in TLS_SCHEMES:
        tls = read_tls(True)
    default_port = DEFAULT_PORT if tls is None else DEFAULT_TLS_PORT
    return cls(
        host=host,
        port=default_port if port is None else port,
        user=_unquote(parts.username, "the user") or "guest",
        password=_unquote(parts.password, "the password") or "guest",
        virtual_host=_unquote(parts.path[1:], "the vhost") or "/",
        heartbeat=_read_heartbeat(parts.query, heartbeat),
        connection_name=connection_name,
        tls=tls,
        login_method=login_method,
    )


def _is_host(host: str) -> bool:
    if ":" in host:  # an address of IPv6, which `urlsplit` has checked
        return True
    try:
        name = host.encode("idna").decode()
    except UnicodeError:
        return False
    return len(name) <= _MAX_HOST and _HOST.fullmatch(name) is not None


def _check_shape(parts: urllib.parse.SplitResult) -> None:
    if parts.scheme not in (*SCHEMES, *TLS_SCHEMES):
        raise _refuse("it must begin with amqp://, or amqps:// for TLS")
    # a raw character of these in a password moves the rest of it into another part
    if "@" in parts.path or "@" in parts.query or parts.fragment:
        raise _refuse(_ENCODE_HINT)


def _unquote(text: str | None, what: str) -> str:
    try:
        value = urllib.parse.unquote(text or "", errors="strict")
        size = len(value.encode())
    except UnicodeError:
        raise _refuse(f"{what} is not percent-encoded UTF-8") from None
    if size > 255:
        raise _refuse(f"{what} is longer than 255 bytes")
    return value


def _read_heartbeat(query: str, default: int) -> int:
    options = dict(urllib.parse.parse_qsl(query, keep_blank_values=True))
    text = options.pop("heartbeat", None)
    if options:
        # Not quoted: where the @ was forgotten, what follows a ? may be a piece of the password.
        raise _refuse("it has an unknown option, only heartbeat can be given after the ?")
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 5):
        raise _refuse("the option heartbeat must be whole seconds")
    return int(text)
