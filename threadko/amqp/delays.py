"""Messages that wait in the broker, and messages that have failed for good. Values, no I/O.

A delay queue holds a message for a fixed time, and the broker then passes it on where it was to go:
nobody's prefetch and nobody's worker is taken meanwhile, and a restart of everybody loses nothing.
There is one queue for each time, so that a long delay does not stand in the way of a short one.
Delay queues go by themselves when nobody has used them for longer than they hold anything, and are
therefore declared right before each message.

What has happened to a message travels in its headers, all of which begin with `x-threadko-`.
"""

import math
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from typing import Any

from threadko.amqp.entities import Exchange, Queue
from threadko.amqp.message import Delivery, Properties, decode_properties, encode_properties
from threadko.exceptions import ConfigurationError, EncodeError

__all__ = [
    "ERROR_HEADER",
    "EXCHANGE_HEADER",
    "FAILURES_HEADER",
    "FIRST_DEATH_HEADER",
    "Forward",
    "REASON_HEADER",
    "ROUTING_KEY_HEADER",
    "Retry",
    "count_failures",
    "dead_queue",
    "delay_before_exchange",
    "delay_before_queue",
    "make_dead",
    "make_retry",
    "strip_history",
    "to_milliseconds",
]

#: How often the message was handled and failed.
FAILURES_HEADER = "x-threadko-failures"
#: When it first failed, or was found to be unreadable: ISO 8601, UTC.
FIRST_DEATH_HEADER = "x-threadko-first-death"
#: Where it was published first.
EXCHANGE_HEADER = "x-threadko-exchange"
ROUTING_KEY_HEADER = "x-threadko-routing-key"
#: Why it is in a dead queue: `exhausted`, `failed` or `undecodable`.
REASON_HEADER = "x-threadko-reason"
#: The type and the text of the last error.
ERROR_HEADER = "x-threadko-error"

_HISTORY = (
    FAILURES_HEADER,
    FIRST_DEATH_HEADER,
    EXCHANGE_HEADER,
    ROUTING_KEY_HEADER,
    REASON_HEADER,
    ERROR_HEADER,
)

#: The broker would send a copy to each queue that they name, again.
_ROUTING_HEADERS = ("CC", "BCC")

_MAX_DELAY = 0xFFFFFFFF // 2000  # seconds; the queue lives twice as long, in 32 bits of ms
_SPARE_MILLISECONDS = 600_000  # guessed: between declaring a delay queue and publishing to it
_MAX_TEXT = 1000  # characters of an error
_MAX_FAILURES = 0x7FFFFFFF  # whatever a stranger's header says, it is counted on from there


@dataclass(frozen=True)
class Retry:
    """How a failed message is tried again.

    Args:
        max: how often, after the first time.
        delays: seconds before the first retry, the second, ...; the last is used for all others.
        exceptions: for which errors; others end it at once.

    Raises:
        ConfigurationError: one of these cannot be used.
    """

    max: int = 5
    delays: tuple[float, ...] = (1, 10, 60)
    exceptions: type[BaseException] | tuple[type[BaseException], ...] = field(default=Exception)

    def __post_init__(self) -> None:
        if isinstance(self.max, bool) or not isinstance(self.max, int) or self.max < 1:
            raise ConfigurationError(f"max of a Retry must be 1 or more, not {self.max!r}")
        delays = _as_tuple(self.delays, (int, float), "delays of a Retry must be seconds")
        if not delays:
            raise ConfigurationError("a Retry needs at least one delay")
        for delay in delays:
            to_milliseconds(delay, "a delay of a Retry")
        object.__setattr__(self, "delays", delays)
        kinds = _as_tuple(self.exceptions, type, "exceptions of a Retry must be classes")
        if not all(isinstance(kind, type) and issubclass(kind, BaseException) for kind in kinds):
            raise ConfigurationError(f"exceptions of a Retry must be classes, not {kinds!r}")
        object.__setattr__(self, "exceptions", kinds)

    def delay_after(self, failures: int) -> float:
        """Return the seconds to wait after so many failures, which are 1 or more."""
        return self.delays[min(failures, len(self.delays)) - 1]


def _as_tuple(value: Any, single: Any, complaint: str) -> tuple[Any, ...]:
    if isinstance(value, single):
        return (value,)
    if not isinstance(value, Iterable):
        raise ConfigurationError(f"{complaint}, not {value!r}")
    return tuple(value)


def to_milliseconds(seconds: Any, what: str = "delay") -> int:
    """Return seconds as the broker counts them, 1 or more; `ConfigurationError` if they cannot be.

    Args:
        what: stands in the error.
    """
    is_number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
    if not is_number or not 0 < seconds <= _MAX_DELAY:
        raise ConfigurationError(
            f"{what} must be seconds, above 0 and at most {_MAX_DELAY}, not {seconds!r}"
        )
    return math.ceil(float(seconds) * 1000)


def delay_before_queue(queue: str, milliseconds: int) -> Queue:
    """Return the queue from which messages go on to `queue` after that time."""
    return _delay_queue(f"{queue}.delay-{milliseconds}", milliseconds, "", queue)


