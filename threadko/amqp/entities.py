"""Exchanges and queues as values: what shall be there, not the thing itself.

The keywords are those of kombu, so that a declaration moves over from nameko as it stands; kombu's
own objects are taken by their shape, without kombu being known. What the broker would answer by
closing the channel is refused here, where the mistake is written down.
"""

import reprlib
from collections.abc import Collection, Mapping
from dataclasses import KW_ONLY, InitVar, dataclass, field
from typing import Any

import pika.data

from threadko.exceptions import ConfigurationError

__all__ = ["Binding", "Exchange", "Queue", "as_binding", "as_exchange", "as_queue"]

#: RabbitMQ refuses times (in ms) beyond 32 bits, and counts beyond 64 bits with a sign.
_MAX_MILLISECONDS = 0xFFFFFFFF
_MAX_COUNT = (1 << 63) - 1
_MAX_PRIORITY = 255


@dataclass(frozen=True)
class Exchange:
    """An exchange; without a name it is the broker's default exchange, which is never declared.

    `no_declare` leaves its declaration to others, `passive` only checks that it exists.
    """

    name: str = ""
    type: str = "direct"
    _: KW_ONLY
    durable: bool = True
    auto_delete: bool = False
    internal: bool = False
    # not hashed: a dict has no hash, and equal exchanges have equal names anyway
    arguments: Mapping[str, Any] | None = field(default=None, hash=False)
    no_declare: bool = False
    passive: bool = False

    def __post_init__(self) -> None:
        _check_text(self.name, "the name of an exchange")
        _check_text(self.type, f"the type of exchange {self.name!r}")
        if not self.type:
            raise ConfigurationError(f"exchange {self.name!r} needs a type, such as 'topic'")
        _own_mapping(self, "arguments", f"the arguments of exchange {self.name!r}")


@dataclass(frozen=True)
class Binding:
    """What brings messages of an exchange to a queue, one of its `bindings`."""

    exchange: Exchange
    routing_key: str = ""
    _: KW_ONLY
    arguments: Mapping[str, Any] | None = field(default=None, hash=False)

    def __post_init__(self) -> None:
        _check_exchange(self.exchange, "a binding")
        if not self.exchange.name:
            raise ConfigurationError(
                "a binding needs an exchange with a name, nothing can be bound to the default one"
            )
        where = f"the binding to exchange {self.exchange.name!r}"
        _check_text(self.routing_key, f"the routing key of {where}")
        _own_mapping(self, "arguments", f"the arguments of {where}")


