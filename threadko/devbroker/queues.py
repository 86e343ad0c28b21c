"""A queue: messages in their order, consumers in their turn, limits and times. No I/O.

Everything belongs to the broker's thread. The queue asks its vhost for the time and for timers,
and its consumers whether they take a message.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

__all__ = ["Entry", "Host", "Message", "Queue", "Subscriber"]

_ENTRY_BYTES = 256  # guessed: what an entry costs beside its header and body


@dataclass(eq=False, slots=True)
class Message:
    """A message as it was published; shared by all queues that it went to."""

    exchange: str
    routing_key: str
    header: bytes = field(repr=False)
    body: bytes = field(repr=False)
    expiration: int | None = None  # ms, its own
    priority: int = 0


@dataclass(eq=False, slots=True)
class Entry:
    """A message in one queue."""

    message: Message
    position: int
    expires: float | None = None
    redelivered: bool = False

    @property
    def size(self) -> int:
        """What it counts against the broker's memory, in bytes."""
        return len(self.message.body) + len(self.message.header) + _ENTRY_BYTES


class Subscriber(Protocol):
    """A consumer, as a queue sees it."""

    priority: int

    def can_take(self) -> bool: ...
    def take(self, queue: "Queue", entry: Entry) -> None: ...
    def cancelled(self) -> None: ...


class Host(Protocol):
    """What a queue needs of its vhost."""

    def now(self) -> float: ...
    def call_at(self, when: float, callback: Callable[[], None]) -> None: ...
    def dead_letter(self, queue: "Queue", entry: Entry, reason: str) -> None: ...
    def delete_queue(self, queue: "Queue") -> int: ...
    def count_bytes(self, size: int) -> None: ...


