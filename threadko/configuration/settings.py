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
    decides about it.
    """

    name: str
    default: Any
    check: Check
    doc: str
    refuses_none: bool = False

    def read(self, entries: Mapping[str, Any]) -> Any:
        """Return the checked value from entries by lower-case name."""
        value = entries.get(self.name.lower(), self.default)
        if value is None and not self.refuses_none:
            value = self.default
        if value is None and not self.refuses_none:
            return None
        return self.check(self.name, value)


#: All keys that are read, by name.
KEYS: dict[str, Key] = {
    key.name: key
    for key in (
        Key(
            constants.AMQP_URI_CONFIG_KEY,
            constants.DEFAULT_AMQP_URI,
            _check_uri,
            "the broker and the virtual host in it; several nodes in a list, or joined by ;",
        ),
        Key(
            constants.AMQP_SSL_CONFIG_KEY,
            None,
            _check_tls,
            "TLS: true, or a mapping of ca_certs, certfile, keyfile, ...",
        ),
        Key(
            constants.LOGIN_METHOD_CONFIG_KEY,
            None,
            _check_login_method,
            "PLAIN, AMQPLAIN or EXTERNAL; PLAIN by default",
        ),
        Key(
            constants.HEARTBEAT_CONFIG_KEY,
            constants.DEFAULT_HEARTBEAT,
            _check_heartbeat,
            "seconds; a connection is dead when nothing was heard for two of them",
            refuses_none=True,
        ),
        Key(
            constants.PREFETCH_COUNT_CONFIG_KEY,
            None,
            _check_prefetch_count,
            "messages that one consumer holds, begun or waiting; twice max_workers by default",
        ),
        Key(
            constants.MAX_WORKERS_CONFIG_KEY,
            constants.DEFAULT_MAX_WORKERS,
            _check_max_workers,
            "workers that run at once in a container",
        ),
        Key(
            constants.PARENT_CALLS_CONFIG_KEY,
            constants.DEFAULT_PARENT_CALLS_TRACKED,
            _whole_number(0),
            "ids of calling workers that a call carries along",
        ),
        Key(
            constants.SERIALIZER_CONFIG_KEY,
            constants.DEFAULT_SERIALIZER,
            _check_name,
            "how requests and messages are encoded",
        ),
        Key(
            constants.ACCEPT_CONFIG_KEY,
            None,
            _check_names,
            "the serializers that consumers accept; only `serializer` by default",
        ),
        Key(
            constants.SERIALIZERS_CONFIG_KEY,
            {},
            _check_serializers,
            "serializers of one's own, by name: encoder, decoder, content_type, content_encoding",
        ),
        Key(
            constants.RPC_EXCHANGE_CONFIG_KEY,
            "nameko-rpc",
            _check_name,
            "the exchange of RPC requests and replies",
        ),
        Key("RPC_TIMEOUT", None, _seconds(), "seconds for an RPC call in all; none by default"),
        Key("PUBLISH_TIMEOUT", 10.0, _seconds(), "seconds for a publish in all"),
        Key("PUBLISH_WINDOW", 1000, _whole_number(1), "unconfirmed messages on one connection"),
        Key(
            "SHUTDOWN_TIMEOUT",
            25.0,
            _seconds(zero=True),
            "seconds that running workers have to finish; then they are abandoned",
        ),
        Key(
            "BROKER_START_TIMEOUT",
            None,
            _seconds(),
            "seconds that a start waits for the broker; for ever by default",
        ),
        Key(
            "CONSUMER_WATCHDOG",
            0.0,
            _seconds(zero=True),
            "seconds between checks whether messages wait that do not come; none with 0",
        ),
        Key(
            "MAX_MESSAGE_SIZE",
            16 * 1024 * 1024,
            _whole_number(1),
            "bytes of a body, to send or unpacked",
        ),
        Key(
            "STUCK_WARNING",
            60.0,
            _check_stuck_warning,
            "seconds; a warning when all workers are busy for that long; none with 0 or None",
            refuses_none=True,
        ),
        Key("RPC_QUEUE_ARGUMENTS", {}, _check_mapping, "arguments of the queues of requests"),
        Key("EVENT_QUEUE_ARGUMENTS", {}, _check_mapping, "arguments of the queues of events"),
        Key(
            "AUTO_DELETE_EVENT_EXCHANGES",
            False,
            _check_flag,
            "whether the broker removes an exchange of events with its last queue",
        ),
        Key(
            "DECLARE_EVENT_EXCHANGES",
            True,
            _check_flag,
            "whether exchanges of events are declared, or left to others",
        ),
        Key("SWITCH_INTERVAL", 0.0005, _seconds(), "seconds between switches of Python threads"),
        Key("LOGGING", None, _check_mapping, "a dictConfig for `threadko run`"),
        Key("LOG_FORMAT", "text", _check_log_format, "text or json; of no effect with LOGGING"),
        Key(
            "HEALTH_ADDRESS",
            None,
            _check_address,
            "where /live and /ready are: [host:]port, [IPv6 address]:port or unix:/path",
        ),
        Key(
            "HEALTH_HUNG_TIMEOUT",
            1800.0,
            _seconds(),
            "seconds without a free worker, and without one ending, after which a service hangs",
        ),
        Key(
            constants.WEB_SERVER_CONFIG_KEY,
            "0.0.0.0:8000",
            _check_address,
            "where to serve HTTP: [host:]port, [IPv6 address]:port or unix:/path",
        ),
        Key("HTTP_SOCKET_MODE", "660", _check_mode, "permissions of a unix socket, in octal"),
        Key(
            "HTTP_MAX_HEADER_SIZE",
            32 * 1024,
            _whole_number(256),
            "bytes of a request's line and headers",
        ),
        Key("HTTP_MAX_BODY_SIZE", 16 * 1024 * 1024, _whole_number(0), "bytes of a request's body"),
        Key("HTTP_REQUEST_TIMEOUT", 30.0, _seconds(), "seconds to send a request in all"),
        Key("HTTP_IDLE_TIMEOUT", 60.0, _seconds(), "seconds that a connection may be silent"),
        Key(
            "HTTP_QUEUE_TIMEOUT",
            10.0,
            _seconds(zero=True),
            "seconds that a request waits for a worker; then it gets 503",
        ),
        Key("HTTP_MAX_CONNECTIONS", 1024, _whole_number(1), "connections at once"),
        Key("HTTP_WAITERS", 16, _whole_number(1, _MAX_WORKERS), "requests that wait for a worker"),
        Key("HTTP_TLS", None, _check_http_tls, "a mapping of certfile, keyfile, password"),
        Key(
            "HTTP_CORS",
            None,
            _check_cors,
            "a mapping of origins, headers, exposed, credentials, max_age; none by default",
        ),
        Key("WEBSOCKET_PATH", "/ws", _check_url_path, "where websockets are opened"),
        Key(
            "WEBSOCKET_ORIGINS",
            None,
            _check_texts,
            "origins of pages that may open websockets, * for all; the same host by default",
        ),
        Key("WEBSOCKET_MAX_SIZE", 1024 * 1024, _whole_number(1), "bytes of a message"),
        Key("WEBSOCKET_QUEUE", 64, _whole_number(1), "messages that wait for one slow reader"),
        Key("WEBSOCKET_PING", 20.0, _seconds(), "seconds of silence before a ping"),
        Key(
            "SERVICE_CONTAINER_CLS",
            None,
            _check_path,
            "dotted path of the class of all containers; `ServiceContainer` by default",
        ),
    )
}

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