@dataclass(frozen=True)
class Queue:
    """A queue and what binds it; unbound it is reached by the default exchange alone.

    `exchange`, `routing_key` and `binding_arguments` are one binding, `bindings` are all others;
    their order does not matter, nor whether one of them is given twice. `expires` and
    `message_ttl` are seconds; `queue_arguments` is kombu's word for `arguments`.
    """

    name: str = ""
    exchange: Exchange | None = None
    routing_key: str = ""
    _: KW_ONLY
    durable: bool = True
    exclusive: bool = False
    auto_delete: bool = False
    no_ack: bool = False
    arguments: Mapping[str, Any] | None = field(default=None, hash=False)
    binding_arguments: Mapping[str, Any] | None = field(default=None, hash=False)
    consumer_arguments: Mapping[str, Any] | None = field(default=None, hash=False)
    no_declare: bool = False
    expires: float | None = None
    message_ttl: float | None = None
    max_length: int | None = None
    max_length_bytes: int | None = None
    max_priority: int | None = None
    bindings: Collection[Binding] = ()
    queue_arguments: InitVar[Mapping[str, Any] | None] = None

    def __post_init__(self, queue_arguments: Mapping[str, Any] | None) -> None:
        _check_text(self.name, "the name of a queue")
        _check_text(self.routing_key, f"the routing key of queue {self.name!r}")
        if self.exchange is not None:
            _check_exchange(self.exchange, f"queue {self.name!r}")
        if queue_arguments is not None:
            if self.arguments is not None:
                raise ConfigurationError(
                    f"queue {self.name!r} has both arguments and queue_arguments: give one"
                )
            object.__setattr__(self, "arguments", queue_arguments)
        for attribute in ("arguments", "binding_arguments", "consumer_arguments"):
            _own_mapping(self, attribute, f"{attribute} of queue {self.name!r}")
        object.__setattr__(self, "bindings", _order_bindings(self.bindings, self.name))
        self._check_limits()

    def _check_limits(self) -> None:
        # an idle time of 0 would delete the queue at once, RabbitMQ refuses it
        _check_number(self, "expires", float, 0.001, _MAX_MILLISECONDS / 1000)
        _check_number(self, "message_ttl", float, 0, _MAX_MILLISECONDS / 1000)
        _check_number(self, "max_length", int, 0, _MAX_COUNT)
        _check_number(self, "max_length_bytes", int, 0, _MAX_COUNT)
        _check_number(self, "max_priority", int, 0, _MAX_PRIORITY)

    @property
    def declare_arguments(self) -> dict[str, Any]:
        """The arguments of the declaration; a keyword wins over the same entry of `arguments`."""
        limits = {
            "x-expires": _to_milliseconds(self.expires),
            "x-message-ttl": _to_milliseconds(self.message_ttl),
            "x-max-length": self.max_length,
            "x-max-length-bytes": self.max_length_bytes,
            "x-max-priority": self.max_priority,
        }
        given = {name: value for name, value in limits.items() if value is not None}
        return {**(self.arguments or {}), **given}


_EXCHANGE_SHAPE = ("name", "type", "durable", "auto_delete", "arguments", "no_declare", "passive")
_BINDING_SHAPE = ("exchange", "routing_key", "arguments")
_QUEUE_SHAPE = (
    "name",
    "routing_key",
    "durable",
    "exclusive",
    "auto_delete",
    "no_ack",
    "queue_arguments",
    "binding_arguments",
    "consumer_arguments",
    "no_declare",
    "expires",
    "message_ttl",
    "max_length",
    "max_length_bytes",
    "max_priority",
)


def as_exchange(value: Any) -> Exchange:
    """Return an exchange for one of ours, one of kombu's, or whatever has the attributes of one.

    Raises:
        ConfigurationError: It has not.
    """
    if isinstance(value, Exchange):
        return value
    shape = _read_shape(value, _EXCHANGE_SHAPE, "an Exchange")
    shape["type"] = shape["type"] or "direct"
    return Exchange(**shape)


def as_binding(value: Any) -> Binding:
    """Return a binding for one of ours, one of kombu's, or whatever has the attributes of one.

    Raises:
        ConfigurationError: It has not, or its exchange is none, or the default exchange.
    """
    if isinstance(value, Binding):
        return value
    shape = _read_shape(value, _BINDING_SHAPE, "a Binding")
    return Binding(**{**shape, "exchange": as_exchange(shape["exchange"])})


def as_queue(value: Any) -> Queue:
    """Return a queue for one of ours, one of kombu's, or whatever has the attributes of one.

    Raises:
        ConfigurationError: It has not, or one of its bindings cannot be used.
    """
    if isinstance(value, Queue):
        return value
    shape = _read_shape(value, _QUEUE_SHAPE, "a Queue")
    bindings = getattr(value, "bindings", None) or ()
    _check_collection(bindings, shape["name"])
    exchange = getattr(value, "exchange", None)
    # kombu's default exchange is an object too, without a name
    bound = exchange is not None and bool(getattr(exchange, "name", True))
    return Queue(
        exchange=as_exchange(exchange) if bound else None,
        bindings=[as_binding(each) for each in bindings],
        **shape,
    )