class Queue:
    """One queue.

    Args:
        host: the vhost.
        owner: the connection that an exclusive queue belongs to.
        arguments: checked by the vhost.
    """

    def __init__(
        self,
        host: Host,
        name: str,
        *,
        durable: bool = False,
        auto_delete: bool = False,
        owner: object = None,
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        self.name = name
        self.durable = durable
        self.auto_delete = auto_delete
        self.owner = owner
        self.arguments = dict(arguments or {})
        self.exclusive_consumer: Subscriber | None = None
        self.unacked = 0
        self.is_deleted = False
        self._host = host
        self._ttl: int | None = self.arguments.get("x-message-ttl")
        self._expires: int | None = self.arguments.get("x-expires")
        self._max_length: int | None = self.arguments.get("x-max-length")
        self._max_bytes: int | None = self.arguments.get("x-max-length-bytes")
        self._rejects = self.arguments.get("x-overflow") == "reject-publish"
        self._max_priority: int = self.arguments.get("x-max-priority", 0)
        self._levels: list[deque[Entry]] = [deque() for _ in range(self._max_priority + 1)]
        self._count = 0
        self._bytes = 0  # of the bodies
        self._next_position = 0
        self._groups: dict[int, deque[Subscriber]] = {}  # by priority
        self._watched: float | None = None  # when the timer for the first message goes off
        self._used = host.now()
        self._watch_use()

    def __len__(self) -> int:
        """How many messages are ready."""
        return self._count

    @property
    def consumer_count(self) -> int:
        """How many consumers there are."""
        return sum(map(len, self._groups.values()))

    # Messages

    def refuses(self, message: Message) -> bool:
        """Whether it is full, and refuses messages instead of dropping old ones."""
        return self._rejects and self._is_over(1, len(message.body))

    def publish(self, message: Message) -> None:
        """Put a message at the end."""
        self._expire()
        times = [each for each in (self._ttl, message.expiration) if each is not None]
        expires = self._host.now() + min(times) / 1000 if times else None
        entry = Entry(message, self._next_position, expires)
        self._next_position += 1
        self._levels[min(message.priority, self._max_priority)].append(entry)
        self._add(entry)
        # Delivered first: with no time at all it is for those who wait already.
        self._deliver()
        if self._count:
            self._expire()
            self._drop_head()
        self._watch_first()

    def _drop_head(self) -> None:
        while not self._rejects and self._is_over(0, 0) and self._count:
            self._host.dead_letter(self, self._pop(), "maxlen")

    def _is_over(self, more: int, more_bytes: int) -> bool:
        too_many = self._max_length is not None and self._count + more > self._max_length
        too_large = self._max_bytes is not None and self._bytes + more_bytes > self._max_bytes
        return too_many or too_large

    def requeue(self, entry: Entry) -> None:
        """Put back where it was; `pump()` is to follow."""
        entry.redelivered = True
        level = self._levels[min(entry.message.priority, self._max_priority)]
        index = 0
        for each in level:
            if each.position > entry.position:
                break
            index += 1
        level.insert(index, entry)
        self._add(entry)

    def get(self) -> Entry | None:
        """Take the first message; None if there is none."""
        self.touch()
        self._expire()
        return self._pop() if self._count else None

    def purge(self) -> int:
        """Drop all messages that are ready, and return how many that were."""
        dropped = self._count
        for entry in self._iter_ready():
            self._host.count_bytes(-entry.size)
        for level in self._levels:
            level.clear()
        self._count = self._bytes = 0
        return dropped

    def pump(self) -> None:
        """Hand messages to consumers, as long as there are some of both."""
        self._expire()
        self._drop_head()  # what came back may be too much
        self._deliver()
        self._watch_first()

    def _deliver(self) -> None:
        while self._count and self._groups:
            subscriber = self._next_subscriber()
            if subscriber is None:
                break
            subscriber.take(self, self._pop())

    def _iter_ready(self) -> Iterator[Entry]:
        for level in reversed(self._levels):
            yield from level

    def _add(self, entry: Entry) -> None:
        self._count += 1
        self._bytes += len(entry.message.body)
        self._host.count_bytes(entry.size)

    def _pop(self) -> Entry:
        for level in reversed(self._levels):
            if level:
                entry = level.popleft()
                self._count -= 1
                self._bytes -= len(entry.message.body)
                self._host.count_bytes(-entry.size)
                return entry
        raise LookupError("the queue is empty")

    # Times

    def _expire(self) -> None:
        """Drop what has expired, from the front of each level: there only, as RabbitMQ does."""
        now = self._host.now()
        for level in reversed(self._levels):
            while level:
                expires = level[0].expires
                if expires is None or expires > now:
                    break
                entry = level.popleft()
                self._count -= 1
                self._bytes -= len(entry.message.body)
                self._host.count_bytes(-entry.size)
                self._host.dead_letter(self, entry, "expired")

    def _watch_first(self) -> None:
        first = [level[0].expires for level in self._levels if level]
        times = [each for each in first if each is not None]
        if not times:
            return
        due = min(times)
        if self._watched is None or due < self._watched:
            self._watched = due
            self._host.call_at(due, lambda: self._first_is_due(due))

    def _first_is_due(self, due: float) -> None:
        if self._watched == due:
            self._watched = None
        if not self.is_deleted:
            self._expire()
            self._watch_first()

    def touch(self) -> None:
        """Note that the queue is used, which puts off its own end."""
        self._used = self._host.now()

    def _watch_use(self) -> None:
        if self._expires is not None:
            self._host.call_at(self._used + self._expires / 1000, self._use_is_due)

    def _use_is_due(self) -> None:
        if self.is_deleted or self._expires is None:
            return
        if self._groups:
            self.touch()
        if self._used + self._expires / 1000 > self._host.now():
            self._watch_use()
        else:
            self._host.delete_queue(self)

    # Consumers

    def subscribe(self, subscriber: Subscriber, *, exclusive: bool = False) -> None:
        """Add a consumer; `pump()` is to follow."""
        self._groups.setdefault(subscriber.priority, deque()).append(subscriber)
        self._groups = dict(sorted(self._groups.items(), reverse=True))
        if exclusive:
            self.exclusive_consumer = subscriber

    def unsubscribe(self, subscriber: Subscriber) -> None:
        """Take a consumer away; with the last one an auto-delete queue goes."""
        group = self._groups.get(subscriber.priority)
        if group is None or subscriber not in group:
            return
        group.remove(subscriber)
        if not group:
            del self._groups[subscriber.priority]
        if self.exclusive_consumer is subscriber:
            self.exclusive_consumer = None
        if not self._groups:
            self._used = self._host.now()
            if self._expires is not None:
                self._watch_use()
            if self.auto_delete:
                self._host.delete_queue(self)

    def cancel_all(self) -> None:
        """Tell all consumers that the queue is gone."""
        groups, self._groups = self._groups, {}
        for group in groups.values():
            for subscriber in group:
                subscriber.cancelled()

    def _next_subscriber(self) -> Subscriber | None:
        for group in self._groups.values():
            for _ in range(len(group)):
                subscriber = group[0]
                group.rotate(-1)
                if subscriber.can_take():
                    return subscriber
        return None
