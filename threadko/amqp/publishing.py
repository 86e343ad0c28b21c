"""Publishing: synchronous outside, asynchronous inside, one connection for all who publish.

Threads that meet here::

    PublishLink.start, wait_up, interrupt, stop, kill, publish, publish_async    any thread
    everything else                                                            the link's thread

A message is encoded and checked in its publisher's thread, so that a fault in it is raised there
and costs nobody else. It then belongs to the link's thread until the broker has confirmed it, or
its deadline has passed. Each exchange has a confirm channel of its own: a publish to an exchange
that is missing or forbidden closes its channel, and fails only those who asked for that exchange.

A missed deadline fails that message alone. Only if no confirm at all has come since it was
written, and the broker has not said that it blocks publishers, the connection is taken for dead
and made anew. Order of stopping: no more messages are taken, those under way are confirmed or
fail, then the connection closes.
"""

import concurrent.futures
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from itertools import count

from threadko.amqp.confirms import ConfirmChannel, Outgoing
from threadko.amqp.connection import Connection
from threadko.amqp.declaring import Declaration
from threadko.amqp.entities import Exchange, Queue
from threadko.amqp.link import Link
from threadko.amqp.message import Properties, check_sendable, encode_properties
from threadko.amqp.parameters import BrokerParameters
from threadko.concurrency.callbacks import CallbackFuture
from threadko.concurrency.deadline import Deadline
from threadko.concurrency.timers import Timer
from threadko.context import new_id
from threadko.exceptions import (
    BrokerRefused,
    ContainerStopped,
    EncodeError,
    PublishFailed,
    ThreadkoError,
    UndeliverableMessage,
    WorkerKilled,
)

__all__ = ["PublishLink"]

_MAX_CHANNELS = 64
_REFUSED, _MISSING = 403, 404

# Guessed: less than that without a confirm is a busy broker, or a publisher in a great hurry.
_SILENCE_SECONDS = 0.5

# Guessed: for the connection's thread to tell of a deadline. It is held up for ever by whoever
# waits for it with a lock that it needs: a log handler that publishes, say.
_LATE_SECONDS = 1.0


class _Window:
    """How many messages may be unconfirmed at once; any thread takes and gives back."""

    def __init__(self, size: int) -> None:
        self._free = size  # guarded by _changed
        self._closed: BaseException | None = None  # guarded by _changed
        self._changed = threading.Condition()

    def take(self, deadline: Deadline) -> bool:
        with self._changed:
            self._changed.wait_for(
                lambda: self._free > 0 or self._closed is not None, deadline.remaining()
            )
            self._check_open()
            if self._free == 0:
                return False
            self._free -= 1
            return True

    def check_open(self) -> None:
        """Raise what it was closed with."""
        with self._changed:
            self._check_open()

    def _check_open(self) -> None:
        if self._closed is not None:
            raise type(self._closed)(*self._closed.args)

    def give_back(self) -> None:
        with self._changed:
            self._free += 1
            self._changed.notify()

    def close(self, error: BaseException) -> None:
        with self._changed:
            self._closed = self._closed or error
            self._changed.notify_all()


class _Publication(Outgoing):
    """A message on its way, and the future of its confirm."""

    __slots__ = (
        "channel",
        "confirms_before",
        "deadline",
        "declare",
        "future",
        "generation",
        "owner",
        "returned",
        "timer",
        "written_at",
    )

    def __init__(
        self,
        owner: "PublishLink",
        *,
        exchange: str,
        routing_key: str,
        header: bytes,
        body: bytes,
        mandatory: bool,
        message_id: str | None,
        resend: bool,
        declare: Sequence[Exchange | Queue],
        declare_first: Sequence[Exchange | Queue],
        deadline: Deadline,
    ) -> None:
        super().__init__(
            exchange=exchange,
            routing_key=routing_key,
            header=header,
            body=body,
            mandatory=mandatory,
            message_id=message_id,
            resend=resend,
            declare_first=declare_first,
        )
        self.owner = owner
        self.declare = tuple(declare)
        self.deadline = deadline
        self.future: CallbackFuture[None] = CallbackFuture()
        self.timer: Timer | None = None
        self.channel: ConfirmChannel | None = None
        self.returned: str | None = None
        self.generation = 0
        self.confirms_before = 0
        self.written_at = 0.0

    def on_written(self) -> None:
        """Remember when, to judge later why its confirm does not come."""
        self.returned = None  # it may have come back from the connection before
        self.owner.note_written(self)

    def on_confirmed(self) -> None:
        """The broker has it, unless it returned it before."""
        if self.returned is not None:
            self.owner.settle(self, UndeliverableMessage(self.returned))
        else:
            self.owner.settle(self, None)

    def on_returned(self, code: int, text: str) -> None:
        """No queue would have it."""
        self.returned = (
            f"no queue takes messages of exchange {self.exchange!r} with routing key"
            f" {self.routing_key!r} ({code} {text})"
        )

    def on_failed(self, error: Exception) -> None:
        """The broker refused it, or it may be lost and must not be sent twice."""
        what = f"exchange {self.exchange!r}, routing key {self.routing_key!r}"
        self.owner.fail(self, f"a message was not taken by the broker ({what}): {error}")


