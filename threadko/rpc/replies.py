"""Requests out and replies in, over one connection.

``CallLink`` is the session of a link with two channels: replies are consumed on the first, and
requests published on the second, so that one thread sees a request's return, its confirm and its
reply. Threads that meet here::

    start, wait_up, interrupt, stop, kill, call    any thread
    everything else                                the link's thread

A call is pending from ``call()`` until somebody pops its entry, see ``calls``. Order of stopping:
requests that the broker has not confirmed are waited for, both channels are closed, the
connection follows, and calls that still have no reply fail.
"""

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from threadko.amqp.confirms import ConfirmChannel
from threadko.amqp.connection import Connection
from threadko.amqp.consuming import ConsumerChannel
from threadko.amqp.link import Link
from threadko.amqp.message import (
    MAX_EXPIRATION,
    Delivery,
    Properties,
    check_sendable,
    encode_properties,
    find_correlation_id,
)
from threadko.amqp.parameters import BrokerParameters
from threadko.amqp.topology import Step, Steps, run_steps
from threadko.concurrency.deadline import Deadline
from threadko.concurrency.timers import Timer
from threadko.context import new_id
from threadko.exceptions import (
    BrokerRefused,
    ContainerStopped,
    PublishFailed,
    ReplyQueueExpiredWithPendingReplies,
    RpcTimeout,
    ThreadkoError,
    WorkerKilled,
)
from threadko.rpc.calls import Failure, PendingCalls, RawReply, RpcCall
from threadko.rpc.options import NO_OPTIONS, RequestOptions
from threadko.rpc.probe import Probe
from threadko.rpc.protocol import reply_queue, rpc_exchange
from threadko.rpc.request import Request
from threadko.serialization import Encoded

__all__ = ["CallLink"]

_log = logging.getLogger(__name__)

_REPLIES, _REQUESTS, _CHECK, _PROBE = 1, 2, 3, 4  # the numbers of the channels

# Guessed: too short for the broker to mind, and long enough that a busy client acknowledges with
# its next request. A write of its own would come just when the caller wants to go on.
_ACK_DELAY_SECONDS = 0.05

# The broker is asked about a silent service so long before the call times out, at the most. Its
# answer takes milliseconds; where it comes too late, the time-out says less.
_PROBE_SECONDS = 0.5
_PROBE_SHARE = 0.2  # of the time-out


