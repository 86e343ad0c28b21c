"""A start that the broker refuses: what is permanent ends it with its reason, all else is awaited.

Every refusal is the broker's own, of a node of the tests' own, and meets a whole service and a
whole client.
"""

import logging
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pika
import pytest

from tests.faults.conftest import make_service
from tests.support.broker import RabbitNode
from tests.support.proxy import Proxy
from tests.support.timing import TIMEOUT
from threadko.containers import ServiceContainer
from threadko.exceptions import BrokerRefused, BrokerUnavailable
from threadko.standalone.rpc import ServiceRpcClient

pytestmark = pytest.mark.long


class Place:
    """A vhost and a user of one test."""

    def __init__(self, node: RabbitNode) -> None:
        self.node = node
        self.name = f"refusal-{uuid.uuid4().hex}"
        node.add_place(self.name, self.name, "secret")

    def uri(self, *, password: str = "secret", vhost: str | None = None) -> str:
        where = urlsplit(self.node.uri)
        return (
            f"amqp://{self.name}:{password}@{where.hostname}:{where.port}"
            f"/{self.name if vhost is None else vhost}"
        )

    @contextmanager
    def connected(self) -> Iterator[Any]:
        """A connection of somebody else's, closed without a word of ours at the end."""
        connection = pika.BlockingConnection(pika.URLParameters(self.uri()))
        try:
            yield connection
        finally:
            connection.close()


@pytest.fixture
def place(node: RabbitNode) -> Place:
    return Place(node)


class Attempt:
    """A start in a thread of its own, and what it ended with."""

    def __init__(self, start: Callable[[], Any], stop: Callable[[], Any]) -> None:
        self.stop = stop
        self.errors: list[BaseException] = []
        self._start = start
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._start()
        except BaseException as error:
            self.errors.append(error)

    @property
    def is_waiting(self) -> bool:
        return self._thread.is_alive()

    def wait(self) -> None:
        self._thread.join(TIMEOUT)
        assert not self.is_waiting


class Complaints(logging.Handler):
    """Tells when something has been logged as many times as wanted."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._heard = threading.Semaphore(0)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())
        self._heard.release()

    def wait_for(self, count: int) -> None:
        for _ in range(count):
            assert self._heard.acquire(timeout=TIMEOUT)


@pytest.fixture
def complaints() -> Iterator[Complaints]:
    handler = Complaints()
    logger = logging.getLogger("threadko.amqp.link")
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


def start_service(uri: str, name: str = "refused") -> Attempt:
    container = ServiceContainer(make_service(name), config={"AMQP_URI": uri})
    return Attempt(container.start, container.stop)


def start_client(uri: str, name: str = "refused") -> Attempt:
    client = ServiceRpcClient(name, config={"AMQP_URI": uri})
    return Attempt(client.start, client.stop)


BOTH = pytest.mark.parametrize("start", [start_service, start_client])


def refused(attempt: Attempt) -> str:
    attempt.wait()
    (error,) = attempt.errors
    assert type(error) is BrokerRefused
    return str(error)


@BOTH
def test_wrong_password_ends_a_start(start: Any, place: Place) -> None:
    text = refused(start(place.uri(password="wrong")))
    assert "refused the login of user" in text
    assert "correct user and password in AMQP_URI" in text


@BOTH
def test_missing_vhost_ends_a_start(start: Any, place: Place) -> None:
    text = refused(start(place.uri(vhost="nowhere")))
    assert "has no vhost 'nowhere'" in text
    assert "rabbitmqctl add_vhost" in text


@BOTH
def test_forbidden_vhost_ends_a_start(start: Any, place: Place) -> None:
    place.node.control("clear_permissions", "-p", place.name, place.name)
    text = refused(start(place.uri()))
    assert "may not use the vhost" in text
    assert "rabbitmqctl set_permissions" in text


@BOTH
def test_missing_permission_ends_a_start(start: Any, place: Place) -> None:
    place.node.control("set_permissions", "-p", place.name, place.name, "^$", ".*", ".*")
    assert "lacks a permission" in refused(start(place.uri()))


def test_queue_with_other_arguments_ends_a_start(place: Place) -> None:
    with place.connected() as connection:
        connection.channel().queue_declare(
            "rpc-refused", durable=True, arguments={"x-max-length": 5}
        )
    text = refused(start_service(place.uri()))
    assert "queue 'rpc-refused' exists" in text
    assert "RPC_QUEUE_ARGUMENTS" in text


@BOTH
def test_exchange_of_another_type_ends_a_start(start: Any, place: Place) -> None:
    with place.connected() as connection:
        connection.channel().exchange_declare("nameko-rpc", "fanout", durable=True)
    assert "exchange 'nameko-rpc' exists" in refused(start(place.uri()))


@BOTH
def test_limit_of_connections_is_awaited(start: Any, place: Place, complaints: Complaints) -> None:
    with place.connected():
        place.node.control("set_vhost_limits", "-p", place.name, '{"max-connections": 1}')
        attempt = start(place.uri())
        complaints.wait_for(2)
        assert attempt.is_waiting
        assert "limit" in complaints.texts[0]
    attempt.wait()
    assert attempt.errors == []
    attempt.stop()


def test_queue_in_exclusive_use_is_awaited(place: Place, complaints: Complaints) -> None:
    with place.connected() as connection:
        channel = connection.channel()
        channel.queue_declare("rpc-refused", durable=True)
        channel.basic_consume("rpc-refused", lambda *_: None, exclusive=True)
        attempt = start_service(place.uri())
        # A service binds only when it starts; it consumes when it opens, and is refused there.
        complaints.wait_for(1)
        assert "in exclusive use" in complaints.texts[0]
    attempt.wait()
    assert attempt.errors == []
    with ServiceRpcClient("refused", timeout=TIMEOUT, config={"AMQP_URI": place.uri()}) as client:
        assert client.echo(1) == 1
    attempt.stop()


def test_queue_of_a_connection_that_is_not_known_to_be_dead_is_awaited(
    place: Place, complaints: Complaints
) -> None:
    with Proxy.for_uri(place.node.uri) as proxy:
        twin = pika.BlockingConnection(pika.URLParameters(proxy.uri_for(place.uri())))
        twin.channel().queue_declare("rpc-refused", exclusive=True)
        proxy.hole()  # the broker hears nothing of its end
        attempt = start_service(place.uri())
        complaints.wait_for(2)
        assert attempt.is_waiting
        assert "locked" in complaints.texts[0]
    attempt.wait()
    assert attempt.errors == []
    attempt.stop()
    with pytest.raises(pika.exceptions.AMQPError):
        twin.close()


@BOTH
def test_broker_that_is_not_there_yet_is_awaited(
    start: Any, place: Place, complaints: Complaints
) -> None:
    with Proxy.for_uri(place.node.uri) as proxy:
        proxy.refuse()
        attempt = start(proxy.uri_for(place.uri()))
        complaints.wait_for(3)
        assert attempt.is_waiting
        proxy.accept()
        attempt.wait()
        assert attempt.errors == []
        attempt.stop()


def test_waiting_ends_where_it_is_said_to(place: Place) -> None:
    with Proxy.for_uri(place.node.uri) as proxy:
        proxy.refuse()
        config = {"AMQP_URI": proxy.uri_for(place.uri()), "BROKER_START_TIMEOUT": 0.5}
        container = ServiceContainer(make_service("refused"), config=config)
        for begin in (container.start, ServiceRpcClient("refused", config=config).start):
            with pytest.raises(BrokerUnavailable, match="is the broker running"):
                begin()
