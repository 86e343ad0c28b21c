"""What can be set for all requests of one caller: nameko's publisher options, read once.

Pure values, any thread. A mistake is an error where the option is written down, not a channel that
the broker closes over the first request.
"""

import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from threadko.amqp.message import (
    MAX_EXPIRATION,
    Properties,
    encode_properties,
    read_delivery_mode,
)
from threadko.exceptions import ConfigurationError, EncodeError
from threadko.serialization import check_compression

__all__ = [
    "CONFIGURED",
    "ConnectionOptions",
    "NO_OPTIONS",
    "RESTRICTED_PUBLISHER_OPTIONS",
    "RequestOptions",
    "read_options",
]

_log = logging.getLogger(__name__)

#: What a caller cannot choose: the protocol does.
RESTRICTED_PUBLISHER_OPTIONS = (
    "exchange",
    "routing_key",
    "mandatory",
    "correlation_id",
    "reply_to",
)

_PROPERTIES = ("timestamp", "type", "user_id", "app_id", "cluster_id")
_CONNECTION = ("uri", "ssl", "login_method")
#: Taken, and without effect: confirms are used always, and nobody waits for them.
_IGNORED = ("use_confirms",)

_warned_lock = threading.Lock()
_warned: set[str] = set()  # guarded by _warned_lock


@dataclass(frozen=True)
class ConnectionOptions:
    """Where to connect, if not to the broker of the configuration."""

    uri: Any = None
    ssl: Any = None
    login_method: str | None = None

    def __bool__(self) -> bool:
        return (self.uri, self.ssl, self.login_method) != (None, None, None)


CONFIGURED = ConnectionOptions()


@dataclass(frozen=True)
class RequestOptions:
    """How requests are sent.

    Attributes:
        serializer: the name of the one to write with; the configured one if None.
        headers: sent along with each request; context data wins over them.
        expiration: seconds after which the broker drops a request that nobody has taken.
        compression: such as `gzip`; none if None.
        resends: how often a request is written again when the connection is lost before its
            confirm, all within PUBLISH_TIMEOUT; None for as often as it takes.
        properties: those that are the same for all requests.
    """

    serializer: str | None = None
    headers: Mapping[str, Any] = field(default_factory=dict)
    expiration: float | None = None
    priority: int = 0
    delivery_mode: int = 2
    compression: str | None = None
    resends: int | None = None
    properties: Mapping[str, Any] = field(default_factory=dict)


NO_OPTIONS = RequestOptions()


def read_options(options: Mapping[str, Any]) -> tuple[RequestOptions, ConnectionOptions]:
    """Return what publisher options mean.

    Those that a caller cannot choose are dropped, as in nameko, with one warning in this process.

    Raises:
        TypeError: there is no such option.
        ConfigurationError: a value cannot be used.
    """
    values = {name: value for name, value in options.items() if value is not None}
    _drop_restricted(values)
    for name in _IGNORED:
        values.pop(name, None)
    connection = ConnectionOptions(**{n: values.pop(n) for n in _CONNECTION if n in values})
    headers = {**_read_mapping(values, "headers"), **_read_mapping(values, "extra_headers")}
    properties = {name: values.pop(name) for name in _PROPERTIES if name in values}
    resends = _read_resends(values)
    if "delivery_mode" in values:
        values["delivery_mode"] = read_delivery_mode(values["delivery_mode"])
    known = {each.name for each in fields(RequestOptions)} - {"headers", "resends", "properties"}
    unknown = sorted(set(values) - known)
    if unknown:
        extra = ("headers", "extra_headers", "retry", "retry_policy")
        there_are = sorted({*known, *extra, *_PROPERTIES, *_CONNECTION, *_IGNORED})
        raise TypeError(f"no option is named {unknown[0]!r}, there are: {', '.join(there_are)}")
    found = RequestOptions(headers=headers, resends=resends, properties=properties, **values)
    _check(found)
    return found, connection


def _drop_restricted(values: dict[str, Any]) -> None:
    given = [name for name in RESTRICTED_PUBLISHER_OPTIONS if name in values]
    for name in given:
        del values[name]
    with _warned_lock:
        new = [name for name in given if name not in _warned]
        _warned.update(new)
    if new:
        _log.warning("RPC chooses %s itself; the option has no effect", ", ".join(new))


def _read_mapping(values: dict[str, Any], name: str) -> dict[str, Any]:
    value = values.pop(name, {})
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise ConfigurationError(f"{name} must be a mapping with str keys")
    return dict(value)


def _read_resends(values: dict[str, Any]) -> int | None:
    policy = _read_mapping(values, "retry_policy")
    limit = policy.get("max_retries")
    if limit is not None and not _is_whole(limit, 0):
        raise ConfigurationError("max_retries in retry_policy must be a whole number or None")
    return limit if values.pop("retry", True) else 0


def _check(options: RequestOptions) -> None:
    for name in ("serializer", "compression"):
        value = getattr(options, name)
        if value is not None and not isinstance(value, str):
            raise ConfigurationError(f"{name} must be a name, not {value!r}")
    if options.compression is not None:
        check_compression(options.compression)
    expiration = options.expiration
    if expiration is not None:
        is_number = isinstance(expiration, (int, float)) and not isinstance(expiration, bool)
        if not is_number or not 0 <= expiration <= MAX_EXPIRATION / 1000:
            raise ConfigurationError(
                f"expiration must be seconds from 0 to {MAX_EXPIRATION // 1000}, not {expiration!r}"
            )
    try:
        encode_properties(
            Properties(
                headers=dict(options.headers), priority=options.priority, **options.properties
            )
        )
    except EncodeError as error:
        raise ConfigurationError(f"the options cannot be sent: {error}") from error


def _is_whole(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
