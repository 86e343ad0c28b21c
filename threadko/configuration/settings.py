"""Every key that threadko reads: its default, its check and its meaning, in one table.

Settings are taken at the edge, when an extension is set up; the code below is passed values. Keys
are matched without regard to case, and the spelling of the table wins where both are given.
"""

import difflib
import logging
import re
import reprlib
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from threadko import constants
from threadko.exceptions import ConfigurationError

__all__ = [
    "BrokerSettings",
    "CodecSettings",
    "ContainerSettings",
    "EventSettings",
    "HealthSettings",
    "KEYS",
    "Key",
    "OTHER_KEYS",
    "ProcessSettings",
    "RpcSettings",
    "RunnerSettings",
    "SECTIONS",
    "SerializationSettings",
    "WebSettings",
    "WebSocketSettings",
    "find_key",
    "warn_near_misses",
]

_log = logging.getLogger(__name__)

#: What fits into the 16 bits that AMQP has for a heartbeat or a prefetch count.
_LARGEST = 1e15  # guessed: no number of anything here is larger
_MAX_WORKERS = 10_000  # guessed: each is a thread, made when the service starts
_MAX_SHORT = 0xFFFF

Check = Callable[[str, Any], Any]


def _refuse(name: str, allowed: str, value: Any) -> ConfigurationError:
    return ConfigurationError(f"{name} must be {allowed}, not {reprlib.repr(value)}")


def _refuse_type(name: str, allowed: str, value: Any) -> ConfigurationError:
    """Like `_refuse` for values that may hold secrets."""
    return ConfigurationError(f"{name} must be {allowed}, not a {type(value).__name__}")


def _is_whole(value: Any) -> bool:
    # True is an int to Python, and never meant as one here.
    return _is_number(value) and value == int(value)


def _is_number(value: Any) -> bool:
    # Compared, for math.isfinite() overflows with a large int; NaN compares as False.
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and abs(value) <= _LARGEST


def _whole_number(least: int, most: int | None = None, unit: str = "") -> Check:
    allowed = f"a whole number{unit}, {least} or more"
    if most is not None:
        allowed = f"a whole number{unit} from {least} to {most}"

    def check(name: str, value: Any) -> int:
        if not _is_whole(value) or value < least or (most is not None and value > most):
            raise _refuse(name, allowed, value)
        return int(value)

    return check


def _seconds(*, zero: bool = False) -> Check:
    allowed = "a number of seconds, 0 or more" if zero else "a number of seconds above 0"

    def check(name: str, value: Any) -> float:
        if not _is_number(value) or value < 0 or (value == 0 and not zero):
            raise _refuse(name, allowed, value)
        return float(value)

    return check


def _check_stuck_warning(name: str, value: Any) -> float | None:
    if value is None:
        return None
    result: float = _seconds(zero=True)(name, value)
    return result or None


def _check_heartbeat(name: str, value: Any) -> int:
    if value is None or value == 0:
        raise ConfigurationError(
            f"{name} must not be {value!r}: without heartbeats a dead connection is never "
            f"noticed; give a whole number of seconds, such as {constants.DEFAULT_HEARTBEAT}"
        )
    result: int = _whole_number(1, _MAX_SHORT, " of seconds")(name, value)
    return result


def _check_max_workers(name: str, value: Any) -> int:
    result: int = _whole_number(0, _MAX_WORKERS)(name, value)
    return result or constants.DEFAULT_MAX_WORKERS


def _check_prefetch_count(name: str, value: Any) -> int | None:
    result: int = _whole_number(0, _MAX_SHORT)(name, value)
    if result == 0:
        _log.warning(
            "%s is 0, which would let one consumer hoard its whole queue; "
            "twice the number of workers is used instead",
            name,
        )
        return None
    return result


def _check_uri(name: str, value: Any) -> str | tuple[str, ...]:
    uris = value if isinstance(value, (list, tuple)) else (value,)
    if not uris or not all(isinstance(uri, str) and uri.strip() for uri in uris):
        what = "a URI such as amqp://user:password@host:5672/vhost, or a list of them"
        raise _refuse_type(name, what, value)
    stripped = tuple(uri.strip() for uri in uris)
    return stripped if len(stripped) > 1 else stripped[0]


