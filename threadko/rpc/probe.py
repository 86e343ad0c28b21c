"""Whether anybody takes the requests for a service: the broker is asked before a call times out.

A durable queue outlives its service, so a request to a service that is down is taken by the broker
like any other, and its caller waits in vain. ``Probe`` belongs to the thread of its link. It asks
on a spare channel, one question at a time; the broker closes that channel where there is no such
queue, or no permission, and the next question opens another.
"""

import time
from collections.abc import Callable
from typing import Any

from threadko.amqp.connection import Channel, ChannelHandler, Connection
from threadko.amqp.link import Link
from threadko.rpc.protocol import RPC_QUEUE_TEMPLATE

__all__ = ["Probe"]

#: Seconds for which an answer counts; many calls to one service time out together.
_FRESH_SECONDS = 1.0
#: Half of that: younger than this is an answer that still counts when the call times out.
_YOUNG_SHARE = 0.5


class Probe:
    """Asks for the consumers of request queues.

    Args:
        link: whose connection is used.
        number: of the spare channel.
    """

    def __init__(self, link: Link, number: int) -> None:
        self._link = link
        self._number = number
        self._channel: Channel | None = None
        self._asked: str | None = None
        self._waiting: list[str] = []
        self._answers: dict[str, tuple[float, str]] = {}

    def ask(self, service: str) -> None:
        """Find out about a service, if it is not known from just now."""
        is_known = self._is_fresh(service, _YOUNG_SHARE * _FRESH_SECONDS)
        if is_known or service == self._asked or service in self._waiting:
            return
        self._waiting.append(service)
        self._go_on()

    def describe(self, service: str) -> str:
        """Return what is known to be wrong with a service, to follow a sentence; else ``""``."""
        return self._answers[service][1] if self._is_fresh(service, _FRESH_SECONDS) else ""

    def detach(self) -> None:
        """The connection is gone, and every question with it."""
        self._channel = None
        self._asked = None
        self._waiting.clear()

    def _is_fresh(self, service: str, seconds: float) -> bool:
        answer = self._answers.get(service)
        return answer is not None and time.monotonic() - answer[0] < seconds

    def _go_on(self) -> None:
        connection = self._link.connection
        if self._asked is not None or not self._waiting:
            return
        if connection is None or not connection.is_open:
            self._waiting.clear()
            return
        self._asked = self._waiting.pop(0)
        if self._channel is None:
            self._open(connection)
        else:
            self._ask_now()

    def _open(self, connection: Connection) -> None:
        self._channel = connection.open_channel(
            self._number,
            ChannelHandler(),
            on_open=lambda _channel: self._ask_now(),
            on_close=self._closed,
        )

    def _ask_now(self) -> None:
        if self._channel is not None and self._channel.is_open and self._asked is not None:
            queue = RPC_QUEUE_TEMPLATE.format(self._asked)
            self._channel.queue_declare(queue, passive=True, callback=self._answered)

    def _answered(self, frame: Any) -> None:
        has_none = not frame.method.consumer_count
        self._note(f"; no consumer is on queue {frame.method.queue}" if has_none else "")

    def _closed(self, channel: Channel, reason: BaseException) -> None:
        if channel is not self._channel:
            return
        self._channel = None
        is_missing = getattr(reason, "reply_code", None) == 404
        # Not now: after this callback pika forgets the channel of this number, even a new one.
        note: Callable[[], None] = lambda: self._note(  # noqa: E731 - typed for mypy
            "; its queue does not exist any more" if is_missing else ""
        )
        self._link.call_at(0.0, note)

    def _note(self, text: str) -> None:
        service, self._asked = self._asked, None
        if service is not None:
            self._answers = {
                each: answer
                for each, answer in self._answers.items()
                if self._is_fresh(each, _FRESH_SECONDS)
            }
            self._answers[service] = (time.monotonic(), text)
        self._go_on()
