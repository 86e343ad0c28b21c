"""Talking to the broker. Knows messages, queues and connections, and nothing of services."""

from threadko.amqp.entities import Binding, Exchange, Queue
from threadko.exceptions import UndeliverableMessage

__all__ = ["Binding", "Exchange", "Queue", "UndeliverableMessage"]
