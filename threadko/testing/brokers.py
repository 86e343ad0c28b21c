"""Brokers for tests, each test with one that is as good as new.

===================  =============================================================================
`DevelopmentBroker`  the development broker in this process, on a free port; a vhost for each test
`ManagedBroker`      a RabbitMQ with its management API; a vhost for each test, made ahead
`SharedBroker`       a RabbitMQ without: the vhost given, one test at a time, cleared after each
===================  =============================================================================

Nothing is started or connected to before the first test asks. `fresh` may be called by any thread;
what it gives belongs to the one test. `close` comes last, and clears away what is left.
"""

import threading
import urllib.parse
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Protocol

from threadko.amqp.entities import Exchange, Queue
from threadko.amqp.errands import Errands
from threadko.amqp.parameters import BrokerParameters
from threadko.amqp.topology import watch_declarations
from threadko.concurrency.deadline import Deadline
from threadko.devbroker import DevBroker
from threadko.exceptions import (
    BrokerError,
    BrokerRefused,
    BrokerUnavailable,
    ConfigurationError,
)
from threadko.testing.rabbit import Client
from threadko.testing.utils import ResourcePipeline
from threadko.testing.waiting import WaitTimeout

__all__ = [
    "BrokerSource",
    "DevelopmentBroker",
    "FreshBroker",
    "ManagedBroker",
    "SharedBroker",
    "make_broker",
]

_LOCK_QUEUE = "threadko-test-lock"
_LOOK_SECONDS = 0.05


class FreshBroker:
    """What one test has of a broker.

    Args:
        uri: the address for its services and clients.
        list_connections: returns the names of the connections that are open; None where nobody can
            tell.
    """

    def __init__(self, uri: str, list_connections: Callable[[], list[str]] | None = None) -> None:
        self.uri = uri
        self.list_connections = list_connections or list


class BrokerSource(Protocol):
    """A broker for all tests of a run."""

    def fresh(self) -> AbstractContextManager[FreshBroker]:
        """Give a test a broker as good as new; what it leaves there is cleared away."""

    def close(self) -> None:
        """End, with all that is left; may be called twice."""


def make_broker(amqp_uri: str | None = None, api_uri: str | None = None) -> BrokerSource:
    """Return the broker that the options ask for; nothing is started yet.

    Args:
        amqp_uri: a RabbitMQ; the development broker if None.
        api_uri: the management API of that RabbitMQ, if it has one.

    Raises:
        ConfigurationError: an address cannot be used, or there is only that of the API.
    """
    if amqp_uri is None:
        if api_uri is not None:
            raise ConfigurationError(
                "a management API without its broker: give --amqp-uri too (or leave both out, for"
                " the development broker)"
            )
        return DevelopmentBroker()
    BrokerParameters.from_uri(amqp_uri)
    return SharedBroker(amqp_uri) if api_uri is None else ManagedBroker(amqp_uri, api_uri)


