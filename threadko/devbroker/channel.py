"""One channel of one connection: publishing with confirms, consuming, settling. No I/O.

Everything belongs to the broker's thread. What goes out is put into the session's buffer.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Protocol

from pika import spec

from threadko.devbroker.frames import (
    BODY,
    HEADER,
    FaultError,
    ack_frame,
    check_properties,
    content_frames,
    deliver_method,
    get_ok_method,
    method_frame,
    parse_publish,
    return_method,
)
from threadko.devbroker.queues import Entry, Message, Queue
from threadko.devbroker.routing import Target
from threadko.devbroker.vhost import VHost

__all__ = ["Channel", "Connection"]

_PUBLISH = 0x003C0028
_NOT_DONE = (spec.Access.Request.INDEX >> 16, spec.Tx.Select.INDEX >> 16)
_MAX_BODY = 128 << 20  # as RabbitMQ 3.10
_MAX_EXPIRATION = 315_360_000_000  # ms: ten years


class Connection(Protocol):
    """What a channel needs of its session."""

    vhost: VHost
    user: str
    frame_max: int

    def send(self, data: bytes) -> None: ...
    @property
    def is_writable(self) -> bool: ...
    @property
    def wants_cancel(self) -> bool: ...
    def confirm_later(self, channel: "Channel") -> None: ...
    def note_publisher(self) -> None: ...


class Consumer:
    """One consumer of one queue, with what it may hold."""

    def __init__(
        self, channel: "Channel", queue: Queue, tag: str, *, no_ack: bool, limit: int, priority: int
    ) -> None:
        self.channel = channel
        self.queue = queue
        self.tag = tag
        self.priority = priority
        self.held = 0
        self._no_ack = no_ack
        self._limit = limit
        self._short_tag = bytes((len(tag.encode()),)) + tag.encode()

    def can_take(self) -> bool:
        """Whether another message may be delivered now."""
        if not self.channel.may_deliver:
            return False
        if self._no_ack:
            return True
        return self.channel.has_room and (not self._limit or self.held < self._limit)

    def take(self, queue: Queue, entry: Entry) -> None:
        """Deliver a message."""
        self.channel.deliver(self, self._short_tag, queue, entry, no_ack=self._no_ack)

    def cancelled(self) -> None:
        """The queue is gone."""
        self.channel.consumer_lost(self)


@dataclass(slots=True)
class _Held:
    """A message that was delivered and not settled; `consumer` is None if it was asked for."""

    queue: Queue
    entry: Entry
    consumer: Consumer | None


class Channel:
    """A channel's state, and what each method does to it."""

    def __init__(self, connection: Connection, number: int) -> None:
        self.number = number
        self.is_closing = False  # by us: all but close-ok is ignored
        self._connection = connection
        self._vhost = connection.vhost
        self._consumers: dict[str, Consumer] = {}
        self._held: dict[int, _Held] = {}  # by delivery tag, in the order of delivery
        self._held_by_consumers = 0
        self._next_tag = 1
        self._next_consumer = 1
        self._limit = 0  # for the whole channel
        self._consumer_limit = 0  # for consumers to come
        self._is_flowing = True
        self._confirming = False
        self._published = 0
        self._confirmed = 0
        self._refused: list[int] = []
        self._last_queue = ""
        # a message that is arriving
        self._publishing: tuple[str, str, bool, bool] | None = None
        self._header: bytes | None = None
        self._properties: dict[str, bytes] = {}
        self._size = 0
        self._received = 0
        self._parts: list[bytes] = []

    # Asked by consumers

    @property
    def may_deliver(self) -> bool:
        """Whether anything may be delivered now."""
        return self._is_flowing and not self.is_closing and self._connection.is_writable

    @property
    def has_room(self) -> bool:
        """Whether the channel's limit lets another message be delivered."""
        return not self._limit or self._held_by_consumers < self._limit

    def deliver(
        self, consumer: Consumer, tag: bytes, queue: Queue, entry: Entry, *, no_ack: bool
    ) -> None:
        """Write a delivery, and hold it until it is settled."""
        number = self._next_tag
        self._next_tag += 1
        message = entry.message
        self._connection.send(
            deliver_method(
                self.number, tag, number, entry.redelivered, message.exchange, message.routing_key
            )
            + content_frames(self.number, message.header, message.body, self._connection.frame_max)
        )
        if not no_ack:
            self._hold(number, queue, entry, consumer)

    def _hold(self, number: int, queue: Queue, entry: Entry, consumer: Consumer | None) -> None:
        self._held[number] = _Held(queue, entry, consumer)
        queue.unacked += 1
        self._vhost.count_bytes(entry.size)
        if consumer is not None:
            consumer.held += 1
            self._held_by_consumers += 1

    def consumer_lost(self, consumer: Consumer) -> None:
        """Tell the client that a consumer has no queue any more."""
        self._consumers.pop(consumer.tag, None)
        if self._connection.wants_cancel and not self.is_closing:
            self._answer(spec.Basic.Cancel(consumer_tag=consumer.tag, nowait=True))

    # Ending

    def end(self) -> None:
        """Cancel all consumers and put back what is not settled."""
        self.is_closing = True
        self._forget_content()
        consumers, self._consumers = self._consumers, {}
        for consumer in consumers.values():
            consumer.queue.unsubscribe(consumer)
        self._requeue(list(self._held))

    # Frames

    def take_frame(self, kind: int, payload: bytes) -> None:
        """Take a content frame of a message that is arriving."""
        if self._publishing is None:
            what = "expected method frame, got non method frame instead"
            raise FaultError(505, what, "connection")
        if kind == HEADER and self._header is None:
            self._begin_content(payload)
        elif kind == BODY and self._header is not None:
            self._take_body(payload)
        else:
            what = "content body" if self._header is not None else "content header"
            raise FaultError(
                505,
                f"expected {what} for class 60, got non {what} frame instead",
                "connection",
            )
        if self._received == self._size:
            self._publish()

    def _begin_content(self, payload: bytes) -> None:
        if len(payload) < 12:
            raise FaultError(501, "a content header is too short", "connection")
        if payload[:4] != b"\x00\x3c\x00\x00":
            raise FaultError(505, "expected content header for class 60", "connection")
        self._size = int.from_bytes(payload[4:12], "big")
        if self._size > _MAX_BODY:
            # RabbitMQ takes it all before it says so; the memory is better spared.
            raise FaultError(
                406, f"message size {self._size} is larger than configured max size {_MAX_BODY}"
            )
        self._header = payload[12:]
        self._properties = check_properties(self._header)

    def _take_body(self, payload: bytes) -> None:
        if self._received + len(payload) > self._size:
            raise FaultError(
                505, "expected content body, got non content body frame instead", "connection"
            )
        if payload:
            self._received += len(payload)
            self._parts.append(payload)
            self._vhost.count_bytes(len(payload))  # until the message is whole

    def _forget_content(self) -> None:
        self._vhost.count_bytes(-self._received)
        self._publishing = self._header = None
        self._received = 0
        self._parts = []

    def take_method(self, number: int, payload: bytes, decode: Callable[[bytes], Any]) -> None:
        """Carry out a method."""
        if self._publishing is not None:
            raise FaultError(
                505,
                "expected content header for class 60, got non content header frame instead",
                "connection",
            )
        if number == _PUBLISH:
            self._publishing = parse_publish(payload)
            self._connection.note_publisher()
            return
        method = decode(payload)
        handle = _HANDLERS.get(number)
        if handle is None:
            code = 540 if number >> 16 in _NOT_DONE else 503
            raise FaultError(code, f"{method.NAME} is not done here", "connection")
        handle(self, method)

    def _answer(self, method: Any) -> None:
        self._connection.send(method_frame(self.number, method))

    # Publishing

    def _publish(self) -> None:
        assert self._publishing is not None, "a header came before"
        assert self._header is not None, "a header came before"
        exchange_name, key, mandatory, immediate = self._publishing
        header = self._header
        body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._forget_content()
        if immediate:
            raise FaultError(540, "immediate=true", "connection")
        exchange = self._vhost.get_exchange(exchange_name)
        if exchange.internal:
            raise FaultError(
                403,
                f"cannot publish to internal exchange '{exchange_name}' in vhost"
                f" '{self._vhost.name}'",
            )
        message = Message(exchange_name, key, header, body)
        self._read_properties(message)
        queues = self._vhost.route(exchange, message)
        if mandatory and not queues:
            self._return(message)
        accepted = True
        for queue in queues:
            if queue.refuses(message):
                accepted = False
            else:
                queue.publish(message)
        if self._confirming:
            self._published += 1
            if not accepted:
                self._refused.append(self._published)
            self._connection.confirm_later(self)

    def _read_properties(self, message: Message) -> None:
        found = self._properties
        user = found.get("user_id")
        if user is not None and user != self._connection.user.encode():
            raise FaultError(
                406,
                f"user_id property set to '{user.decode('utf-8', 'replace')}' but authenticated"
                f" user was '{self._connection.user}'",
            )
        expiration = found.get("expiration")
        if expiration is not None:
            digits = expiration.removeprefix(b"+")
            if not digits.isdigit() or int(digits[:20]) > _MAX_EXPIRATION:
                text = expiration.decode("utf-8", "replace")
                raise FaultError(406, f"invalid expiration '{text}'")
            message.expiration = int(digits)
        if "priority" in found:
            message.priority = found["priority"][0]

    def _return(self, message: Message) -> None:
        self._connection.send(
            return_method(self.number, 312, "NO_ROUTE", message.exchange, message.routing_key)
            + content_frames(self.number, message.header, message.body, self._connection.frame_max)
        )

    def write_confirms(self) -> None:
        """Confirm all that was published since the last time, in order."""
        if self.is_closing:
            return
        for tag in self._refused:
            if tag - 1 > self._confirmed:
                self._confirm(tag - 1)
            self._connection.send(ack_frame(self.number, tag, False, accepted=False))
            self._confirmed = tag
        self._refused.clear()
        if self._published > self._confirmed:
            self._confirm(self._published)

    def _confirm(self, up_to: int) -> None:
        self._connection.send(ack_frame(self.number, up_to, up_to - self._confirmed > 1))
        self._confirmed = up_to

    def _confirm_select(self, method: Any) -> None:
        self._confirming = True
        if not method.nowait:
            self._answer(spec.Confirm.SelectOk())

    # Exchanges, queues, bindings

    def _exchange_declare(self, method: Any) -> None:
        self._vhost.declare_exchange(
            method.exchange,
            method.type,
            passive=method.passive,
            durable=method.durable,
            auto_delete=method.auto_delete,
            internal=method.internal,
            arguments=method.arguments or {},
        )
        if not method.nowait:
            self._answer(spec.Exchange.DeclareOk())

    def _exchange_delete(self, method: Any) -> None:
        self._vhost.delete_exchange(method.exchange, if_unused=method.if_unused)
        if not method.nowait:
            self._answer(spec.Exchange.DeleteOk())

    def _exchange_bind(self, method: Any) -> None:
        target = Target("exchange", method.destination)
        arguments = method.arguments or {}
        self._vhost.bind(method.source, target, method.routing_key, arguments, self._connection)
        if not method.nowait:
            self._answer(spec.Exchange.BindOk())

    def _exchange_unbind(self, method: Any) -> None:
        target = Target("exchange", method.destination)
        arguments = method.arguments or {}
        self._vhost.unbind(method.source, target, method.routing_key, arguments, self._connection)
        if not method.nowait:
            self._answer(spec.Exchange.UnbindOk())

    def _name_queue(self, name: str) -> str:
        """Return a queue's name; "" stands for the one that was declared last on this channel."""
        if name:
            return name
        if not self._last_queue:
            raise FaultError(404, f"no previously declared queue in vhost '{self._vhost.name}'")
        return self._last_queue

    def _queue_declare(self, method: Any) -> None:
        name = self._name_queue(method.queue) if method.passive else method.queue
        queue = self._vhost.declare_queue(
            name,
            self._connection,
            passive=method.passive,
            durable=method.durable,
            exclusive=method.exclusive,
            auto_delete=method.auto_delete,
            arguments=method.arguments or {},
        )
        self._last_queue = queue.name
        if not method.nowait:
            self._answer(
                spec.Queue.DeclareOk(
                    queue=queue.name,
                    message_count=len(queue),
                    consumer_count=queue.consumer_count,
                )
            )

    def _queue_delete(self, method: Any) -> None:
        count = self._vhost.remove_queue(
            self._name_queue(method.queue),
            self._connection,
            if_unused=method.if_unused,
            if_empty=method.if_empty,
        )
        if not method.nowait:
            self._answer(spec.Queue.DeleteOk(message_count=count))

    def _queue_bind(self, method: Any) -> None:
        target = Target("queue", self._name_queue(method.queue))
        arguments = method.arguments or {}
        key = method.routing_key
        if not method.queue and not key:
            key = target.name
        self._vhost.bind(method.exchange, target, key, arguments, self._connection)
        if not method.nowait:
            self._answer(spec.Queue.BindOk())

    def _queue_unbind(self, method: Any) -> None:
        target = Target("queue", self._name_queue(method.queue))
        arguments = method.arguments or {}
        self._vhost.unbind(method.exchange, target, method.routing_key, arguments, self._connection)
        self._answer(spec.Queue.UnbindOk())

    def _queue_purge(self, method: Any) -> None:
        queue = self._vhost.get_queue(self._name_queue(method.queue), self._connection)
        count = queue.purge()
        if not method.nowait:
            self._answer(spec.Queue.PurgeOk(message_count=count))

    # Consuming

    def _qos(self, method: Any) -> None:
        if method.prefetch_size:
            raise FaultError(540, f"prefetch_size!=0 ({method.prefetch_size})", "connection")
        if method.global_qos:
            self._limit = method.prefetch_count
        else:
            self._consumer_limit = method.prefetch_count
        self._answer(spec.Basic.QosOk())
        self.pump()

    def _consume(self, method: Any) -> None:
        queue = self._vhost.get_queue(self._name_queue(method.queue), self._connection)
        tag = method.consumer_tag
        if not tag:
            tag = f"ctag{self.number}.{self._next_consumer}"
            self._next_consumer += 1
        if tag in self._consumers:
            raise FaultError(530, f"attempt to reuse consumer tag '{tag}'", "connection")
        if queue.exclusive_consumer is not None or (method.exclusive and queue.consumer_count):
            raise FaultError(
                403, f"queue '{queue.name}' in vhost '{self._vhost.name}' in exclusive use"
            )
        priority = (method.arguments or {}).get("x-priority", 0)
        if isinstance(priority, bool) or not isinstance(priority, int):
            raise FaultError(406, f"invalid arg 'x-priority': {priority!r}")
        consumer = Consumer(
            self,
            queue,
            tag,
            no_ack=method.no_ack,
            limit=self._consumer_limit,
            priority=priority,
        )
        self._consumers[tag] = consumer
        queue.subscribe(consumer, exclusive=method.exclusive)
        if not method.nowait:
            self._answer(spec.Basic.ConsumeOk(consumer_tag=tag))
        queue.pump()

    def _cancel(self, method: Any) -> None:
        consumer = self._consumers.pop(method.consumer_tag, None)
        if not method.nowait:
            self._answer(spec.Basic.CancelOk(consumer_tag=method.consumer_tag))
        if consumer is not None:
            consumer.queue.unsubscribe(consumer)

    def _get(self, method: Any) -> None:
        queue = self._vhost.get_queue(self._name_queue(method.queue), self._connection)
        entry = queue.get()
        if entry is None:
            self._answer(spec.Basic.GetEmpty())
            return
        number = self._next_tag
        self._next_tag += 1
        message = entry.message
        self._connection.send(
            get_ok_method(
                self.number,
                number,
                entry.redelivered,
                message.exchange,
                message.routing_key,
                len(queue),
            )
            + content_frames(self.number, message.header, message.body, self._connection.frame_max)
        )
        if not method.no_ack:
            self._hold(number, queue, entry, None)

    def _flow(self, method: Any) -> None:
        if not method.active:
            raise FaultError(540, "active=false", "connection")
        self._answer(spec.Channel.FlowOk(active=True))

    def pump(self) -> None:
        """Let the queues of this channel's consumers deliver what they hold."""
        for queue in {id(each.queue): each.queue for each in self._consumers.values()}.values():
            queue.pump()

    # Settling

    def _take_held(self, tag: int, multiple: bool) -> list[int]:
        if multiple:
            if not tag:
                return list(self._held)
            if tag not in self._held:
                raise FaultError(406, f"unknown delivery tag {tag}")
            return list(takewhile(lambda each: each <= tag, self._held))
        if tag not in self._held:
            raise FaultError(406, f"unknown delivery tag {tag}")
        return [tag]

    def _release(self, tags: list[int]) -> list[_Held]:
        released = []
        for tag in tags:
            held = self._held.pop(tag)
            held.queue.unacked -= 1
            self._vhost.count_bytes(-held.entry.size)
            if held.consumer is not None:
                held.consumer.held -= 1
                self._held_by_consumers -= 1
            released.append(held)
        return released

    def _requeue(self, tags: list[int]) -> None:
        queues: dict[int, Queue] = {}
        # From the end, so that each finds its place at the front.
        for held in reversed(self._release(tags)):
            if not held.queue.is_deleted:
                held.queue.requeue(held.entry)
                queues[id(held.queue)] = held.queue
        for queue in queues.values():
            queue.pump()

    def _ack(self, method: Any) -> None:
        self._release(self._take_held(method.delivery_tag, method.multiple))
        self.pump()

    def _nack(self, method: Any) -> None:
        self._refuse(self._take_held(method.delivery_tag, method.multiple), method.requeue)

    def _reject(self, method: Any) -> None:
        self._refuse(self._take_held(method.delivery_tag, False), method.requeue)

    def _refuse(self, tags: list[int], requeue: bool) -> None:
        if requeue:
            self._requeue(tags)
        else:
            for held in self._release(tags):
                if not held.queue.is_deleted:
                    self._vhost.dead_letter(held.queue, held.entry, "rejected")
        self.pump()

    def _recover(self, method: Any) -> None:
        if not method.requeue:
            raise FaultError(540, "requeue=false", "connection")
        self._requeue(list(self._held))
        self._answer(spec.Basic.RecoverOk())
        self.pump()

    def _recover_async(self, method: Any) -> None:
        self._requeue(list(self._held))
        self.pump()


