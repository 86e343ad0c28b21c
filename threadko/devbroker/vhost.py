"""A virtual host: its exchanges and queues, what may be declared, and the way of each message.

No I/O. Everything belongs to the broker's thread.
"""

import base64
import os
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timezone
from typing import Any

from threadko.devbroker.frames import FaultError, find_headers, read_properties, splice_header
from threadko.devbroker.queues import Entry, Message, Queue
from threadko.devbroker.routing import EXCHANGE_TYPES, Binding, Exchange, Target, freeze

__all__ = ["Clock", "VHost"]

_MAX_ALTERNATES = 16  # guessed: exchanges in a row without a route
_MAX_TTL = 315_360_000_000  # ms: ten years
_MAX_COUNT = (1 << 63) - 1


class Clock(ABC):
    """The time, and what is to happen at some time; the server's, or a test's.

    `count_bytes` is told of every byte that queues take or give back.
    """

    @abstractmethod
    def now(self) -> float:
        """Return seconds on a clock that never goes back."""

    @abstractmethod
    def call_at(self, when: float, callback: Callable[[], None]) -> None:
        """Call back at that time, in the broker's thread."""

    @abstractmethod
    def count_bytes(self, size: int) -> None:
        """Count bytes that are kept, or, below 0, kept no longer."""


def _is_whole(low: int, high: int) -> Callable[[Any], str | None]:
    def check(value: Any) -> str | None:
        if isinstance(value, bool) or not isinstance(value, int):
            return "expected an integer"
        return None if low <= value <= high else f"expected {low} to {high}"

    return check


def _is_text(value: Any) -> str | None:
    return None if isinstance(value, str) else "expected a string"


def _is_one_of(*allowed: str) -> Callable[[Any], str | None]:
    def check(value: Any) -> str | None:
        return None if value in allowed else f"expected {' or '.join(allowed)}"

    return check


_QUEUE_ARGUMENTS: dict[str, Callable[[Any], str | None]] = {
    "x-message-ttl": _is_whole(0, _MAX_TTL),
    "x-expires": _is_whole(1, _MAX_TTL),
    "x-max-length": _is_whole(0, _MAX_COUNT),
    "x-max-length-bytes": _is_whole(0, _MAX_COUNT),
    "x-max-priority": _is_whole(0, 255),
    "x-overflow": _is_one_of("drop-head", "reject-publish"),
    "x-dead-letter-exchange": _is_text,
    "x-dead-letter-routing-key": _is_text,
    "x-queue-type": _is_one_of("classic"),
    "x-queue-mode": _is_one_of("default", "lazy"),
}


