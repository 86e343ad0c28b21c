"""Taking single messages out of queues, for tests to look at.

Each call has a connection of its own, so any thread may make one.
"""

import queue
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from threadko.amqp.errands import Errands
from threadko.amqp.message import Delivery
from threadko.amqp.parameters import BrokerParameters
from threadko.serialization import COMPRESSION_HEADER, Serialization

__all__ = ["FoundMessage", "take_message"]


class FoundMessage:
    """A message that a test found.

    Attributes:
        body: as bytes.
        properties: those of AMQP that it has, by name; without the headers.
        headers: by name.
        delivery_info: `exchange`, `routing_key` and `redelivered`.
    """

    def __init__(self, delivery: Delivery, serialization: Serialization) -> None:
        values = asdict(delivery.properties)
        self.body = delivery.body
        self.headers: dict[str, Any] = values.pop("headers") or {}
        self.properties: Mapping[str, Any] = {
            name: value for name, value in values.items() if value is not None
        }
        self.content_type = delivery.properties.content_type
        self.content_encoding = delivery.properties.content_encoding
        self.delivery_info = {
            "exchange": delivery.exchange,
            "routing_key": delivery.routing_key,
            "redelivered": delivery.redelivered,
        }
        self._serialization = serialization

    @property
    def payload(self) -> Any:
        """The value in the body; `DecodeError` if it cannot be read."""
        return self._serialization.decode(
            self.body,
            self.content_type,
            self.content_encoding,
            self.headers.get(COMPRESSION_HEADER),
        )

    def decode(self) -> Any:
        """Return the value in the body."""
        return self.payload


def take_message(
    uri: str,
    queue_name: str,
    *,
    ack: bool = True,
    block: bool = True,
    timeout: float = 1.0,
    accept: Sequence[str] | None = None,
) -> FoundMessage:
    """Return the first message of a queue.

    Args:
        uri: the broker.
        queue_name: which queue.
        ack: take it out of the queue; it goes back otherwise.
        block: wait for one to come.
        timeout: seconds to wait.
        accept: names of the serializers that are read, the configured ones if None.

    Raises:
        queue.Empty: there was none.
        BrokerError: there is no such queue, or no such broker.
    """
    serialization = Serialization.from_config()
    if accept is not None:
        serialization = serialization.accepting(accept)
    with Errands(BrokerParameters.from_uri(uri)) as errands:
        delivery = errands.fetch(queue_name, wait=timeout if block else 0.0, ack=ack)
    if delivery is None:
        raise queue.Empty(f"no message in queue {queue_name!r}")
    return FoundMessage(delivery, serialization)
