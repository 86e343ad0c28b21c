"""A queue of its own for each test of messages, and what sends to it."""

import json

import pytest

from tests.support import amqp


@pytest.fixture
def queue_name(names):
    return names.queue("consume")


@pytest.fixture
def send(broker_uri, queue_name):
    def send(value, **options):
        amqp.publish(
            broker_uri,
            json.dumps(value).encode(),
            routing_key=queue_name,
            content_type="application/json",
            **options,
        )

    return send
