"""Where the broker is, and how to log in: a URI taken apart once, at the edge.

Only what the URI says is kept, so a value can be compared, logged (`uri_redacted`) and handed to
any thread. The password is in no message and no repr.
"""

import urllib.parse
from dataclasses import dataclass, field

import pika

from threadko.exceptions import ConfigurationError
from threadko.utils.redaction import REDACTED

__all__ = ["BrokerParameters"]

DEFAULT_PORT = 5672
SCHEMES = ("amqp", "pyamqp")

#: How long the TCP connect, and the whole of TCP connect and AMQP handshake, may take.
SOCKET_TIMEOUT_SECONDS = 10
STACK_TIMEOUT_SECONDS = 15

#: The heartbeat travels as 16 bits.
_MAX_HEARTBEAT = 0xFFFF

_ENCODE_HINT = "characters such as @ : / ? # in user, password or vhost must be percent-encoded"


@dataclass(frozen=True, kw_only=True)
class BrokerParameters:
    """A broker's address and login. `heartbeat` is whole seconds."""

    host: str
    port: int = DEFAULT_PORT
    user: str = "guest"
    password: str = field(default="guest", repr=False)
    virtual_host: str = "/"
    heartbeat: int = 20
    connection_name: str = "threadko"

    def __post_init__(self) -> None:
        if isinstance(self.heartbeat, bool) or not isinstance(self.heartbeat, int):
            raise ConfigurationError(
                f"the heartbeat must be whole seconds, not {type(self.heartbeat).__name__}"
            )
        if not 0 < self.heartbeat <= _MAX_HEARTBEAT:
            raise ConfigurationError(
                f"the heartbeat must be 1 to {_MAX_HEARTBEAT} seconds, not {self.heartbeat}: "
                "without one a dead connection is never noticed"
            )

    @classmethod
    def from_uri(
        cls, uri: str, heartbeat: int = 20, connection_name: str = "threadko"
    ) -> "BrokerParameters":
        """Read `amqp://user:password@host:port/vhost?heartbeat=20`; all but the host is optional.

        The scheme `pyamqp` means the same. A missing vhost, `/` and `/%2F` are the vhost "/"; user
        and password are "guest" where they are missing. A heartbeat in the URI wins.

        Raises:
            ConfigurationError: The URI is no such address; the message never holds the password.
        """
        # no cause is kept below: the parser's own messages may quote pieces of the password
        if not isinstance(uri, str):
            raise _refuse(f"it must be a str, not {type(uri).__name__}")
        try:
            parts = urllib.parse.urlsplit(uri)
            host, port = parts.hostname, parts.port
        except ValueError:
            raise _refuse(f"host or port cannot be read; {_ENCODE_HINT}") from None
        _check_shape(parts)
        if not host:
            raise _refuse(f"it names no host; {_ENCODE_HINT}")
        if port == 0:
            raise _refuse("the port must be 1 to 65535")
        return cls(
            host=host,
            port=DEFAULT_PORT if port is None else port,
            user=_unquote(parts.username, "the user") or "guest",
            password=_unquote(parts.password, "the password") or "guest",
            virtual_host=_unquote(parts.path[1:], "the vhost") or "/",
            heartbeat=_read_heartbeat(parts.query, heartbeat),
            connection_name=connection_name,
        )

    @property
    def uri_redacted(self) -> str:
        """The URI, for people: with stars in place of the password."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        user = urllib.parse.quote(self.user, safe="")
        vhost = "" if self.virtual_host == "/" else urllib.parse.quote(self.virtual_host, safe="")
        return f"amqp://{user}:{REDACTED}@{host}:{self.port}/{vhost}"

    def to_pika(self) -> pika.ConnectionParameters:
        """Return what pika connects with: one attempt, ours is the loop that tries again."""
        return pika.ConnectionParameters(
            host=self.host,
            port=self.port,
            virtual_host=self.virtual_host,
            credentials=pika.PlainCredentials(self.user, self.password),
            heartbeat=self.heartbeat,
            connection_attempts=1,
            socket_timeout=SOCKET_TIMEOUT_SECONDS,
            stack_timeout=STACK_TIMEOUT_SECONDS,
            client_properties={"connection_name": self.connection_name},
        )


def _refuse(reason: str) -> ConfigurationError:
    return ConfigurationError(
        f"AMQP_URI cannot be used: {reason} (expected amqp://user:password@host:5672/vhost)"
    )


def _check_shape(parts: urllib.parse.SplitResult) -> None:
    if parts.scheme not in SCHEMES:
        raise _refuse("it must begin with amqp://; TLS (amqps://) is not supported yet")
    if ";" in parts.netloc or ";" in parts.path:
        raise _refuse("it must name one broker, not a list")
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