class VHost:
    """One virtual host."""

    def __init__(self, name: str, clock: Clock) -> None:
        self.name = name
        self.queues: dict[str, Queue] = {}
        self.exchanges: dict[str, Exchange] = {
            each: Exchange(each, kind)
            for each, kind in (
                ("", "direct"),
                ("amq.direct", "direct"),
                ("amq.fanout", "fanout"),
                ("amq.headers", "headers"),
                ("amq.match", "headers"),
                ("amq.topic", "topic"),
            )
        }
        self._clock = clock
        self._dying: deque[tuple[Queue, Entry, str]] = deque()
        self._is_burying = False

    # What queues ask

    def now(self) -> float:
        """Return the time."""
        return self._clock.now()

    def call_at(self, when: float, callback: Callable[[], None]) -> None:
        """Call back at that time."""
        self._clock.call_at(when, callback)

    def count_bytes(self, size: int) -> None:
        """Count what queues keep."""
        self._clock.count_bytes(size)

    # Exchanges

    def get_exchange(self, name: str) -> Exchange:
        """Return an exchange; 404 if there is none."""
        exchange = self.exchanges.get(name)
        if exchange is None:
            raise FaultError(404, f"no exchange '{name}' in vhost '{self.name}'")
        return exchange

    def declare_exchange(
        self,
        name: str,
        kind: str,
        *,
        passive: bool,
        durable: bool,
        auto_delete: bool,
        internal: bool,
        arguments: Mapping[str, Any],
    ) -> None:
        """Make an exchange, or compare it with the one that is there."""
        if passive:
            self.get_exchange(name)
            return
        if kind not in EXCHANGE_TYPES:
            raise FaultError(503, f"invalid exchange type '{kind}'", "connection")
        if not name:
            raise _default_exchange()
        known = self.exchanges.get(name)
        if known is None:
            if name.startswith("amq."):
                raise FaultError(403, f"exchange name '{name}' contains reserved prefix 'amq.*'")
            for key in arguments:
                if key != "alternate-exchange":
                    raise FaultError(
                        540, f"exchange argument '{key}' is not known here", "connection"
                    )
            self.exchanges[name] = Exchange(
                name, kind, durable, auto_delete, internal, dict(arguments)
            )
            return
        where = f"exchange '{name}' in vhost '{self.name}'"
        _compare(where, "type", kind, known.type)
        _compare(where, "durable", durable, known.durable)
        _compare(where, "auto_delete", auto_delete, known.auto_delete)
        _compare(where, "internal", internal, known.internal)
        key = "alternate-exchange"
        _compare_argument(where, key, arguments.get(key), known.arguments.get(key))

    def delete_exchange(self, name: str, *, if_unused: bool) -> None:
        """Delete an exchange with all its bindings; nothing if there is none."""
        if not name:
            raise _default_exchange()
        if name.startswith("amq."):
            raise FaultError(403, f"exchange name '{name}' contains reserved prefix 'amq.*'")
        exchange = self.exchanges.get(name)
        if exchange is None:
            return
        if if_unused and exchange.bindings:
            raise FaultError(406, f"exchange '{name}' in vhost '{self.name}' in use")
        self._remove_exchange(exchange)

    def _remove_exchange(self, exchange: Exchange) -> None:
        if self.exchanges.pop(exchange.name, None) is not None:
            self._forget_target(Target("exchange", exchange.name))

    def _forget_target(self, target: Target) -> None:
        for exchange in list(self.exchanges.values()):
            if exchange.unbind_target(target) and exchange.is_abandoned:
                self._remove_exchange(exchange)

    # Queues

    def get_queue(self, name: str, owner: object) -> Queue:
        """Return a queue; 404 if there is none, 405 if it is another connection's."""
        queue = self.queues.get(name)
        if queue is None:
            raise FaultError(404, f"no queue '{name}' in vhost '{self.name}'")
        self._check_owner(queue, owner)
        return queue

    def _check_owner(self, queue: Queue, owner: object) -> None:
        if queue.owner is not None and queue.owner is not owner:
            raise FaultError(
                405,
                f"cannot obtain exclusive access to locked queue '{queue.name}' in vhost"
                f" '{self.name}'. It could be originally declared on another connection or the"
                " exclusive property value does not match that of the original declaration.",
            )

    def declare_queue(
        self,
        name: str,
        owner: object,
        *,
        passive: bool,
        durable: bool,
        exclusive: bool,
        auto_delete: bool,
        arguments: Mapping[str, Any],
    ) -> Queue:
        """Make a queue, or compare it with the one that is there; "" asks for a new name."""
        if passive:
            queue = self.get_queue(name, owner)
            queue.touch()
            return queue
        known = self.queues.get(name)
        if known is not None:
            self._check_owner(known, owner)
            self._compare_queue(known, durable, exclusive, auto_delete, arguments)
            known.touch()
            return known
        if name.startswith("amq."):
            raise FaultError(403, f"queue name '{name}' contains reserved prefix 'amq.*'")
        name = name or f"amq.gen-{base64.urlsafe_b64encode(os.urandom(16)).decode().rstrip('=')}"
        self._check_arguments(name, arguments)
        queue = Queue(
            self,
            name,
            durable=durable and not exclusive,
            auto_delete=auto_delete,
            owner=owner if exclusive else None,
            arguments=arguments,
        )
        self.queues[name] = queue
        self.exchanges[""].bind(Binding(Target("queue", name), name))
        return queue

    def _check_arguments(self, name: str, arguments: Mapping[str, Any]) -> None:
        for key, value in arguments.items():
            check = _QUEUE_ARGUMENTS.get(key)
            if check is None:
                if not key.startswith("x-"):
                    continue  # a note of the user's, which no broker reads
                raise FaultError(540, f"queue argument '{key}' is not known here", "connection")
            if key == "x-queue-type" and value != "classic":
                raise FaultError(540, f"queues of type '{value}' are not made here", "connection")
            if value == "reject-publish-dlx":
                raise FaultError(540, f"{key}={value} is not done here", "connection")
            wrong = check(value)
            if wrong is not None:
                raise FaultError(
                    406,
                    f"invalid arg '{key}' for queue '{name}' in vhost '{self.name}': {wrong},"
                    f" not {value!r}",
                )
        if "x-dead-letter-routing-key" in arguments and "x-dead-letter-exchange" not in arguments:
            raise FaultError(
                406,
                f"invalid arg 'x-dead-letter-routing-key' for queue '{name}' in vhost"
                f" '{self.name}': routing_key_but_no_dlx_defined",
            )

    def _compare_queue(
        self,
        known: Queue,
        durable: bool,
        exclusive: bool,
        auto_delete: bool,
        arguments: Mapping[str, Any],
    ) -> None:
        where = f"queue '{known.name}' in vhost '{self.name}'"
        if known.owner is None:
            _compare(where, "durable", durable, known.durable)
        _compare(where, "auto_delete", auto_delete, known.auto_delete)
        if exclusive != (known.owner is not None):
            self._check_owner(known, object() if known.owner is not None else None)
            raise FaultError(
                405,
                f"cannot obtain exclusive access to locked {where}. It could be originally"
                " declared on another connection or the exclusive property value does not match"
                " that of the original declaration.",
            )
        for key in _QUEUE_ARGUMENTS:
            given, current = arguments.get(key), known.arguments.get(key)
            if key == "x-queue-type":
                given, current = given or "classic", current or "classic"
            _compare_argument(where, key, given, current)

    def remove_queue(
        self, name: str, owner: object, *, if_unused: bool = False, if_empty: bool = False
    ) -> int:
        """Delete a queue, and return how many messages went with it; 0 if there is none."""
        queue = self.queues.get(name)
        if queue is None:
            return 0
        self._check_owner(queue, owner)
        if if_unused and queue.consumer_count:
            raise FaultError(406, f"queue '{name}' in vhost '{self.name}' in use")
        if if_empty and len(queue):
            raise FaultError(406, f"queue '{name}' in vhost '{self.name}' not empty")
        return self.delete_queue(queue)

    def delete_queue(self, queue: Queue) -> int:
        """Delete a queue, and tell its consumers."""
        if queue.is_deleted:
            return 0
        queue.is_deleted = True
        self.queues.pop(queue.name, None)
        dropped = queue.purge()
        self._forget_target(Target("queue", queue.name))
        queue.cancel_all()
        return dropped

    def disown(self, owner: object) -> None:
        """Delete the exclusive queues of a connection that has ended."""
        for queue in [each for each in self.queues.values() if each.owner is owner]:
            self.delete_queue(queue)

    # Bindings

    def bind(
        self, source: str, target: Target, key: str, arguments: Mapping[str, Any], owner: object
    ) -> None:
        """Bind a queue or an exchange to an exchange."""
        exchange, target = self._find_ends(source, target, owner)
        self._check_binding(exchange, arguments)
        exchange.bind(Binding(target, key, freeze(arguments)))

    def unbind(
        self, source: str, target: Target, key: str, arguments: Mapping[str, Any], owner: object
    ) -> None:
        """Take a binding away; nothing if it is not there."""
        if not source:
            raise _default_exchange()
        exchange = self.exchanges.get(source)
        if exchange is None:
            return
        queue = self.queues.get(target.name) if target.kind == "queue" else None
        if queue is not None:
            self._check_owner(queue, owner)
        exchange.unbind(Binding(target, key, freeze(arguments)))
        if exchange.is_abandoned:
            self._remove_exchange(exchange)

    def _find_ends(self, source: str, target: Target, owner: object) -> tuple[Exchange, Target]:
        if not source or (target.kind == "exchange" and not target.name):
            raise _default_exchange()
        if target.kind == "queue":
            self.get_queue(target.name, owner)
        else:
            self.get_exchange(target.name)
        return self.get_exchange(source), target

    def _check_binding(self, exchange: Exchange, arguments: Mapping[str, Any]) -> None:
        if exchange.type == "headers":
            mode = arguments.get("x-match", "all")
            if mode not in ("all", "any", "all-with-x", "any-with-x"):
                raise FaultError(406, f"Invalid x-match field value {mode!r}; expected all or any")

    # Messages

    def route(self, exchange: Exchange, message: Message) -> list[Queue]:
        """Return the queues that a message goes to, each once."""
        if not exchange.name and message.header[0] & 0x20 == 0:
            queue = self.queues.get(message.routing_key)  # most of all messages
            return [] if queue is None else [queue]
        keys = [message.routing_key]
        if message.header[0] & 0x20:
            table = find_headers(message.header, "CC", "BCC")
            keys += _copies(table)
            if "BCC" in table:
                message.header = splice_header(message.header, {}, ("BCC",))

        def headers() -> dict[str, Any]:
            return find_headers(message.header)

        found: dict[str, Queue] = {}
        seen: set[str] = set()
        self._follow(exchange, keys, headers, found, seen)
        return list(found.values())

    def _follow(
        self,
        exchange: Exchange,
        keys: Iterable[str],
        headers: Callable[[], Mapping[str, Any]],
        found: dict[str, Queue],
        seen: set[str],
    ) -> None:
        waiting = [exchange]
        while waiting:
            current = waiting.pop()
            if current.name in seen:
                continue
            seen.add(current.name)
            targets = [target for key in keys for target in current.route(key, headers)]
            if not targets:
                alternate = self.exchanges.get(str(current.arguments.get("alternate-exchange")))
                if alternate is not None:
                    waiting.append(alternate)
            for target in targets:
                if target.kind == "queue":
                    queue = self.queues.get(target.name)
                    if queue is not None:
                        found[target.name] = queue
                elif target.name in self.exchanges:
                    waiting.append(self.exchanges[target.name])

    def dead_letter(self, queue: Queue, entry: Entry, reason: str) -> None:
        """Pass on a message that its queue drops, if the queue says where to.

        One after the other: where each death brings about the next one, as in a row of queues that
        keep nothing, calls in calls would be too deep.
        """
        self._dying.append((queue, entry, reason))
        if self._is_burying:
            return
        self._is_burying = True
        try:
            while self._dying:
                self._bury(*self._dying.popleft())
        finally:
            self._is_burying = False

    def _bury(self, queue: Queue, entry: Entry, reason: str) -> None:
        name = queue.arguments.get("x-dead-letter-exchange")
        exchange = None if name is None else self.exchanges.get(name)
        if exchange is None:
            return
        old = entry.message
        own_key = queue.arguments.get("x-dead-letter-routing-key")
        properties = read_properties(old.header)
        headers = find_headers(old.header, "CC", "x-death", "x-first-death-reason")
        deaths = _add_death(headers, queue.name, reason, old, properties)
        added: dict[str, Any] = {"x-death": deaths}
        if "x-first-death-reason" not in headers:
            added |= {
                "x-first-death-exchange": old.exchange,
                "x-first-death-queue": queue.name,
                "x-first-death-reason": reason,
            }
        remove = ("CC", "BCC") if own_key is not None else ("BCC",)
        header = splice_header(old.header, added, remove, drop_expiration=True)
        key = old.routing_key if own_key is None else own_key
        message = Message(exchange.name, key, header, old.body, None, old.priority)
        for target in self.route(exchange, message):
            if not _is_cycle(deaths, target.name) and not target.refuses(message):
                target.publish(message)


