"""The same tests against both brokers: ours for development, and RabbitMQ."""

import contextlib
import uuid
from collections.abc import Iterator

import pika
import pytest
from pika.exceptions import AMQPError

from tests.support.broker import NoBrokerError, find_rabbitmq
from threadko.devbroker import DevBroker


@pytest.fixture(scope="session")
def _devbroker() -> Iterator[DevBroker]:
    with DevBroker() as broker:
        yield broker


@pytest.fixture(scope="session")
def _rabbitmq() -> Iterator[str]:
    try:
        broker = find_rabbitmq()
    except NoBrokerError as error:
        pytest.skip(str(error))
    with broker:
        yield broker.uri


@pytest.fixture(params=["devbroker", pytest.param("rabbitmq", marks=pytest.mark.rabbitmq)])
def uri(request: pytest.FixtureRequest) -> str:
    """The address of the broker that is asked."""
    if request.param == "devbroker":
        return str(request.getfixturevalue("_devbroker").uri)
    return str(request.getfixturevalue("_rabbitmq"))


@pytest.fixture
def connect(uri, name):
    """Makes a connection, which ends with the test, and before the queues of that name."""
    made = []

    def connect(**parameters):
        url = pika.URLParameters(uri)
        for name, value in parameters.items():
            setattr(url, name, value)
        connection = pika.BlockingConnection(url)
        made.append(connection)
        return connection

    yield connect
    for connection in made:
        with contextlib.suppress(AMQPError):
            connection.close()


@pytest.fixture
def channel(connect):
    return connect().channel()


@pytest.fixture
def name(uri):
    """The name of a queue or exchange of this test; both are deleted when it ends."""
    made = f"contract-{uuid.uuid4().hex[:12]}"
    yield made
    connection = pika.BlockingConnection(pika.URLParameters(uri))
    channel = connection.channel()
    for suffix in ("", "-2", "-dead"):
        channel.queue_delete(made + suffix)
        channel.exchange_delete(made + suffix)
    connection.close()