def _check_login_method(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise _refuse_type(name, "PLAIN, AMQPLAIN or EXTERNAL", value)
    return value


def _check_tls(name: str, value: Any) -> Any:
    if isinstance(value, (str, int, float)) and not isinstance(value, bool):
        raise _refuse_type(name, "true or a mapping of options", value)
    return value


def _check_name(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise _refuse(name, "a name", value)
    return value


def _check_path(name: str, value: Any) -> str:
    if not isinstance(value, str) or not all(map(str.isidentifier, value.split("."))):
        raise _refuse(name, "a dotted path such as package.module.Class", value)
    return value


def _check_names(name: str, value: Any) -> tuple[str, ...]:
    is_list = isinstance(value, (list, tuple)) and len(value) > 0
    if not is_list or not all(isinstance(item, str) and item for item in value):
        raise _refuse(name, "a list of serializer names, such as [json]", value)
    return tuple(value)


def _check_flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise _refuse(name, "true or false", value)
    return value


def _check_address(name: str, value: Any) -> str | int:
    is_port = isinstance(value, int) and not isinstance(value, bool)
    if not is_port and (not isinstance(value, str) or not value):
        raise _refuse(name, "[host:]port, [IPv6 address]:port or unix:/path", value)
    return value  # type: ignore[no-any-return]


def _check_log_format(name: str, value: Any) -> str:
    if value not in ("text", "json"):
        raise _refuse(name, "text or json", value)
    return str(value)


def _check_url_path(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value.startswith("/"):
        raise _refuse(name, "a path that begins with /", value)
    return value


def _check_mode(name: str, value: Any) -> int:
    text = str(value)
    if isinstance(value, bool) or not re.fullmatch("0?[0-7]{3}", text):
        raise _refuse(name, "three octal digits such as '660', in quotes", value)
    return int(text, 8)


def _check_http_tls(name: str, value: Any) -> dict[str, str]:
    entries = _check_mapping(name, value)
    known = ("certfile", "keyfile", "password")
    for key, each in entries.items():
        if key not in known or not isinstance(each, str):
            raise ConfigurationError(f"{name} takes text for {', '.join(known)}, not {key!r}")
    if "certfile" not in entries:
        raise ConfigurationError(f"{name} needs the certfile")
    return entries


def _check_cors(name: str, value: Any) -> dict[str, Any]:
    entries = _check_mapping(name, value)
    known: dict[str, Check] = {
        "origins": _check_texts,
        "headers": _check_texts,
        "exposed": _check_texts,
    }
    known |= {"credentials": _check_flag, "max_age": _whole_number(0)}
    for key in entries:
        if key not in known:
            raise ConfigurationError(f"{name} has no {key}, only {', '.join(known)}")
    if "origins" not in entries:
        raise ConfigurationError(f"{name} needs the origins that may ask")
    return {key: known[key](f"{name}: {key}", each) for key, each in entries.items()}


def _check_texts(name: str, value: Any) -> tuple[str, ...]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, (list, tuple)) or not all(isinstance(item, str) for item in texts):
        raise _refuse(name, "a text or a list of texts", value)
    return tuple(texts)


def _check_mapping(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise _refuse_type(name, "a mapping whose keys are strings", value)
    return dict(value)


@dataclass(frozen=True)
class CodecSettings:
    """One entry of `SERIALIZERS`: two dotted paths, and the properties of what they write."""

    name: str
    encoder: str
    decoder: str
    content_type: str
    content_encoding: str = "utf-8"


def _check_serializers(name: str, value: Any) -> tuple[CodecSettings, ...]:
    entries = _check_mapping(name, value)
    return tuple(_check_codec(f"{name}: {key}", key, entries[key]) for key in entries)


def _check_codec(place: str, name: str, value: Any) -> CodecSettings:
    required = ("encoder", "decoder", "content_type")
    given = _check_mapping(place, value)
    for key in given:
        if key not in (*required, "content_encoding"):
            raise ConfigurationError(
                f"{place} has no {key}, only {', '.join(required)} and content_encoding"
            )
    for key in required:
        _check_name(f"{place}: {key}", given.get(key))
    codec = CodecSettings(name, **given)
    _check_encoding(f"{place}: content_encoding", codec.content_encoding)
    return codec


def _check_encoding(name: str, value: Any) -> None:
    allowed = "a character encoding such as utf-8, or binary"
    if not isinstance(value, str):
        raise _refuse(name, allowed, value)
    if value.lower() not in ("binary", "ascii-8bit"):
        try:
            "".encode(value)
        except (LookupError, ValueError):
            raise _refuse(name, allowed, value) from None


@dataclass(frozen=True)
class Key:
    """One key of the configuration.

    `check` is called with the name and the value that was given, and returns the value to use or
    raises `ConfigurationError`. None stands for the default, unless `refuses_none`: then the check
    decides about it. `type`, `default_doc` and `doc` are for the page about configuration; the
    second only where the default itself says too little.
    """

    name: str
    type: str
    default: Any
    check: Check
    doc: str
    refuses_none: bool = False
    default_doc: str = ""

    def read(self, entries: Mapping[str, Any]) -> Any:
        """Return the checked value from entries by lower-case name."""
        value = entries.get(self.name.lower(), self.default)
        if value is None and not self.refuses_none:
            value = self.default
        if value is None and not self.refuses_none:
            return None
        return self.check(self.name, value)


#: All keys that are read, by the section of the page that they stand in.
SECTIONS: dict[str, tuple[Key, ...]] = {
    "broker": (
        Key(
            constants.AMQP_URI_CONFIG_KEY,
            "string or list",
            constants.DEFAULT_AMQP_URI,
            _check_uri,
            (
                "the broker, and the virtual host in it; several nodes of a cluster in a "
                "list, or joined by ``;``"
            ),
        ),
        Key(
            constants.AMQP_SSL_CONFIG_KEY,
            "mapping or true",
            None,
            _check_tls,
            "TLS: certificates, and how the broker's own is checked. See `TLS <connecting.rst>`__",
        ),
        Key(
            constants.LOGIN_METHOD_CONFIG_KEY,
            "string",
            None,
            _check_login_method,
            "how to log in: ``PLAIN``, ``AMQPLAIN`` or ``EXTERNAL``",
            default_doc="PLAIN",
        ),
        Key(
            constants.HEARTBEAT_CONFIG_KEY,
            "whole seconds, 1 to 65535",
            constants.DEFAULT_HEARTBEAT,
            _check_heartbeat,
            (
                "a connection is dead when nothing was heard for two of them; 0 and null "
                "are refused, for without heartbeats a dead connection is never noticed"
            ),
            refuses_none=True,
        ),
        Key(
            "BROKER_START_TIMEOUT",
            "seconds",
            None,
            _seconds(),
            (
                "how long a start waits for a broker that is not there; for ever by "
                "default. One that refuses ends the start at once"
            ),
        ),
        Key(
            "CONSUMER_WATCHDOG",
            "seconds, 0 or more",
            0.0,
            _seconds(zero=True),
            (
                "between checks whether messages wait that do not come "
                "(`a watchdog for silent consumers <rabbitmq.rst>`_); 0 is never"
            ),
        ),
        Key(
            "PUBLISH_TIMEOUT",
            "seconds",
            10.0,
            _seconds(),
            "for a publish in all, its confirmation included",
        ),
        Key(
            "PUBLISH_WINDOW",
            "whole number, 1 or more",
            1000,
            _whole_number(1),
            "messages on one connection that the broker has yet to confirm",
        ),
        Key(
            "MAX_MESSAGE_SIZE",
            "bytes, 1 or more",
            16 * 1024 * 1024,
            _whole_number(1),
            "of a body; a larger one is not sent, and none is unpacked beyond it",
        ),
    ),
    "services": (
        Key(
            constants.MAX_WORKERS_CONFIG_KEY,
            "whole number, up to 10000",
            constants.DEFAULT_MAX_WORKERS,
            _check_max_workers,
            "workers that run at once in a container, each in a thread; 0 is the default",
        ),
        Key(
            constants.PREFETCH_COUNT_CONFIG_KEY,
            "whole number, 1 to 65535",
            None,
            _check_prefetch_count,
            (
                "messages that one consumer holds, begun or waiting; 0 gives a warning "
                "and the default, for it would let one consumer hoard its whole queue"
            ),
            default_doc="twice ``max_workers``",
        ),
        Key(
            constants.PARENT_CALLS_CONFIG_KEY,
            "whole number, 0 or more",
            constants.DEFAULT_PARENT_CALLS_TRACKED,
            _whole_number(0),
            "ids of calling workers that a call carries along",
        ),
        Key(
            "SHUTDOWN_TIMEOUT",
            "seconds, 0 or more",
            25.0,
            _seconds(zero=True),
            "that running workers have to finish when a container stops; then they are abandoned",
        ),
        Key(
            "STUCK_WARNING",
            "seconds, 0 or more",
            60.0,
            _check_stuck_warning,
            (
                "after which a warning shows the stacks of all workers if none of them "
                "has ended; also turns on the warning that a service waits for itself; 0 "
                "is never"
            ),
            refuses_none=True,
        ),
        Key(
            "SERVICE_CONTAINER_CLS",
            "dotted path",
            None,
            _check_path,
            "the class of all containers, a subclass of ``ServiceContainer``",
        ),
    ),
    "rpc": (
        Key(
            constants.RPC_EXCHANGE_CONFIG_KEY,
            "string",
            "nameko-rpc",
            _check_name,
            "the exchange of requests and replies; the same for all that call one another",
        ),
        Key(
            "RPC_TIMEOUT",
            "seconds",
            None,
            _seconds(),
            "for a call in all; a client or a call may have its own",
        ),
        Key(
            "RPC_QUEUE_ARGUMENTS",
            "mapping",
            {},
            _check_mapping,
            (
                "arguments of the queues of requests, such as ``{x-queue-type: quorum}``; "
                "those of a queue that exists cannot change"
            ),
        ),
    ),
    "events": (
        Key(
            "AUTO_DELETE_EVENT_EXCHANGES",
            "bool",
            False,
            _check_flag,
            (
                "whether the broker removes an exchange of events with its last queue; "
                "the same in a whole fleet"
            ),
        ),
        Key(
            "DECLARE_EVENT_EXCHANGES",
            "bool",
            True,
            _check_flag,
            "whether exchanges of events are declared, or left to others",
        ),
        Key(
            "EVENT_QUEUE_ARGUMENTS",
            "mapping",
            {},
            _check_mapping,
            (
                "arguments of the queues of event handlers, such as ``{x-queue-type: quorum}``; "
                "those with ``reliable_delivery=False`` stay classic"
            ),
        ),
    ),
    "serialization": (
        Key(
            constants.SERIALIZER_CONFIG_KEY,
            "string",
            constants.DEFAULT_SERIALIZER,
            _check_name,
            "how requests and messages are encoded; a reply is encoded as its request was",
        ),
        Key(
            constants.ACCEPT_CONFIG_KEY,
            "list of strings",
            None,
            _check_names,
            (
                "the serializers that consumers accept. Always a list, ``[json]`` for "
                "one: a string is refused"
            ),
            default_doc="``serializer`` alone",
        ),
        Key(
            constants.SERIALIZERS_CONFIG_KEY,
            "mapping",
            {},
            _check_serializers,
            (
                "serializers of your own, by name, each with ``encoder``, ``decoder`` "
                "(dotted paths), ``content_type`` and ``content_encoding``"
            ),
        ),
    ),
    "process": (
        Key(
            "LOGGING",
            "mapping",
            None,
            _check_mapping,
            "a ``logging.config.dictConfig``; by default INFO and above go to stderr",
        ),
        Key(
            "LOG_FORMAT",
            "``text`` or ``json``",
            "text",
            _check_log_format,
            (
                "lines for people, or a JSON object to a line; of no effect with "
                "``LOGGING``. See `Logs <commands.rst>`__"
            ),
        ),
        Key(
            "HEALTH_ADDRESS",
            "string",
            None,
            _check_address,
            (
                "where ``/live`` and ``/ready`` are served: ``[host:]port``, ``[IPv6 "
                "address]:port`` or ``unix:/path``; nowhere by default. See `Health "
                "<commands.rst>`__"
            ),
        ),
        Key(
            "HEALTH_HUNG_TIMEOUT",
            "seconds",
            1800.0,
            _seconds(),
            (
                "after which a service hangs, for ``/live``: all its workers are busy, "
                "and none has ended for so long. The default is when RabbitMQ takes "
                "messages back"
            ),
        ),
        Key(
            "SWITCH_INTERVAL",
            "seconds",
            0.0005,
            _seconds(),
            (
                "between switches of Python threads; short, so that a worker that "
                "computes does not hold up the connections"
            ),
        ),
    ),
    "http": (
        Key(
            constants.WEB_SERVER_CONFIG_KEY,
            "string",
            "0.0.0.0:8000",
            _check_address,
            (
                "where to serve HTTP: ``[host:]port``, ``[IPv6 address]:port`` or "
                "``unix:/path``. All services of a process that name the same address "
                "share it"
            ),
        ),
        Key(
            "HTTP_SOCKET_MODE",
            "string",
            "660",
            _check_mode,
            "permissions of a unix socket, in octal",
        ),
        Key(
            "HTTP_MAX_HEADER_SIZE",
            "bytes",
            32 * 1024,
            _whole_number(256),
            "of a request's line and headers; 414 or 431 beyond",
        ),
        Key(
            "HTTP_MAX_BODY_SIZE",
            "bytes",
            16 * 1024 * 1024,
            _whole_number(0),
            "of a request's body; 413 beyond",
        ),
        Key(
            "HTTP_REQUEST_TIMEOUT",
            "seconds",
            30.0,
            _seconds(),
            (
                "to send a request in all (408), and for a client to take the next part "
                "of its response"
            ),
        ),
        Key(
            "HTTP_IDLE_TIMEOUT",
            "seconds",
            60.0,
            _seconds(),
            "that a connection may be silent between requests",
        ),
        Key(
            "HTTP_QUEUE_TIMEOUT",
            "seconds",
            10.0,
            _seconds(zero=True),
            "that a request waits for a worker; then it gets 503 with ``Retry-After``",
        ),
        Key(
            "HTTP_MAX_CONNECTIONS",
            "whole number",
            1024,
            _whole_number(1),
            "connections at once; 503 beyond",
        ),
        Key(
            "HTTP_WAITERS",
            "whole number",
            16,
            _whole_number(1, _MAX_WORKERS),
            "requests that wait for a worker, each in a thread, beside those that have one",
        ),
        Key(
            "HTTP_TLS",
            "mapping",
            None,
            _check_http_tls,
            "HTTPS: ``certfile``, and if they are needed ``keyfile`` and ``password``",
        ),
        Key(
            "HTTP_CORS",
            "mapping",
            None,
            _check_cors,
            (
                'pages of other origins that may ask: ``origins`` (a list, ``"*"`` for '
                "all), ``headers``, ``exposed``, ``credentials``, ``max_age``"
            ),
        ),
    ),
    "websockets": (
        Key("WEBSOCKET_PATH", "string", "/ws", _check_url_path, "where websockets are opened"),
        Key(
            "WEBSOCKET_ORIGINS",
            "list of strings",
            None,
            _check_texts,
            (
                'origins of pages that may open them, ``"*"`` for all; 403 for others. '
                "Whoever sends no origin is no browser, and may"
            ),
            default_doc="the same host",
        ),
        Key(
            "WEBSOCKET_MAX_SIZE",
            "bytes",
            1024 * 1024,
            _whole_number(1),
            "of a message; the socket is closed with 1009 beyond",
        ),
        Key(
            "WEBSOCKET_QUEUE",
            "whole number",
            64,
            _whole_number(1),
            "messages that wait for one reader; it is cut off beyond",
        ),
        Key(
            "WEBSOCKET_PING",
            "seconds",
            20.0,
            _seconds(),
            "of silence, then the other side is pinged; after twice that it is cut off",
        ),
    ),
}

#: The same, by name.
KEYS: dict[str, Key] = {key.name: key for keys in SECTIONS.values() for key in keys}

#: Known to nameko, and not read; here so that they are not taken for misspellings, and so that the
#: environment can give them.
OTHER_KEYS = (constants.TRANSPORT_OPTIONS_CONFIG_KEY,)


class _Reader:
    """The values of one configuration, by the names of the table."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        # All at once: another thread may replace the configuration while it is read.
        entries = [(key, value) for key, value in config.items() if isinstance(key, str)]
        self._entries = {key.lower(): value for key, value in entries}
        self._entries |= {key.lower(): value for key, value in entries if key in KEYS}

    def __getitem__(self, name: str) -> Any:
        return KEYS[name].read(self._entries)


@dataclass(frozen=True)
class BrokerSettings:
    """How to reach the broker, and what to demand of it."""

    uri: str | tuple[str, ...]
    ssl: Any
    login_method: str | None
    heartbeat: int
    publish_timeout: float
    publish_window: int
    start_timeout: float | None
    consumer_watchdog: float
    max_message_size: int

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "BrokerSettings":
        """Return the settings in a configuration; `ConfigurationError` if a value is wrong."""
        values = _Reader(config)
        return cls(
            uri=values["AMQP_URI"],
            ssl=values["AMQP_SSL"],
            login_method=values["LOGIN_METHOD"],
            heartbeat=values["HEARTBEAT"],
            publish_timeout=values["PUBLISH_TIMEOUT"],
            publish_window=values["PUBLISH_WINDOW"],
            start_timeout=values["BROKER_START_TIMEOUT"],
            consumer_watchdog=values["CONSUMER_WATCHDOG"],
            max_message_size=values["MAX_MESSAGE_SIZE"],
        )

    def __repr__(self) -> str:
        # Without the URI, which may hold a password.
        return f"<BrokerSettings heartbeat={self.heartbeat}>"


@dataclass(frozen=True)
class EventSettings:
    """How the exchanges and queues of events are made."""

    auto_delete_exchanges: bool
    declare_exchanges: bool
    queue_arguments: Mapping[str, Any]

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "EventSettings":
        """Return the settings in a configuration; `ConfigurationError` if a value is wrong."""
        values = _Reader(config)
        return cls(
            auto_delete_exchanges=values["AUTO_DELETE_EVENT_EXCHANGES"],
            declare_exchanges=values["DECLARE_EVENT_EXCHANGES"],
            queue_arguments=values["EVENT_QUEUE_ARGUMENTS"],
        )


@dataclass(frozen=True)
class ContainerSettings:
    """How much a container does at once."""

    max_workers: int
    prefetch_count: int
    parent_calls_tracked: int
    shutdown_timeout: float
    stuck_warning: float | None

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "ContainerSettings":
        """Return the settings in a configuration; `ConfigurationError` if a value is wrong."""
        values = _Reader(config)
        max_workers = values["max_workers"]
        return cls(
            max_workers=max_workers,
            prefetch_count=values["PREFETCH_COUNT"] or 2 * max_workers,
            parent_calls_tracked=values["parent_calls_tracked"],
            shutdown_timeout=values["SHUTDOWN_TIMEOUT"],
            stuck_warning=values["STUCK_WARNING"],
        )


@dataclass(frozen=True)
class SerializationSettings:
    """How messages are written and which are read."""

    serializer: str
    accept: tuple[str, ...]
    serializers: tuple[CodecSettings, ...]
    max_message_size: int

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "SerializationSettings":
        """Return the settings in a configuration; `ConfigurationError` if a value is wrong."""
        values = _Reader(config)
        serializer = values["serializer"]
        return cls(
            serializer=serializer,
            accept=values["ACCEPT"] or (serializer,),
            serializers=values["SERIALIZERS"],
            max_message_size=values["MAX_MESSAGE_SIZE"],
        )


@dataclass(frozen=True)
class RpcSettings:
    """Where RPC requests go, and how long a call may take."""

    exchange: str
    timeout: float | None
    queue_arguments: Mapping[str, Any]

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "RpcSettings":
        """Return the settings in a configuration; `ConfigurationError` if a value is wrong."""
        values = _Reader(config)
        return cls(
            exchange=values["rpc_exchange"],
            timeout=values["RPC_TIMEOUT"],
            queue_arguments=values["RPC_QUEUE_ARGUMENTS"],
        )


@dataclass(frozen=True)
class WebSettings:
    """Where HTTP is served, and what a client may ask for."""

    address: str | int
    socket_mode: int
    max_header_size: int
    max_body_size: int
    request_timeout: float
    idle_timeout: float
    queue_timeout: float
    max_connections: int
    waiters: int
    tls: Mapping[str, str] | None
    cors: Mapping[str, Any] | None

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "WebSettings":
        """Return the settings in a configuration; `ConfigurationError` if a value is wrong."""
        values = _Reader(config)
        return cls(
            address=values["WEB_SERVER_ADDRESS"],
            socket_mode=values["HTTP_SOCKET_MODE"],
            max_header_size=values["HTTP_MAX_HEADER_SIZE"],
            max_body_size=values["HTTP_MAX_BODY_SIZE"],
            request_timeout=values["HTTP_REQUEST_TIMEOUT"],
            idle_timeout=values["HTTP_IDLE_TIMEOUT"],
            queue_timeout=values["HTTP_QUEUE_TIMEOUT"],
            max_connections=values["HTTP_MAX_CONNECTIONS"],
            waiters=values["HTTP_WAITERS"],
            tls=values["HTTP_TLS"],
            cors=values["HTTP_CORS"],
        )

    def __repr__(self) -> str:
        # Without TLS, which may hold a password.
        return f"<WebSettings {self.address}>"


@dataclass(frozen=True)
class WebSocketSettings:
    """Where websockets are opened, and what they may do."""

    path: str
    origins: tuple[str, ...] | None
    max_size: int
    queue: int
    ping: float
    max_connections: int

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "WebSocketSettings":
        """Return the settings in a configuration; `ConfigurationError` if a value is wrong."""
        values = _Reader(config)
        return cls(
            path=values["WEBSOCKET_PATH"],
            origins=values["WEBSOCKET_ORIGINS"],
            max_size=values["WEBSOCKET_MAX_SIZE"],
            queue=values["WEBSOCKET_QUEUE"],
            ping=values["WEBSOCKET_PING"],
            max_connections=values["HTTP_MAX_CONNECTIONS"],
        )


@dataclass(frozen=True)
class ProcessSettings:
    """What `threadko run` sets for the whole process."""

    switch_interval: float
    logging: Mapping[str, Any] | None
    log_format: str
    shutdown_timeout: float

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "ProcessSettings":
        """Return the settings in a configuration; `ConfigurationError` if a value is wrong."""
        values = _Reader(config)
        return cls(
            switch_interval=values["SWITCH_INTERVAL"],
            logging=values["LOGGING"],
            log_format=values["LOG_FORMAT"],
            shutdown_timeout=values["SHUTDOWN_TIMEOUT"],
        )


@dataclass(frozen=True)
class HealthSettings:
    """Where it is told whether services are well, and when they are not."""

    address: str | int | None
    hung_timeout: float

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "HealthSettings":
        """Return the settings in a configuration; `ConfigurationError` if a value is wrong."""
        values = _Reader(config)
        return cls(address=values["HEALTH_ADDRESS"], hung_timeout=values["HEALTH_HUNG_TIMEOUT"])


@dataclass(frozen=True)
class RunnerSettings:
    """What is settled before there are containers."""

    container_cls: str | None

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "RunnerSettings":
        """Return the settings in a configuration; `ConfigurationError` if a value is wrong."""
        return cls(container_cls=_Reader(config)["SERVICE_CONTAINER_CLS"])


_known_by_lower_name = {name.lower(): name for name in (*KEYS, *OTHER_KEYS)}
_warned_lock = threading.Lock()
_warned: set[str] = set()  # guarded by _warned_lock

# Guessed: lets a missing, doubled or swapped letter through, but not another word.
_LIKENESS = 0.85


def find_key(name: str) -> str | None:
    """Return the known key of that name, in the spelling of the table; None if there is none."""
    return _known_by_lower_name.get(name.lower())


def warn_near_misses(names: Iterable[str], prefix: str = "") -> None:
    """Log a WARNING for each name that looks like a misspelt key, once in this process.

    Those that do not begin with `prefix` are left alone.
    """
    for key in names:
        if not isinstance(key, str) or not key.startswith(prefix):
            continue
        name = key.removeprefix(prefix).lower()
        if name in _known_by_lower_name:
            continue
        near = difflib.get_close_matches(name, _known_by_lower_name, 1, _LIKENESS)
        if near and _is_first_warning(key):
            known = prefix + _known_by_lower_name[near[0]]
            _log.warning("configuration key %s is not read by threadko: is %s meant?", key, known)


def _is_first_warning(key: str) -> bool:
    with _warned_lock:
        is_first = key not in _warned
        _warned.add(key)
    return is_first
