"""A small AMQP 0-9-1 broker for development and tests. Never a production broker."""

from threadko.devbroker.server import DevBroker

__all__ = ["DevBroker"]