def _copies(headers: Mapping[str, Any]) -> list[str]:
    keys: list[str] = []
    for name in ("CC", "BCC"):
        value = headers.get(name)
        if isinstance(value, list):
            keys += [key for key in value if isinstance(key, str)]
    return keys


def _add_death(
    headers: Mapping[str, Any],
    queue: str,
    reason: str,
    message: Message,
    properties: Mapping[str, bytes],
) -> list[dict[str, Any]]:
    """Return the list `x-death` with one death more: the newest stands in front."""
    known = headers.get("x-death")
    deaths = [each for each in known if isinstance(each, dict)] if isinstance(known, list) else []
    for index, death in enumerate(deaths):
        if death.get("queue") == queue and death.get("reason") == reason:
            count = death.get("count")
            death = {**death, "count": (count if isinstance(count, int) else 0) + 1}
            return [death, *deaths[:index], *deaths[index + 1 :]]
    copies = headers.get("CC")
    death = {
        "count": 1,
        "reason": reason,
        "queue": queue,
        "time": datetime.now(timezone.utc),
        "exchange": message.exchange,
        "routing-keys": [message.routing_key, *(copies if isinstance(copies, list) else ())],
    }
    if "expiration" in properties:
        death["original-expiration"] = properties["expiration"].decode("utf-8", "replace")
    return [death, *deaths]


def _is_cycle(deaths: list[dict[str, Any]], queue: str) -> bool:
    """Whether a message comes back to a queue without anybody having rejected it meanwhile."""
    for death in deaths:
        if death.get("reason") == "rejected":
            return False
        if death.get("queue") == queue:
            return True
    return False


def _compare(where: str, name: str, given: Any, current: Any) -> None:
    if given != current:
        raise FaultError(
            406,
            f"inequivalent arg '{name}' for {where}: received '{_show(given)}' but current is"
            f" '{_show(current)}'",
        )


def _show(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _compare_argument(where: str, name: str, given: Any, current: Any) -> None:
    if freeze(given) == freeze(current):
        return
    received = "none" if given is None else f"the value '{given}' of type '{_kind(given)}'"
    is_now = "none" if current is None else f"the value '{current}' of type '{_kind(current)}'"
    raise FaultError(
        406, f"inequivalent arg '{name}' for {where}: received {received} but current is {is_now}"
    )


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    return "signedint" if isinstance(value, int) else "longstr"


def _default_exchange() -> FaultError:
    return FaultError(403, "operation not permitted on the default exchange")
