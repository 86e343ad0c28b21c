"""Sending messages on a channel in confirm mode, and keeping each until the broker has it.

``ConfirmChannel`` belongs to the thread of its link; a message is made anywhere and handed over
by ``Link.post``. What becomes of a message is told to the message itself, on that thread.

A message waits in the backlog until it is written, stays with the channel until it is confirmed,
and is settled once. When the connection is lost, what was written and not confirmed may or may
not have arrived: it is written again, before everything newer, if it allows that, and fails if it
does not. When the broker closes the channel it refused one message and does not say which: the
unconfirmed ones are then written again one at a time, and the one that closes the channel a
second time is the culprit, so that its neighbours do not pay for it.
"""

import logging
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import chain, takewhile

from threadko.amqp.connection import Channel, ChannelHandler, Connection
from threadko.amqp.entities import Exchange, Queue
from threadko.amqp.link import Expectation, Link
from threadko.amqp.message import check_sendable, decode_properties, publish_frames
from threadko.amqp.topology import Steps, declare, declare_frames, declare_queue, run_steps
from threadko.concurrency.timers import Timer
from threadko.exceptions import EncodeError, PublishFailed

__all__ = ["ConfirmChannel", "Outgoing"]

_log = logging.getLogger(__name__)

_MISSING = 404


class Outgoing:
    """A message on its way to the broker. Override what should happen to it.

    The methods are called on the link's thread, each at most as its docstring says.

    Attributes:
        settled: whoever answers for the message sets it; a settled message is not written (again).
        resend: whether it may be written twice when nobody knows if the first one arrived.
        declare_first: exchanges and queues that are declared right before it, whenever it is
            written; for those that the broker removes by itself.
    """

    __slots__ = (
        "body",
        "declare_first",
        "exchange",
        "header",
        "mandatory",
        "message_id",
        "resend",
        "routing_key",
        "settled",
    )

    def __init__(
        self,
        *,
        exchange: str,
        routing_key: str,
        header: bytes,
        body: bytes,
        mandatory: bool = False,
        message_id: str | None = None,
        resend: bool = True,
        declare_first: Sequence[Exchange | Queue] = (),
    ) -> None:
        self.exchange = exchange
        self.routing_key = routing_key
        self.header = header
        self.body = body
        self.mandatory = mandatory
        self.message_id = message_id
        self.resend = resend
        self.declare_first = declare_first
        self.settled = False

    def on_written(self) -> None:
        """The message is in the write buffer; called again if it is written again."""

    def on_confirmed(self) -> None:
        """The broker has taken the message; called once, last."""

    def on_returned(self, code: int, text: str) -> None:
        """No queue would have the (mandatory) message; ``on_confirmed`` follows."""

    def on_failed(self, error: Exception) -> None:
        """The message was refused, or may be lost, and is not tried again; called once, last."""