_HANDLERS: dict[int, Callable[[Channel, Any], None]] = {
    spec.Confirm.Select.INDEX: Channel._confirm_select,
    spec.Exchange.Declare.INDEX: Channel._exchange_declare,
    spec.Exchange.Delete.INDEX: Channel._exchange_delete,
    spec.Exchange.Bind.INDEX: Channel._exchange_bind,
    spec.Exchange.Unbind.INDEX: Channel._exchange_unbind,
    spec.Queue.Declare.INDEX: Channel._queue_declare,
    spec.Queue.Delete.INDEX: Channel._queue_delete,
    spec.Queue.Bind.INDEX: Channel._queue_bind,
    spec.Queue.Unbind.INDEX: Channel._queue_unbind,
    spec.Queue.Purge.INDEX: Channel._queue_purge,
    spec.Basic.Qos.INDEX: Channel._qos,
    spec.Basic.Consume.INDEX: Channel._consume,
    spec.Basic.Cancel.INDEX: Channel._cancel,
    spec.Basic.Get.INDEX: Channel._get,
    spec.Basic.Ack.INDEX: Channel._ack,
    spec.Basic.Nack.INDEX: Channel._nack,
    spec.Basic.Reject.INDEX: Channel._reject,
    spec.Basic.Recover.INDEX: Channel._recover,
    spec.Basic.RecoverAsync.INDEX: Channel._recover_async,
    spec.Channel.Flow.INDEX: Channel._flow,
}