class CallLink:
    """A caller's connection: sends its requests and finds the calls that replies belong to.

    Args:
        parameters: the broker.
        name: of the connection's thread.
        caller: the name in the reply queue's name.
        exchange: name of the RPC exchange.
        publish_timeout: seconds within which the broker must confirm a request.
        max_message_size: bytes that the body of a request may have.
    """

    def __init__(
        self,
        parameters: BrokerParameters,
        *,
        name: str,
        caller: str,
        exchange: str,
        publish_timeout: float,
        max_message_size: int,
    ) -> None:
        self.reply_key = new_id()
        self._exchange = rpc_exchange(exchange)
        self._publish_timeout = publish_timeout
        self._max_message_size = max_message_size
        self._pending = PendingCalls()
        self._link = Link(parameters, name=name, session=self)

        # Touched by the link's thread alone.
        self._requests_by_id: dict[str, Request] = {}  # sent or to be sent, and not answered
        self._last_reply = 0  # delivery tag
        self._acked = 0
        self._ack_timer: Timer | None = None
        # All have the same time, so the first is due first, and one timer does for all.
        self._unconfirmed: dict[Request, None] = {}
        self._confirm_timer: Timer | None = None
        self._replies = ConsumerChannel(
            self._link,
            _REPLIES,
            reply_queue(caller, self.reply_key, self._exchange),
            prefetch=0,
            on_delivery=self._on_reply,
            on_ready=self._replies_ready,
            on_closed=self._channel_closed,
            on_cancelled=self._queue_deleted,
        )
        self._replies.consume()
        self._requests = ConfirmChannel(
            self._link,
            _REQUESTS,
            declare=[self._exchange],
            on_ready=self._link.came_up,
            restore=self._replies.queue,
        )
        self._probe = Probe(self._link, _PROBE)

    # Any thread

    @property
    def pending(self) -> int:
        """How many calls wait for a reply."""
        return len(self._pending)

    def find_calls_to(self, service: str) -> set[str]:
        """Return the correlation ids of the calls to a service that wait for a reply."""
        return self._pending.find_to(service)

    @property
    def is_up(self) -> bool:
        """Whether the connection stands and replies are consumed."""
        return self._link.is_up

    def start(self) -> None:
        """Begin to connect; returns at once."""
        self._link.start()

    def wait_up(self, deadline: Deadline) -> None:
        """Wait until the connection stands; raises as ``Link.wait_up`` does."""
        self._link.wait_up(deadline)

    def interrupt(self) -> None:
        """Let ``wait_up`` give up."""
        self._link.interrupt()

    def trouble(self) -> str | None:
        """Say why the connection does not stand; None if it does."""
        return self._link.trouble()

    def ping(self, answer: Callable[[], object]) -> None:
        """Have `answer` called on the connection's thread."""
        self._link.ping(answer)

    def stop(self, timeout: float) -> None:
        """Flush requests, close the connection, and fail the calls that have no reply by then."""
        self._link.stop(timeout)
        self._pending.close(_stopped)

    def kill(self) -> None:
        """Drop the connection and raise ``WorkerKilled`` in all who wait for a reply."""
        # In this order: the link's thread fails what it finds waiting as merely stopped.
        self._pending.close(_killed)
        self._link.kill()

    def forget(self) -> None:
        """Close what a forked child has inherited; only there, where the link has no thread."""
        self._link.forget()

    def call(
        self,
        service: str,
        method: str,
        encoded: Encoded,
        headers: dict[str, Any],
        *,
        decode: Callable[[RawReply], Any],
        timeout: float | None,
        options: RequestOptions = NO_OPTIONS,
    ) -> RpcCall:
        """Send a request and return the call that waits for its reply.

        Args:
            headers: with those of the options, if there are any.
            timeout: seconds for the whole call, or None; the request itself expires with it, so
                that a service does not do what nobody waits for.

        Raises:
            EncodeError: the request cannot be sent as it is.
            RuntimeError: called on the connection's own thread, which must never wait for itself.
        """
        if self._link.owns_this_thread():
            raise RuntimeError("a call on the connection's own thread would wait for itself")
        correlation_id = new_id()
        header = encode_properties(
            Properties(
                content_type=encoded.content_type,
                content_encoding=encoded.content_encoding,
                headers=headers,
                delivery_mode=options.delivery_mode,
                priority=options.priority,
                correlation_id=correlation_id,
                reply_to=self.reply_key,
                expiration=_expiration(timeout, options.expiration),
                message_id=correlation_id,
                **options.properties,
            )
        )
        request = Request(
            exchange=self._exchange.name,
            service=service,
            method=method,
            header=header,
            body=encoded.body,
            message_id=correlation_id,
            timeout=timeout,
            resends=options.resends,
        )
        check_sendable(
            header,
            encoded.body,
            self._link.frame_max,
            self._max_message_size,
            exchange=request.exchange,
            routing_key=request.routing_key,
        )
        call = RpcCall(
            correlation_id,
            request.routing_key,
            decode=decode,
            forget=lambda: self._forget(request),
        )
        request.call = call
        request.call_link = self
        self._pending.add(call)
        if not self._link.post(partial(self._send, request)):
            self._pending.pop(correlation_id)
            raise ContainerStopped("the client is stopped")
        return call

    def _forget(self, request: Request) -> bool:
        if self._pending.pop(request.call.correlation_id) is None:
            return False
        self._link.post(partial(self._clear, request))
        return True

    # The link's thread: the session

    def begin(self, connection: Connection) -> None:
        """Check on the reply queue if replies are due, then open both channels."""
        self._last_reply = self._acked = 0
        if any(request.generation for request in self._requests_by_id.values()):
            connection.open_channel(
                _CHECK,
                self._replies,
                on_open=lambda channel: run_steps(self._check_queue(channel, connection)),
                on_close=lambda _, reason: self._check_failed(connection, reason),
            )
        else:
            self._replies.open(connection)

    def end(self, error: ThreadkoError) -> None:
        """Keep what may be written again for the next connection."""
        self._replies.detach()
        self._requests.detach(error)
        self._probe.detach()

    def turn(self) -> None:
        """Acknowledge all replies so far along with what is written anyway, or a little later."""
        if self._last_reply == self._acked:
            return
        connection = self._link.connection
        if connection is not None and connection.has_output:
            self._acknowledge()
        elif self._ack_timer is None:
            self._ack_timer = self._link.call_at(
                time.monotonic() + _ACK_DELAY_SECONDS, self._ack_late
            )

    def _ack_late(self) -> None:
        self._ack_timer = None
        self._acknowledge()

    def _acknowledge(self) -> None:
        if self._last_reply != self._acked and self._replies.is_open:
            self._acked = self._last_reply
            self._replies.ack_up_to(self._acked)

    def finish(self) -> None:
        """Wait for the confirms of what was sent, then close."""
        self._acknowledge()
        self._requests.drain(
            lambda: self._requests.close(lambda: self._replies.close(self._link.finished))
        )

    def abandon(self, error: ThreadkoError | None, killed: bool) -> None:
        """Fail all calls: no reply will come."""
        self._requests_by_id.clear()
        if isinstance(error, BrokerRefused):
            reason = str(error)
            self._pending.close(lambda: BrokerRefused(reason))
        else:
            self._pending.close(_stopped)
        self._requests.abandon(_stopped)

    # The link's thread: requests and replies

    def note_written(self, request: Request) -> None:
        """``request`` is in the write buffer."""
        request.generation = self._link.generation
        request.confirms_before = self._requests.confirms
        request.written_at = time.monotonic()

    def note_confirmed(self, request: Request) -> None:
        """The broker has ``request``."""
        self._unconfirmed.pop(request, None)

    def fail(self, request: Request, failure: Failure) -> None:
        """End the call of ``request`` with an error, unless it has ended already."""
        call = self._pending.pop(request.call.correlation_id)
        self._clear(request)
        if call is not None:
            call.resolve(failure)

    def _send(self, request: Request) -> None:
        if request.call.done():  # cancelled before it came this far
            return
        self._requests_by_id[request.call.correlation_id] = request
        if request.expires_at is not None:
            # One timer at a time: most calls are answered long before either.
            lead = min(_PROBE_SECONDS, _PROBE_SHARE * (request.timeout or 0.0))
            request.reply_timer = self._link.call_at(
                request.expires_at - lead, partial(self._reply_nearly_overdue, request)
            )
        request.confirm_by = time.monotonic() + self._publish_timeout
        self._unconfirmed[request] = None
        if self._confirm_timer is None:
            self._confirm_timer = self._link.call_at(request.confirm_by, self._check_confirms)
        self._requests.send(request)

    def _clear(self, request: Request) -> None:
        """The call has ended: nothing more is to be done for its request."""
        self._requests_by_id.pop(request.call.correlation_id, None)
        self._requests.forget(request)
        self._unconfirmed.pop(request, None)
        if request.reply_timer is not None:
            self._link.cancel_timer(request.reply_timer)
            request.reply_timer = None

    def _on_reply(self, delivery: Delivery) -> None:
        self._last_reply = delivery.tag
        correlation_id = find_correlation_id(delivery.header)
        call = None if correlation_id is None else self._pending.pop(correlation_id)
        if correlation_id is None or call is None:
            _log.debug("a reply that nobody waits for: correlation id %r", correlation_id)
            return
        request = self._requests_by_id.get(correlation_id)
        if request is not None:
            self._clear(request)
        call.resolve(RawReply(delivery.header, delivery.body))

    def _reply_nearly_overdue(self, request: Request) -> None:
        assert request.expires_at is not None, "it has a timer"
        self._probe.ask(request.service)
        request.reply_timer = self._link.call_at(
            request.expires_at, partial(self._reply_overdue, request)
        )

    def _reply_overdue(self, request: Request) -> None:
        text = f"{request.routing_key} did not answer within {request.timeout} s"
        text += self._probe.describe(request.service)
        self.fail(request, lambda: RpcTimeout(text))

    def _check_confirms(self) -> None:
        """Fail the requests whose confirm is overdue, and look again when the next one is due."""
        self._confirm_timer = None
        now = time.monotonic()
        for request in list(self._unconfirmed):
            if request.confirm_by > now:
                self._confirm_timer = self._link.call_at(request.confirm_by, self._check_confirms)
                return
            self._confirm_overdue(request)

    def _confirm_overdue(self, request: Request) -> None:
        self._unconfirmed.pop(request, None)
        seconds, target = self._publish_timeout, request.routing_key
        connection = self._link.connection
        blocked = connection is not None and connection.blocked
        why = ": it blocks publishers, for it is short of memory or disk" if blocked else ""
        unknown = "whether it arrived is unknown" if request.generation else "nothing was sent"
        self.fail(
            request,
            lambda: PublishFailed(
                f"the broker did not confirm the request to {target} within {seconds} s{why};"
                f" {unknown}"
            ),
        )
        # A broker that confirms others is alive, and one that blocks publishers says so. Only
        # silence means a dead link, and only if it is still the link that the request went to; one
        # that had to wait for the link may have been written a moment ago.
        silence = time.monotonic() - request.written_at
        if (
            connection is not None
            and silence >= self._publish_timeout / 2
            and request.generation == self._link.generation
            and request.confirms_before == self._requests.confirms
            and not blocked
        ):
            self._link.reset(PublishFailed("the broker confirms nothing"))

    # The link's thread: channels

    def _replies_ready(self) -> None:
        connection = self._link.connection
        self._requests.resume()
        if connection is not None and not self._requests.is_open:
            self._requests.open(connection)

    def _channel_closed(self, reason: BaseException) -> None:
        self._link.reset(reason if isinstance(reason, Exception) else RuntimeError(repr(reason)))

    def _check_queue(self, channel: Any, connection: Connection) -> Steps:
        declare: Step = lambda done: channel.queue_declare(  # noqa: E731 - typed for mypy
            self._replies.queue.name, passive=True, callback=done
        )
        yield declare
        self._replies.open(connection)
        channel.close()

    def _check_failed(self, connection: Connection, reason: BaseException) -> None:
        code = getattr(reason, "reply_code", None)
        if not code or not connection.is_open:  # closed by ourselves, or with its connection
            return
        if code == 404:
            self._queue_lost()
            self._replies.open(connection)
        else:
            self._channel_closed(reason)

    def _queue_deleted(self) -> None:
        # Until it stands again, a request could be answered before there is a queue for replies.
        self._requests.pause()
        self._queue_lost()

    def _queue_lost(self) -> None:
        """The reply queue is gone, and with it every reply that was in it or on its way."""
        # What an earlier connection wrote and nobody has confirmed is written again, and answered
        # to the new queue.
        lost = [
            request
            for request in self._requests_by_id.values()
            if request.generation
            and (request.generation == self._link.generation or request not in self._unconfirmed)
        ]
        if not lost:
            return
        _log.warning("%s: the reply queue was lost with %d replies due", self._link.name, len(lost))
        # Not the ids of all of them: each of many errors would be as long as there are many.
        others = f" and to {len(lost) - 1} other calls" if len(lost) > 1 else ""
        for request in lost:
            text = (
                f"the reply queue is gone, and with it the reply to {request.call.correlation_id}"
            )
            self.fail(request, partial(ReplyQueueExpiredWithPendingReplies, text + others))


def _expiration(timeout: float | None, limit: float | None) -> str | None:
    """Return how long a request is worth taking, as AMQP writes it: text of milliseconds."""
    if limit is not None and (timeout is None or limit < timeout):
        timeout = limit
    if timeout is None or timeout * 1000 > MAX_EXPIRATION:
        return None
    return str(max(0, int(timeout * 1000)))


def _stopped() -> Exception:
    return ContainerStopped("stopped before the reply came")


def _killed() -> BaseException:
    return WorkerKilled("killed while waiting for a reply")