class ConfirmChannel(ChannelHandler):
    """Writes messages in order and matches the broker's confirms to them.

    Args:
        link: whose thread owns this channel.
        number: of the channel.
        declare: exchanges and queues declared each time the channel opens.
        on_ready: called each time the channel stands.
        on_refused: called when the broker closes the channel before anything was written, so that
            it is our own declaring that it refuses; without it the connection is made anew.
        concerns_all: reply codes with which the broker refuses every message on this channel.
        restore: declared anew, with its exchanges and bindings, when the broker says that the
            exchange of a message is missing: its binding went with it.
    """

    def __init__(
        self,
        link: Link,
        number: int,
        *,
        declare: Sequence[Exchange | Queue] = (),
        on_ready: Callable[[], None] | None = None,
        on_refused: Callable[[Exception], None] | None = None,
        concerns_all: Collection[int] = (),
        restore: Queue | None = None,
    ) -> None:
        self.confirms = 0  # all that ever came: a sign of life for whoever waits for one of them
        self._link = link
        self._number = number
        self._declare = tuple(declare)
        self._on_ready = on_ready
        self._on_refused = on_refused
        self._concerns_all = frozenset(concerns_all)
        self._restore = restore
        self._restoring = False  # when the channel next opens
        self._channel: Channel | None = None
        self._ready = False
        self._paused = False
        self._next_tag = 1
        self._unconfirmed: dict[int, Outgoing] = {}  # by delivery tag, in the order of writing
        self._backlog: deque[Outgoing] = deque()
        self._suspects: deque[Outgoing] = deque()  # written again one at a time
        self._suspect: Outgoing | None = None  # the one that is on its way alone
        self._closing: Callable[[], None] | None = None
        self._reopening: Timer | None = None
        self._on_drained: Callable[[], None] | None = None
        self._answer = Expectation(link, f"the opening of channel {number}")

    def __len__(self) -> int:
        """How many messages are not settled yet."""
        return len(self._unconfirmed) + len(self._backlog) + len(self._suspects)

    def __iter__(self) -> Iterator[Outgoing]:
        """The messages that are not settled yet."""
        return chain(self._unconfirmed.values(), self._suspects, self._backlog)

    @property
    def is_open(self) -> bool:
        """Whether the channel stands or is being opened."""
        return self._channel is not None and not self._channel.is_closed

    @property
    def is_ready(self) -> bool:
        """Whether a message sent now is written at once."""
        lane_is_free = self._suspect is None and not self._suspects
        return self._may_write and lane_is_free

    @property
    def _may_write(self) -> bool:
        # A broker that blocks us reads nothing: what were written would lie in the buffer of the
        # socket, where nobody can take it out again when its time has passed.
        connection = self._link.connection
        is_blocked = connection is not None and connection.blocked
        return self._ready and not self._paused and not is_blocked

    def open(self, connection: Connection) -> None:
        """Open the channel on a new connection, or anew on the same one."""
        self._ready = False
        self._next_tag = 1
        self._answer.begin()
        self._channel = connection.open_channel(
            self._number, self, on_open=self._opened, on_close=self._closed
        )

    def declare(self, entities: Sequence[Exchange | Queue]) -> None:
        """Declare these too, before anything that is sent from now on."""
        new = tuple(entity for entity in entities if entity not in self._declare)
        self._declare += new
        if new and self._ready and self._link.connection is not None:
            self._link.connection.write(declare_frames(self._number, new))

    def detach(self, error: Exception) -> None:
        """The connection is gone: keep what may be written again, fail what may not."""
        self._channel = None
        self._ready = self._paused = False
        self._answer.end()
        self._do_not_reopen()
        unknown = [*self._unconfirmed.values(), *self._suspects]  # in the order of sending
        self._suspects.clear()
        self._suspect = None
        self._unconfirmed.clear()
        kept: list[Outgoing] = []
        for message in unknown:
            if message.settled:
                continue
            if message.resend:
                kept.append(message)
            else:
                message.settled = True
                message.on_failed(error)
        self._backlog.extendleft(reversed(kept))
        self._done_closing()

    def abandon(self, make_error: Callable[[], Exception]) -> None:
        """Fail everything that is not settled, each message with an error of its own."""
        left = [*self._unconfirmed.values(), *self._suspects, *self._backlog]
        self._suspects.clear()
        self._suspect = None
        self._unconfirmed.clear()
        self._backlog.clear()
        for message in left:
            self._fail(message, make_error())

    def send(self, message: Outgoing) -> None:
        """Write a message, now or as soon as its turn comes."""
        if self.is_ready:
            self._write(message)
            return
        self._backlog.append(message)

    def pause(self) -> None:
        """Write nothing before ``resume()``, or the next connection."""
        self._paused = True

    def resume(self) -> None:
        """Write what has come since ``pause()``."""
        self._paused = False
        self._go_on()

    def forget(self, message: Outgoing) -> None:
        """Nobody waits for it any more: do not write it, or not again, and report nothing."""
        message.settled = True
        if message in self._backlog:
            self._backlog.remove(message)
            self._check_drained()

    def drain(self, done: Callable[[], None]) -> None:
        """Call ``done`` when no message is left to write or to be confirmed."""
        self._on_drained = done
        self._check_drained()

    def close(self, done: Callable[[], None]) -> None:
        """Close the channel; ``done`` is called when the broker has confirmed that it did."""
        self._do_not_reopen()
        self._answer.end()
        channel = self._channel
        if channel is None or channel.is_closed or channel.is_closing:
            done()
            return
        self._closing = done
        self._ready = False
        if channel.is_open:
            channel.close()
        # else when it has opened: until the broker has answered, its number is in use

    # What the connection calls

    def on_confirm(self, tag: int, multiple: bool, accepted: bool) -> None:
        """Settle one message, or all up to ``tag``."""
        self.confirms += 1
        if not multiple:
            message = self._unconfirmed.pop(tag, None)
            if message is not None:
                self._settle(message, accepted)
        else:
            # Tags are written in rising order, so the settled ones lie in front.
            up_to = list(takewhile(lambda number: number <= tag, self._unconfirmed))
            for number in up_to:
                self._settle(self._unconfirmed.pop(number), accepted)
        if self._suspect is not None or self._suspects:
            self._next_suspect()
        self._check_drained()

    def on_unblocked(self) -> None:
        """Write what has come while the broker blocked us."""
        self._go_on()

    def on_return(self, code: int, text: str, header: bytes, body: bytes) -> None:
        """Tell a mandatory message that it came back."""
        try:
            message_id = decode_properties(header).message_id
        except ValueError:
            return
        if message_id is None:
            return
        # Its confirm follows at once, so it is among the oldest: the search ends soon.
        for message in self._unconfirmed.values():
            if message.mandatory and message.message_id == message_id:
                if not message.settled:
                    message.on_returned(code, text)
                return

    def _opened(self, channel: Channel) -> None:
        if self._closing is not None:
            channel.close()
            return
        run_steps(self._prepare(channel), channel)

    def _prepare(self, channel: Channel) -> Steps:
        # The answers to its confirms come through on_confirm.
        yield lambda done: channel.confirm_delivery(lambda _frame: None, callback=done)
        declared = 0
        while declared < len(self._declare):  # more may come meanwhile
            yield from declare(channel, self._declare[declared])
            declared += 1
        if self._restoring and self._restore is not None:
            yield from declare_queue(channel, self._restore)
            self._restoring = False
        self._answer.end()
        self._ready = True
        if self._suspects:
            self._next_suspect()
        else:
            self._write_backlog()
        if self._on_ready is not None:
            self._on_ready()

    def _closed(self, channel: Channel, reason: BaseException) -> None:
        if channel is not self._channel:
            return
        self._channel = None
        self._ready = False
        self._answer.end()
        if self._closing is not None:
            self._done_closing()
            return
        connection = self._link.connection
        if connection is None or not connection.is_open:
            return  # the connection is going down; detach() follows
        error = reason if isinstance(reason, Exception) else RuntimeError(repr(reason))
        if self._next_tag == 1:
            # Nothing was written, so it is our own declaring that is refused: no use to repeat it.
            if self._on_refused is not None:
                self._on_refused(error)
            else:
                self._link.reset(error)
            return
        code = getattr(error, "reply_code", None)
        ours = bool(self._declare) or self._restore is not None
        missing = code == _MISSING and ours  # declaring it again may help
        self._restoring = missing
        if code in self._concerns_all and not missing:
            self.abandon(lambda: error)
            self._check_drained()
            return
        self._refused(error, missing)
        # Not now: after this callback pika forgets the channel of this number, even a new one.
        self._reopening = self._link.call_at(0.0, self._reopen)

    def _reopen(self) -> None:
        self._reopening = None
        connection = self._link.connection
        if connection is not None and connection.is_open and self._channel is None:
            self.open(connection)

    def _do_not_reopen(self) -> None:
        if self._reopening is not None:
            self._link.cancel_timer(self._reopening)
            self._reopening = None

    def _refused(self, error: Exception, missing: bool) -> None:
        """The broker closed the channel over one of the messages on it."""
        culprit, self._suspect = self._suspect, None
        # Those that nobody waits for count too: one of them may be the culprit.
        written = list(self._unconfirmed.values())
        self._unconfirmed.clear()
        if len(written) == 1 and culprit is None:
            if missing:
                self._suspects.appendleft(written.pop())  # surely not taken, so it may go again
            else:
                culprit = written[0]
        for message in reversed(written):
            if message is culprit or not message.resend:
                self._fail(message, error)
            else:
                self._suspects.appendleft(message)

    def _next_suspect(self) -> None:
        """Write the next message that may be the culprit, when the one before is settled."""
        if not self._may_write or self._unconfirmed:
            return
        self._suspect = None
        while self._suspects:
            message = self._suspects.popleft()
            if not message.settled:
                self._suspect = message
                self._write(message)
                if self._unconfirmed:
                    return
                self._suspect = None  # it could not even be written
        self._write_backlog()

    def _go_on(self) -> None:
        if self._suspects:
            self._next_suspect()
        else:
            self._write_backlog()

    def _write_backlog(self) -> None:
        while self._backlog and self.is_ready:
            message = self._backlog.popleft()
            if not message.settled:
                self._write(message)
        self._check_drained()

    def _write(self, message: Outgoing) -> None:
        connection = self._link.connection
        assert connection is not None, "the channel is open"
        try:
            # Again: the limit was not known, or another, when the message was made.
            check_sendable(message.header, b"", connection.frame_max, 0)
        except EncodeError as error:
            self._fail(message, error)
            return
        frames = publish_frames(
            self._number,
            message.exchange,
            message.routing_key,
            message.mandatory,
            message.header,
            message.body,
            connection.frame_max,
        )
        self._unconfirmed[self._next_tag] = message
        self._next_tag += 1
        if message.declare_first:
            connection.write(declare_frames(self._number, message.declare_first))
        connection.write(frames)
        message.on_written()

    def _settle(self, message: Outgoing, accepted: bool) -> None:
        if message.settled:
            return
        message.settled = True
        if accepted:
            message.on_confirmed()
        else:
            message.on_failed(PublishFailed("a nack: the queue is full, or has failed"))

    def _fail(self, message: Outgoing, error: Exception) -> None:
        if not message.settled:
            message.settled = True
            message.on_failed(error)

    def _check_drained(self) -> None:
        if self._on_drained is not None and not len(self):
            done, self._on_drained = self._on_drained, None
            done()

    def _done_closing(self) -> None:
        done, self._closing = self._closing, None
        if done is not None:
            done()