class DevelopmentBroker:
    """The development broker, in a thread of this process; begun for the first test that asks."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards _broker
        self._broker: DevBroker | None = None

    @contextmanager
    def fresh(self) -> Iterator[FreshBroker]:
        """Give a test a vhost of its own."""
        broker = self._get()
        vhost = _make_name()
        broker.add_vhost(vhost)
        try:
            yield FreshBroker(broker.uri_for(vhost), lambda: broker.list_connections(vhost))
        finally:
            broker.remove_vhost(vhost)

    def _get(self) -> DevBroker:
        with self._lock:
            if self._broker is None:
                broker = DevBroker()
                broker.start()
                self._broker = broker
            return self._broker

    def close(self) -> None:
        """End the broker, if it was begun."""
        with self._lock:
            broker, self._broker = self._broker, None
        if broker is not None:
            broker.stop()


class ManagedBroker:
    """A RabbitMQ that makes vhosts for us."""

    def __init__(self, amqp_uri: str, api_uri: str) -> None:
        self._uri = amqp_uri
        self._api_uri = api_uri
        self._lock = threading.Lock()  # guards _open and _pipeline
        self._open = ExitStack()
        self._pipeline: ResourcePipeline[str] | None = None

    @contextmanager
    def fresh(self) -> Iterator[FreshBroker]:
        """Give a test a vhost of its own."""
        with self._get().get() as vhost:
            yield FreshBroker(_replace_vhost(self._uri, vhost))

    def _get(self) -> ResourcePipeline[str]:
        with self._lock:
            if self._pipeline is None:
                client = Client(self._api_uri)
                user = BrokerParameters.from_uri(self._uri).user

                def create() -> str:
                    vhost = _make_name()
                    client.create_vhost(vhost)
                    client.set_vhost_permissions(vhost, user, ".*", ".*", ".*")
                    return vhost

                pipeline = ResourcePipeline(create, client.delete_vhost)
                self._pipeline = self._open.enter_context(pipeline.run())
            return self._pipeline

    def close(self) -> None:
        """Delete the vhosts that are left."""
        with self._lock:
            opened, self._open = self._open, ExitStack()
            self._pipeline = None
        opened.close()


class SharedBroker:
    """One vhost for all tests, which take turns, those of other processes among them.

    A queue of that name, exclusive to the connection of the test that runs, is the lock. What this
    process declares through threadko is deleted after its test, unless others use it.

    Args:
        amqp_uri: the broker and its vhost.
        clear_timeout: seconds for what has just been used to be seen as unused.
        turn_timeout: seconds for the tests that come before.
    """

    def __init__(
        self, amqp_uri: str, *, clear_timeout: float = 5.0, turn_timeout: float = 300.0
    ) -> None:
        self._uri = amqp_uri
        self._turn_timeout = turn_timeout
        self._clear_timeout = clear_timeout
        self._lock = threading.Lock()  # held by the test that runs; not over I/O of its own

    @contextmanager
    def fresh(self) -> Iterator[FreshBroker]:
        """Give a test the vhost when its turn has come.

        Raises:
            WaitTimeout: it did not come in time.
            BrokerError: the broker cannot be reached.
        """
        timeout = self._turn_timeout
        if not self._lock.acquire(timeout=timeout):
            raise WaitTimeout(f"Timeout: another test has had the broker for {timeout:g} s")
        try:
            with Errands(BrokerParameters.from_uri(self._uri), name="testbroker") as errands:
                _take_turn(errands, timeout)
                declared: dict[tuple[type, str], None] = {}

                def note(entity: Exchange | Queue) -> None:
                    if not entity.name.startswith("amq.") and entity.name:
                        declared[type(entity), entity.name] = None

                try:
                    with watch_declarations(note):
                        yield FreshBroker(self._uri)
                finally:
                    _clear(errands, list(declared), Deadline(self._clear_timeout))
        finally:
            self._lock.release()

    def close(self) -> None:
        """Nothing is left: each test has cleared away its own."""


def _take_turn(errands: Errands, timeout: float) -> None:
    """Wait until the queue that is the lock is ours."""
    deadline = Deadline(timeout)
    never = threading.Event()
    while True:
        try:
            errands.declare(Queue(_LOCK_QUEUE, durable=False, exclusive=True))
        except (BrokerRefused, BrokerUnavailable):
            raise
        except BrokerError as error:
            # The broker tells nobody when a lock is free, so it has to be asked.
            if deadline.expired:
                raise WaitTimeout(
                    f"Timeout: other tests have had the vhost for {timeout:g} s ({error});"
                    " with --rabbit-api-uri each test has a vhost of its own"
                ) from error
            never.wait(_LOOK_SECONDS)
        else:
            return


def _clear(errands: Errands, declared: list[tuple[type, str]], deadline: Deadline) -> None:
    """Delete queues, then exchanges, that nobody else uses."""
    never = threading.Event()
    for name in [name for kind, name in declared if kind is Queue]:
        # Those whose consumer has just gone are in use for a moment still.
        while not _try(errands.delete_queue, name) and not deadline.expired:
            never.wait(_LOOK_SECONDS)
    for name in [name for kind, name in declared if kind is Exchange]:
        _try(errands.delete_exchange, name)


def _try(delete: Callable[[str], None], name: str) -> bool:
    try:
        delete(name)
    except BrokerError:
        return False  # somebody else uses it, who will want it to be there
    return True


def _make_name() -> str:
    return f"threadko-test-{uuid.uuid4().hex[:12]}"


def _replace_vhost(uri: str, vhost: str) -> str:
    parts = urllib.parse.urlsplit(uri)
    return urllib.parse.urlunsplit(parts._replace(path=f"/{vhost}"))
