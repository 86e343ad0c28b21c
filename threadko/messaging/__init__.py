"""Messages of any exchange and queue: the `consume` entrypoint, and the `Publisher` dependency."""

from threadko.amqp.delays import Retry
from threadko.amqp.entities import Binding, Exchange, Queue
from threadko.messaging.consumer import Consumer, consume
from threadko.messaging.headers import decode_from_headers, encode_to_headers
from threadko.messaging.publisher import Publisher

__all__ = [
    "Binding",
    "Consumer",
    "Exchange",
    "Publisher",
    "Queue",
    "Retry",
    "consume",
    "decode_from_headers",
    "encode_to_headers",
]
