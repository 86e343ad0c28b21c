"""Every key that threadko reads: its default, its check and its meaning, in one table.

Keys are matched without regard to case, and the spelling of the table wins where both are given.
"""

import difflib
import logging
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from threadko import constants
from threadko.configuration.checks import (
    MAX_WORKERS,
    Check,
    check_address,
    check_cors,
    check_flag,
    check_heartbeat,
    check_http_tls,
    check_log_format,
    check_login_method,
    check_mapping,
    check_max_workers,
    check_mode,
    check_name,
    check_names,
    check_path,
    check_prefetch_count,
    check_serializers,
    check_stuck_warning,
    check_texts,
    check_tls,
    check_uri,
    check_url_path,
    seconds,
    whole_number,
)

__all__ = ["KEYS", "Key", "OTHER_KEYS", "SECTIONS", "find_key", "warn_near_misses"]

_log = logging.getLogger(__name__)


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
            check_uri,
            (
                "the broker, and the virtual host in it; several nodes of a cluster in a "
                "list, or joined by ``;``"
            ),
        ),
        Key(
            constants.AMQP_SSL_CONFIG_KEY,
            "mapping or true",
            None,
            check_tls,
            "TLS: certificates, and how the broker's own is checked. See `TLS <connecting.rst>`__",
        ),
        Key(
            constants.LOGIN_METHOD_CONFIG_KEY,
            "string",
            None,
            check_login_method,
            "how to log in: ``PLAIN``, ``AMQPLAIN`` or ``EXTERNAL``",
            default_doc="PLAIN",
        ),
        Key(
            constants.HEARTBEAT_CONFIG_KEY,
            "whole seconds, 1 to 65535",
            constants.DEFAULT_HEARTBEAT,
            check_heartbeat,
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
            seconds(),
            (
                "how long a start waits for a broker that is not there; for ever by "
                "default. One that refuses ends the start at once"
            ),
        ),
        Key(
            "CONSUMER_WATCHDOG",
            "seconds, 0 or more",
            0.0,
            seconds(zero=True),
            (
                "between checks whether messages wait that do not come "
                "(`a watchdog for silent consumers <rabbitmq.rst>`_); 0 is never"
            ),
        ),
        Key(
            "PUBLISH_TIMEOUT",
            "seconds",
            10.0,
            seconds(),
            "for a publish in all, its confirmation included",
        ),
        Key(
            "PUBLISH_WINDOW",
            "whole number, 1 or more",
            1000,
            whole_number(1),
            "messages on one connection that the broker has yet to confirm",
        ),
        Key(
            "MAX_MESSAGE_SIZE",
            "bytes, 1 or more",
            16 * 1024 * 1024,
            whole_number(1),
            "of a body; a larger one is not sent, and none is unpacked beyond it",
        ),
    ),
    "services": (
        Key(
            constants.MAX_WORKERS_CONFIG_KEY,
            "whole number, up to 10000",
            constants.DEFAULT_MAX_WORKERS,
            check_max_workers,
            "workers that run at once in a container, each in a thread; 0 is the default",
        ),
        Key(
            constants.PREFETCH_COUNT_CONFIG_KEY,
            "whole number, 1 to 65535",
            None,
            check_prefetch_count,
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
            whole_number(0),
            "ids of calling workers that a call carries along",
        ),
        Key(
            "SHUTDOWN_TIMEOUT",
            "seconds, 0 or more",
            25.0,
            seconds(zero=True),
            "that running workers have to finish when a container stops; then they are abandoned",
        ),
        Key(
            "STUCK_WARNING",
            "seconds, 0 or more",
            60.0,
            check_stuck_warning,
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
            check_path,
            "the class of all containers, a subclass of ``ServiceContainer``",
        ),
    ),
    "rpc": (
        Key(
            constants.RPC_EXCHANGE_CONFIG_KEY,
            "string",
            "nameko-rpc",
            check_name,
            "the exchange of requests and replies; the same for all that call one another",
        ),
        Key(
            "RPC_TIMEOUT",
            "seconds",
            None,
            seconds(),
            "for a call in all; a client or a call may have its own",
        ),
        Key(
            "RPC_QUEUE_ARGUMENTS",
            "mapping",
            {},
            check_mapping,
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
            check_flag,
            (
                "whether the broker removes an exchange of events with its last queue; "
                "the same in a whole fleet"
            ),
        ),
        Key(
            "DECLARE_EVENT_EXCHANGES",
            "bool",
            True,
            check_flag,
            "whether exchanges of events are declared, or left to others",
        ),
        Key(
            "EVENT_QUEUE_ARGUMENTS",
            "mapping",
            {},
            check_mapping,
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
            check_name,
            "how requests and messages are encoded; a reply is encoded as its request was",
        ),
        Key(
            constants.ACCEPT_CONFIG_KEY,
            "list of strings",
            None,
            check_names,
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
            check_serializers,
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
            check_mapping,
            "a ``logging.config.dictConfig``; by default INFO and above go to stderr",
        ),
        Key(
            "LOG_FORMAT",
            "``text`` or ``json``",
            "text",
            check_log_format,
            (
                "lines for people, or a JSON object to a line; of no effect with "
                "``LOGGING``. See `Logs <commands.rst>`__"
            ),
        ),
        Key(
            "HEALTH_ADDRESS",
            "string",
            None,
            check_address,
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
            seconds(),
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
            seconds(),
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
            check_address,
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
            check_mode,
            "permissions of a unix socket, in octal",
        ),
        Key(
            "HTTP_MAX_HEADER_SIZE",
            "bytes",
            32 * 1024,
            whole_number(256),
            "of a request's line and headers; 414 or 431 beyond",
        ),
        Key(
            "HTTP_MAX_BODY_SIZE",
            "bytes",
            16 * 1024 * 1024,
            whole_number(0),
            "of a request's body; 413 beyond",
        ),
        Key(
            "HTTP_REQUEST_TIMEOUT",
            "seconds",
            30.0,
            seconds(),
            (
                "to send a request in all (408), and for a client to take the next part "
                "of its response"
            ),
        ),
        Key(
            "HTTP_IDLE_TIMEOUT",
            "seconds",
            60.0,
            seconds(),
            "that a connection may be silent between requests",
        ),
        Key(
            "HTTP_QUEUE_TIMEOUT",
            "seconds",
            10.0,
            seconds(zero=True),
            "that a request waits for a worker; then it gets 503 with ``Retry-After``",
        ),
        Key(
            "HTTP_MAX_CONNECTIONS",
            "whole number",
            1024,
            whole_number(1),
            "connections at once; 503 beyond",
        ),
        Key(
            "HTTP_WAITERS",
            "whole number",
            16,
            whole_number(1, MAX_WORKERS),
            "requests that wait for a worker, each in a thread, beside those that have one",
        ),
        Key(
            "HTTP_TLS",
            "mapping",
            None,
            check_http_tls,
            "HTTPS: ``certfile``, and if they are needed ``keyfile`` and ``password``",
        ),
        Key(
            "HTTP_CORS",
            "mapping",
            None,
            check_cors,
            (
                'pages of other origins that may ask: ``origins`` (a list, ``"*"`` for '
                "all), ``headers``, ``exposed``, ``credentials``, ``max_age``"
            ),
        ),
    ),
    "websockets": (
        Key("WEBSOCKET_PATH", "string", "/ws", check_url_path, "where websockets are opened"),
        Key(
            "WEBSOCKET_ORIGINS",
            "list of strings",
            None,
            check_texts,
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
            whole_number(1),
            "of a message; the socket is closed with 1009 beyond",
        ),
        Key(
            "WEBSOCKET_QUEUE",
            "whole number",
            64,
            whole_number(1),
            "messages that wait for one reader; it is cut off beyond",
        ),
        Key(
            "WEBSOCKET_PING",
            "seconds",
            20.0,
            seconds(),
            "of silence, then the other side is pinged; after twice that it is cut off",
        ),
    ),
}

#: The same, by name.
KEYS: dict[str, Key] = {key.name: key for keys in SECTIONS.values() for key in keys}

#: Known to nameko, and not read; here so that they are not taken for misspellings, and so that the
#: environment can give them.
OTHER_KEYS = (constants.TRANSPORT_OPTIONS_CONFIG_KEY,)

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
