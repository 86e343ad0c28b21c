"""A watch over a consumer that hears nothing while messages wait for it.

Should deliveries vanish between the broker and us while heartbeats go on, the broker counts them
as ours, sends no more when the prefetch is full, and nobody notices: the connection stands, the
queue fills, the workers have nothing to do. ``Watchdog`` asks the broker for the queue's counts
and has the connection made anew when it has been so for several checks; the broker gives back then
what it believed to be with us.

Everything here is called on the link's thread: ``begin`` when a connection stands, ``end`` when it
is gone or the link is to stop, a check by the link's timer, an answer by the connection. Order of
stopping: ``end()`` comes first, before channels are closed, and is final for its connection: nobody
waits for the answer to a question that is under way, and its channel ends with the connection.
"""

import logging
import time
from collections.abc import Callable
from typing import Any

from threadko.amqp.connection import Channel, ChannelHandler
from threadko.amqp.consuming import ConsumerChannel
from threadko.amqp.link import Link
from threadko.amqp.topology import Steps, run_steps
from threadko.concurrency.timers import Timer
from threadko.exceptions import BrokerUnavailable

__all__ = ["Watchdog"]

_log = logging.getLogger(__name__)

_CHECKS = 3  # in a row, without a delivery in between


class Watchdog(ChannelHandler):
    """Resets a link whose consumer is idle while its queue has messages that only it could take.

    So it does where the broker owes the answer to a question at as many checks, for that may have
    vanished, too. Queues of which the broker chooses among consumers for reasons of its own (a
    single active consumer, a priority) are not watched, nor those that the broker names.

    Args:
        link: whose connection is made anew.
        number: of the channel that each question has to itself, for a refusal closes it.
        consumer: that is watched.
        interval: seconds between checks; 0 for none.
        count_idle: how many messages the consumer holds that no worker has to do with any more.
    """

    def __init__(
        self,
        link: Link,
        number: int,
        consumer: ConsumerChannel,
        *,
        interval: float,
        count_idle: Callable[[], int],
    ) -> None:
        self.resets = 0  # that were thought necessary; read by any thread
        queue = consumer.queue
        self._interval = interval
        self._watches = (
            interval > 0
            and bool(queue.name)
            and not queue.declare_arguments.get("x-single-active-consumer")
            and "x-priority" not in (queue.consumer_arguments or {})
        )
        self._link = link
        self._number = number
        self._consumer = consumer
        self._count_idle = count_idle
        self._timer: Timer | None = None
        self._asked: Channel | None = None  # the question's channel, until it is closed
        # Checks in a row, of an idle consumer, at which ...
        self._waiting = 0  # ... messages waited
        self._unanswered = 0  # ... the answer to the last question was not here
        self._seen = (0, 0)  # the consumer's generation and its deliveries, at the last check

    def begin(self) -> None:
        """A connection stands: check it from time to time."""
        self.end()
        if self._watches:
            self._set_timer()

    def end(self) -> None:
        """Check no more, and heed no answer."""
        if self._timer is not None:
            self._link.cancel_timer(self._timer)
            self._timer = None
        if self._asked is not None and self._link.connection is not None:
            self._link.connection.forget_channel(self._number)
        self._asked = None
        self._waiting = self._unanswered = 0

    def _set_timer(self) -> None:
        self._timer = self._link.call_at(time.monotonic() + self._interval, self._check)

    def _check(self) -> None:
        self._set_timer()
        if self._is_served():
            self._waiting = self._unanswered = 0
        elif self._asked is None:
            self._ask()
        else:
            self._unanswered += 1
            if self._unanswered == _CHECKS:
                self._reset("the broker does not say how many messages wait in")

    def _is_served(self) -> bool:
        """Whether something has come, or is with a worker, or none is to come just now."""
        seen, self._seen = self._seen, (self._consumer.generation, self._consumer.delivered)
        connection = self._link.connection
        return (
            seen != self._seen
            or connection is None
            or not connection.is_open
            or connection.blocked  # it reads nothing of ours until the alarm is over
            or not self._consumer.is_registered
            or self._consumer.held > self._count_idle()
        )

    def _ask(self) -> None:
        connection = self._link.connection
        assert connection is not None, "looked at just before"
        self._asked = connection.open_channel(
            self._number,
            self,
            on_open=lambda channel: run_steps(self._conversation(channel), channel),
            on_close=self._closed,
        )

    def _conversation(self, channel: Channel) -> Steps:
        name = self._consumer.queue.name
        answer: Any = yield lambda done: channel.queue_declare(name, passive=True, callback=done)
        channel.close()
        if channel is not self._asked:
            return
        self._unanswered = 0
        counts = answer.method
        # None at all, although the broker has agreed to ours, is no better.
        is_ours_alone = counts.consumer_count <= 1
        if self._is_served() or not counts.message_count or not is_ours_alone:
            self._waiting = 0
            return
        self._waiting += 1
        if self._waiting == _CHECKS:
            self._reset(f"{counts.message_count} wait in")

    def _closed(self, channel: Channel, _reason: BaseException) -> None:
        # Also by the broker, which refuses the question: the queue is gone, or not for us to see.
        if channel is self._asked:
            self._asked = None
            self._unanswered = 0

    def _reset(self, what: str) -> None:
        self._waiting = self._unanswered = 0
        self.resets += 1
        name = self._consumer.queue.name
        _log.warning(
            "%s: no message comes, and %s queue %s; connecting anew, for the %d. time",
            self._link.name,
            what,
            name,
            self.resets,
        )
        self._link.reset(BrokerUnavailable(f"no message comes from queue {name}"))