def delay_before_exchange(exchange: str, milliseconds: int) -> Queue:
    """Return a queue, bound to an exchange of its name; what is published there goes on.

    It goes to `exchange`, with the routing key that it was published with.
    """
    # Not as above: queues are often named like their exchange, and both may have delays.
    name = f"{exchange or 'threadko-default'}.delayed-{milliseconds}"
    return _delay_queue(
        name, milliseconds, exchange, None, Exchange(name, "fanout", auto_delete=True)
    )


def _delay_queue(
    name: str,
    milliseconds: int,
    exchange: str,
    routing_key: str | None,
    bound_to: Exchange | None = None,
) -> Queue:
    arguments: dict[str, Any] = {
        "x-message-ttl": milliseconds,
        "x-expires": 2 * milliseconds + _SPARE_MILLISECONDS,
        "x-dead-letter-exchange": exchange,
    }
    if routing_key is not None:
        arguments["x-dead-letter-routing-key"] = routing_key
    return Queue(name, bound_to, durable=True, arguments=arguments)


def dead_queue(queue: str) -> Queue:
    """Return the queue of the messages of `queue` that have failed for good."""
    return Queue(f"{queue}.dead", durable=True)


def count_failures(headers: Mapping[str, Any]) -> int:
    """Return how often a message has failed, as its headers say; 0 if they say nothing sensible."""
    failures = headers.get(FAILURES_HEADER)
    if isinstance(failures, int) and not isinstance(failures, bool):
        return min(max(failures, 0), _MAX_FAILURES)
    return 0


@dataclass(frozen=True)
class Forward:
    """A message to be sent in place of one that has failed."""

    queue: Queue  # declared first; the message goes there by the default exchange
    header: bytes
    body: bytes


def make_retry(
    delivery: Delivery,
    queue: str,
    user: str,
    retry: Retry,
    error: BaseException,
    *,
    room: int | None = None,
) -> Forward:
    """Return the message that comes back to `queue` for the next attempt.

    Args:
        room: bytes that its properties may have; any number if None.

    Raises:
        EncodeError: its headers cannot be sent any more, and it must not run without them.
    """
    headers = _read_headers(delivery)
    failures = count_failures(headers) + 1
    milliseconds = to_milliseconds(retry.delay_after(failures))
    whole = {**headers, **_history(delivery, headers, failures, error)}
    header = _encode(delivery, user, [whole, _without_error(whole)], room)
    return Forward(delay_before_queue(queue, milliseconds), header, delivery.body)


def make_dead(
    delivery: Delivery,
    queue: str,
    user: str,
    reason: str,
    error: BaseException,
    *,
    room: int | None = None,
) -> Forward:
    """Return the message for the dead queue of `queue`, without its own headers if need be.

    Args:
        room: bytes that its properties may have; any number if None.
    """
    headers = _read_headers(delivery)
    failures = count_failures(headers) + (reason != "undecodable")
    history = {**_history(delivery, headers, failures, error), REASON_HEADER: reason}
    whole = {**headers, **history}
    header = _encode(delivery, user, [whole, _without_error(whole), history], room)
    return Forward(dead_queue(queue), header, delivery.body)


def strip_history(headers: Mapping[str, Any]) -> dict[str, Any]:
    """Return headers without what was written here: those of a message that begins anew."""
    return {name: value for name, value in headers.items() if name not in _HISTORY}


def _history(
    delivery: Delivery, headers: Mapping[str, Any], failures: int, error: BaseException
) -> dict[str, Any]:
    now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
    try:
        text = f"{type(error).__name__}: {error}"
    except BaseException:  # the user's own
        text = type(error).__name__
    return {
        FAILURES_HEADER: failures,
        ERROR_HEADER: text[:_MAX_TEXT].encode("utf-8", "replace").decode(),
        FIRST_DEATH_HEADER: headers.get(FIRST_DEATH_HEADER, now),
        # After a retry the message comes from the default exchange.
        EXCHANGE_HEADER: headers.get(EXCHANGE_HEADER, delivery.exchange),
        ROUTING_KEY_HEADER: headers.get(ROUTING_KEY_HEADER, delivery.routing_key),
    }


def _without_error(headers: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in headers.items() if name != ERROR_HEADER}


def _read_properties(delivery: Delivery) -> Properties:
    """Return them as they arrived: whoever has handled the message may have changed its headers."""
    return decode_properties(delivery.header)


def _read_headers(delivery: Delivery) -> dict[str, Any]:
    try:
        headers = _read_properties(delivery).headers or {}
    except ValueError:
        return {}
    return {name: value for name, value in headers.items() if name not in _ROUTING_HEADERS}


def _encode(
    delivery: Delivery,
    user: str,
    candidates: Iterable[dict[str, Any]],
    room: int | None,
) -> bytes:
    """Return the properties with the first headers that can be sent in so many bytes."""
    tables = list(candidates)
    shapes = [Properties(delivery_mode=2)]
    with suppress(ValueError):
        properties = _read_properties(delivery)
        # The time for which it was of interest counted until somebody took it. The broker takes
        # no other user's name from us.
        user_id = properties.user_id if properties.user_id == user else None
        shapes.insert(0, replace(properties, expiration=None, user_id=user_id, delivery_mode=2))
    refusal = EncodeError("its headers have no room for what has happened to it")
    for shape in shapes:  # rubbish may be among its own, which went through once and would not now
        for headers in tables:
            try:
                header = encode_properties(replace(shape, headers=headers))
            except EncodeError as error:
                refusal = error
                continue
            if room is None or len(header) <= room:
                return header
    raise refusal