def _read_shape(value: Any, names: tuple[str, ...], what: str) -> dict[str, Any]:
    found = {name: getattr(value, name, _ABSENT) for name in names}
    missing = [name for name, each in found.items() if each is _ABSENT]
    if isinstance(value, type) or missing:
        kind = value.__name__ if isinstance(value, type) else type(value).__name__
        lacks = f", for it has no {missing[0]!r}" if missing else ", but a class"
        raise ConfigurationError(f"{what} is wanted, and {kind} is none{lacks}")
    # kombu has None where nothing was given
    flags = {name: bool(each) for name, each in found.items() if name in _FLAGS}
    texts = {name: "" for name in ("name", "routing_key") if found.get(name, "") is None}
    return {**found, **flags, **texts}


_ABSENT = object()
_FLAGS = ("durable", "exclusive", "auto_delete", "no_ack", "no_declare", "passive")


def _check_text(value: Any, what: str) -> None:
    if not isinstance(value, str):
        raise ConfigurationError(f"{what} must be a str, not {type(value).__name__}")
    try:
        size = len(value.encode())
    except UnicodeEncodeError as exc:
        raise ConfigurationError(f"{what} holds a lone surrogate: {value[:40]!r}") from exc
    if size > 255:
        raise ConfigurationError(f"{what} is {size} bytes long, AMQP allows 255: {value[:40]!r}...")


def _check_exchange(value: Any, what: str) -> None:
    if isinstance(value, Exchange):
        return
    kind = type(value).__name__
    # kombu's queues take their bindings there too
    hint = ", several bindings are given as bindings=" if _is_collection(value) else ""
    raise ConfigurationError(f"the exchange of {what} must be an Exchange, not {kind}{hint}")


def _is_collection(value: Any) -> bool:
    return isinstance(value, (list, tuple, set, frozenset))


def _check_collection(bindings: Any, queue: str) -> None:
    if not _is_collection(bindings):
        raise ConfigurationError(
            f"the bindings of queue {queue!r} must be a list, not {type(bindings).__name__}"
        )


def _order_bindings(bindings: Any, queue: str) -> tuple[Binding, ...]:
    """Return the bindings once each, in an order of their own: equal queues have equal ones."""
    if bindings is None:  # kombu's word for none
        return ()
    _check_collection(bindings, queue)
    for each in bindings:
        if not isinstance(each, Binding):
            raise ConfigurationError(
                f"the bindings of queue {queue!r} must be of Binding, not {type(each).__name__}"
            )
    return tuple(sorted(dict.fromkeys(bindings), key=_binding_order))


def _binding_order(binding: Binding) -> tuple[str, str, str]:
    arguments = repr(sorted((binding.arguments or {}).items()))  # the keys differ
    return binding.exchange.name, binding.routing_key, arguments


def _own_mapping(entity: Exchange | Binding | Queue, attribute: str, what: str) -> None:
    """Check a mapping of arguments, and keep a copy that nobody else changes."""
    value = getattr(entity, attribute)
    if value is None:
        return
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise ConfigurationError(f"{what} must be a mapping with str keys")
    try:
        pika.data.encode_table([], dict(value))
    except Exception as error:
        # The driver encodes them when they are declared, and there each fault is a lost connection.
        raise ConfigurationError(
            f"{what} cannot be sent, AMQP arguments are text, whole numbers, bool and the like:"
            f" {type(error).__name__} {reprlib.repr(dict(value))}"
        ) from error
    object.__setattr__(entity, attribute, dict(value))


def _check_number(queue: Queue, attribute: str, kind: type, low: float, high: float) -> None:
    value = getattr(queue, attribute)
    if value is None:
        return
    allowed = (int,) if kind is int else (int, float)
    # not a number fails the comparison too
    if isinstance(value, bool) or not isinstance(value, allowed) or not low <= value <= high:
        raise ConfigurationError(
            f"{attribute} of queue {queue.name!r} must be a number from {low} to {high}, "
            f"not {value!r}"
        )


def _to_milliseconds(seconds: float | None) -> int | None:
    return None if seconds is None else int(seconds * 1000)