class PublishLink:
    """A connection for publishing, shared by all threads.

    Args:
        parameters: the broker.
        name: of the connection's thread.
        window: unconfirmed messages at once; who would exceed it waits, up to its deadline.
        timeout: seconds for a publish in all, where the call says nothing else.
        max_message_size: bytes that a body may have.
    """

    def __init__(
        self,
        parameters: BrokerParameters,
        *,
        name: str,
        window: int = 1000,
        timeout: float = 10.0,
        max_message_size: int = 16 * 1024 * 1024,
    ) -> None:
        self._parameters = parameters
        self._timeout = timeout
        self._max_message_size = max_message_size
        self._window = _Window(window)
        self._link = Link(parameters, name=name, session=self)
        self._killed = False  # set once, by any thread
        self._declarations_lock = threading.Lock()  # guards the two below
        self._interrupted = False
        self._declarations: list[Declaration] = []  # that somebody waits for

        # Touched by the link's thread alone.
        self._channels: OrderedDict[str, tuple[int, ConfirmChannel]] = OrderedDict()
        self._new_numbers = count(1)
        self._free_numbers: list[int] = []
        self._confirms = 0  # that came on channels which are gone
        self._under_way = 0  # messages that somebody waits for
        self._finishing = False
        self._finished = False
        self._abandoned: str | None = None  # why, once no connection will follow

    # Any thread

    def start(self) -> None:
        """Begin to connect; returns at once."""
        self._link.start()

    def wait_up(self, deadline: Deadline) -> None:
        """Wait until the connection stands; raises as ``Link.wait_up`` does."""
        self._link.wait_up(deadline)

    def interrupt(self) -> None:
        """Let ``wait_up`` and ``declare`` give up."""
        self._link.interrupt()
        with self._declarations_lock:
            self._interrupted = True
            declarations = list(self._declarations)
        for declaration in declarations:
            declaration.fail(ContainerStopped("stopped while declaring"))

    def declare(self, entities: Sequence[Exchange | Queue], deadline: Deadline) -> None:
        """Declare exchanges and queues, and wait until they stand.

        A connection that is lost meanwhile is waited for.

        Raises:
            BrokerRefused: the broker refuses one of them, and would do so again.
            BrokerUnavailable: the deadline has passed.
            ContainerStopped: it was stopped or interrupted meanwhile.
        """
        while True:
            self.wait_up(deadline)
            declaration = Declaration(self._link, entities)
            with self._declarations_lock:
                if self._interrupted:  # since, or while the link was up
                    raise ContainerStopped("stopped while declaring")
                self._declarations.append(declaration)
            try:
                if not self._link.post(partial(self._declare, declaration)):
                    raise ContainerStopped("the publisher is stopped")
                if declaration.wait(deadline):
                    return
            finally:
                with self._declarations_lock:
                    self._declarations.remove(declaration)

    def _declare(self, declaration: Declaration) -> None:
        number = self._take_number()
        declaration.run(number, lambda: self._free_numbers.append(number))

    def trouble(self) -> str | None:
        """Say why the connection does not stand; None if it does."""
        return self._link.trouble()

    def ping(self, answer: Callable[[], object]) -> None:
        """Have `answer` called on the connection's thread."""
        self._link.ping(answer)

    def stop(self, timeout: float) -> None:
        """Wait for the confirms of all that is under way, then close."""
        self._window.close(ContainerStopped("the publisher is stopped"))
        self._link.stop(timeout)

    @property
    def has_ended(self) -> bool:
        """Whether no connection will follow: it was stopped, killed, or refused for good."""
        return self._abandoned is not None

    def forget(self) -> None:
        """Close the descriptors that a forked child has inherited; only there."""
        self._link.forget()

    def kill(self) -> None:
        """Drop the connection and raise ``WorkerKilled`` in all who wait for a confirm."""
        self._killed = True
        self._window.close(WorkerKilled("killed while publishing"))
        self._link.kill()

    def publish(
        self,
        body: bytes,
        properties: Properties,
        *,
        exchange: str = "",
        routing_key: str = "",
        mandatory: bool = False,
        retry: bool = True,
        declare: Sequence[Exchange | Queue] = (),
        declare_first: Sequence[Exchange | Queue] = (),
        timeout: float | None = None,
    ) -> None:
        """Publish a message and wait until the broker has confirmed it.

        Args:
            retry: send it again, with the same ids, when the connection is lost before its
                confirm; it may then arrive twice. Without, that raises ``PublishFailed``.
            declare: exchanges and queues to declare before, and again when they are missing.
            declare_first: those to declare right before this message, though they were declared
                already.
            timeout: seconds for all of it; the publisher's own if not given.

        Raises:
            EncodeError: the message cannot be sent as it is.
            UndeliverableMessage: it is mandatory, and no queue would have it.
            PublishFailed: it was refused, or not confirmed in time: whether it arrived is unknown.
        """
        limit = Deadline((self._timeout if timeout is None else timeout) + _LATE_SECONDS)
        future = self.publish_async(
            body,
            properties,
            exchange=exchange,
            routing_key=routing_key,
            mandatory=mandatory,
            retry=retry,
            declare=declare,
            declare_first=declare_first,
            timeout=timeout,
        )
        try:
            future.result(limit.remaining())
        except concurrent.futures.TimeoutError:
            reason = "no confirm in time; whether the message arrived is unknown"
            raise PublishFailed(reason) from None
        finally:
            del future  # it refers to its error, whose traceback refers to this frame

    def publish_async(
        self,
        body: bytes,
        properties: Properties,
        *,
        exchange: str = "",
        routing_key: str = "",
        mandatory: bool = False,
        retry: bool = True,
        declare: Sequence[Exchange | Queue] = (),
        declare_first: Sequence[Exchange | Queue] = (),
        timeout: float | None = None,
    ) -> Future[None]:
        """Publish as ``publish`` does, and return the future of the confirm.

        Waits only where the window is full.
        """
        if self._link.owns_this_thread():
            raise RuntimeError("publishing on the connection's own thread would wait for itself")
        deadline = Deadline(self._timeout if timeout is None else timeout)
        if mandatory and properties.message_id is None:
            # A message that comes back is known again by its id.
            properties = replace(properties, message_id=new_id())
        if properties.user_id not in (None, self._parameters.user):
            # The broker would close the channel over it.
            raise EncodeError(
                f"user_id must be the user logged in, {self._parameters.user!r}, or left out"
            )
        header = encode_properties(properties)
        check_sendable(
            header,
            body,
            self._link.frame_max,
            self._max_message_size,
            exchange=exchange,
            routing_key=routing_key,
        )
        publication = _Publication(
            self,
            exchange=exchange,
            routing_key=routing_key,
            header=header,
            body=body,
            mandatory=mandatory,
            message_id=properties.message_id,
            resend=retry,
            declare=declare,
            declare_first=declare_first,
            deadline=deadline,
        )
        if not self._window.take(deadline):
            raise PublishFailed("too many messages wait for the broker's confirm: nothing was sent")
        if not self._link.post(partial(self._send, publication)):
            self._window.give_back()
            self._window.check_open()  # closed before the link was
            raise ContainerStopped("the publisher is stopped")
        return publication.future

    # The link's thread: the session

    def begin(self, connection: Connection) -> None:
        """Open the channels that have messages to write."""
        self._link.came_up()
        for name, (_, channel) in list(self._channels.items()):
            if len(channel):
                channel.open(connection)
            else:
                self._drop_channel(name)

    def end(self, error: ThreadkoError) -> None:
        """Keep what may be written again for the next connection."""
        with self._declarations_lock:
            declarations = list(self._declarations)
        for declaration in declarations:
            declaration.detach()
        for _, channel in list(self._channels.values()):
            channel.detach(error)

    def turn(self) -> None:
        """Nothing is saved up for the end of a turn."""

    def finish(self) -> None:
        """Wait for the confirms of all that is under way."""
        self._finishing = True
        self._check_finished()

    def abandon(self, error: ThreadkoError | None, killed: bool) -> None:
        """Fail all that is under way."""
        reason = self._abandoned = str(error or "the publisher is stopped")
        with self._declarations_lock:
            declarations = list(self._declarations)
        for declaration in declarations:
            declaration.fail(ContainerStopped(reason))
        for _, channel in list(self._channels.values()):
            channel.abandon(lambda: PublishFailed(reason))
        self._channels.clear()
        is_refused = isinstance(error, BrokerRefused) and not killed
        end = PublishFailed(reason) if is_refused else ContainerStopped("the publisher is stopped")
        self._window.close(end)

    # The link's thread: messages

    def note_written(self, publication: _Publication) -> None:
        """``publication`` is in the write buffer."""
        publication.written_at = time.monotonic()
        publication.generation = self._link.generation
        publication.confirms_before = self._all_confirms()

    def fail(self, publication: _Publication, reason: str) -> None:
        """Tell whoever waits for a publication that it failed, or that all is over."""
        if self._killed:
            self.settle(publication, WorkerKilled("killed while publishing"))
        else:
            self.settle(publication, PublishFailed(reason))

    def settle(self, publication: _Publication, error: BaseException | None) -> None:
        """Resolve a publication, once."""
        publication.settled = True
        if publication.timer is not None:
            self._link.cancel_timer(publication.timer)
            publication.timer = None
        if publication.future.done():
            return
        if error is None:
            publication.future.set_result(None)
        else:
            publication.future.set_exception(error)
        self._window.give_back()
        self._under_way -= 1
        if self._finishing:
            self._link.call_at(0.0, self._check_finished)

    def _send(self, publication: _Publication) -> None:
        if not publication.future.set_running_or_notify_cancel():
            self._window.give_back()
            return
        self._under_way += 1
        if self._abandoned is not None:
            # It was posted while the thread was ending, and nobody would come back to it.
            self.fail(publication, f"{self._abandoned}; nothing was sent")
            return
        at = publication.deadline.expires_at
        if at is not None:
            if publication.deadline.expired:
                self._overdue(publication)
                return
            publication.timer = self._link.call_at(at, partial(self._overdue, publication))
        channel = publication.channel = self._get_channel(publication)
        channel.send(publication)
        connection = self._link.connection
        if connection is not None and connection.is_open and not channel.is_open:
            channel.open(connection)

    def _get_channel(self, publication: _Publication) -> ConfirmChannel:
        """Return the channel of an exchange; least recently used ones go when there are many."""
        name = publication.exchange
        if name in self._channels:
            self._channels.move_to_end(name)
            channel = self._channels[name][1]
            channel.declare(publication.declare)
            return channel
        if len(self._channels) >= _MAX_CHANNELS:
            idle = next((n for n, (_, channel) in self._channels.items() if not len(channel)), None)
            if idle is not None:
                self._drop_channel(idle)
        number = self._take_number()
        channel = ConfirmChannel(
            self._link,
            number,
            declare=publication.declare,
            on_refused=lambda error: self._exchange_refused(name, error),
            concerns_all=(_REFUSED, _MISSING),
        )
        self._channels[name] = (number, channel)
        return channel

    def _take_number(self) -> int:
        return self._free_numbers.pop() if self._free_numbers else next(self._new_numbers)

    def _drop_channel(self, name: str) -> None:
        number, channel = self._channels.pop(name)
        self._confirms += channel.confirms
        channel.close(lambda: self._free_numbers.append(number))

    def _exchange_refused(self, name: str, error: Exception) -> None:
        _, channel = self._channels[name]
        channel.abandon(lambda: PublishFailed(f"exchange {name!r} was refused: {error}"))
        self._drop_channel(name)  # or a wrong declaration would be made for all who come after

    def _all_confirms(self) -> int:
        return self._confirms + sum(channel.confirms for _, channel in self._channels.values())

    def _overdue(self, publication: _Publication) -> None:
        publication.timer = None
        connection = self._link.connection
        blocked = connection is not None and connection.blocked
        why = ": the broker blocks publishers, it is short of memory or disk" if blocked else ""
        written = publication.generation > 0
        silent = publication.confirms_before == self._all_confirms()
        if publication.channel is not None:
            publication.channel.forget(publication)
        unknown = "; whether the message arrived is unknown" if written else "; nothing was sent"
        self.fail(publication, f"no confirm in time{why}{unknown}")
        # A connection that is only being made has the generation of the one before.
        stands = connection is not None and connection.is_open
        silent = silent and time.monotonic() - publication.written_at >= _SILENCE_SECONDS
        if stands and silent and not blocked and publication.generation == self._link.generation:
            self._link.reset(PublishFailed("the broker confirms nothing"))

    def _check_finished(self) -> None:
        if not self._under_way and not self._finished:
            self._finished = True
            self._link.finished()
