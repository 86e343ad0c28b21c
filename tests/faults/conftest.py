"""A service behind a proxy that counts its connections, and a box that gathers replies."""

import logging
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.rpc.raw import RawCaller
from tests.support.amqp import declare_queue, delete_queue, queue_depth, take_messages
from tests.support.broker import RabbitNode, find_server
from tests.support.proxy import Proxy
from tests.support.timing import TIMEOUT
from threadko.containers import ServiceContainer
from threadko.rpc import rpc


class ReplyBox:
    """A reply queue of the test's own; a context manager."""

    def __init__(self, uri: str, exchange: str) -> None:
        self._uri = uri
        self.reply_to = str(uuid.uuid4())
        self.queue = declare_queue(
            uri, f"replies-{self.reply_to}", exchange=exchange, routing_key=self.reply_to
        )

    def take(self, count: int) -> list[tuple[Any, bytes]]:
        """Wait for so many replies: the properties and the body of each, in order."""
        found = take_messages(self._uri, self.queue, count, TIMEOUT * 2)
        return [(message.properties, message.body) for message in found]

    def left(self) -> int:
        """Replies that nobody has taken."""
        return queue_depth(self._uri, self.queue)

    def __enter__(self) -> "ReplyBox":
        return self

    def __exit__(self, *_: object) -> None:
        delete_queue(self._uri, self.queue)


class Target:
    """A running service that is attacked."""

    def __init__(self, container: ServiceContainer, proxy: Proxy, records: list[Any]) -> None:
        self.container = container
        self.name = container.service_name
        self.proxy = proxy
        self.records = records

    def threads(self) -> list[str]:
        """The names of the service's threads."""
        start = f"threadko-{self.name}-"
        names = [t.name for t in threading.enumerate() if t.name.startswith(start)]
        # The watch over full pools comes and goes.
        return sorted(each for each in names if "-watch-" not in each)


class Recorder(logging.Handler):
    """Keeps the records of the connection's rooms, where nothing is to be said."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        record.getMessage()
        self.records.append(record)


@contextmanager
def recording(*loggers: str) -> Iterator[list[logging.LogRecord]]:
    """Gather what these loggers say, WARNING and above."""
    recorder = Recorder()
    for each in loggers:
        logging.getLogger(each).addHandler(recorder)
    try:
        yield recorder.records
    finally:
        for each in loggers:
            logging.getLogger(each).removeHandler(recorder)


def make_service(name: str) -> type:
    class Service:
        @rpc
        def echo(self, value: Any) -> Any:
            return value

        @rpc
        def anything(self, *args: Any, **kwargs: Any) -> Any:
            return [args, kwargs]

        @rpc
        def optional(self, one: Any = 1, *, two: Any = 2) -> Any:
            return [one, two]

    Service.name = name  # type: ignore[attr-defined]
    return Service


@pytest.fixture
def name(names: Any) -> str:
    service: str = names.service("fault")
    return service


@pytest.fixture
def proxy(broker_uri: str) -> Iterator[Proxy]:
    with Proxy.for_uri(broker_uri) as made:
        yield made


@pytest.fixture
def attack(
    name: str, amqp_config: dict[str, Any], broker_uri: str, proxy: Proxy
) -> Callable[..., Any]:
    """Runs a service, ``attack(max_workers=1)``, and sees in the end that it came to no harm."""

    @contextmanager
    def attack(**config: Any) -> Iterator[Target]:
        values = {**amqp_config, "AMQP_URI": proxy.uri_for(broker_uri), **config}
        container = ServiceContainer(make_service(name), config=values)
        quiet = recording("threadko.amqp", "threadko.rpc.requests")
        with quiet as records, recording("threadko.rpc.server") as refusals:
            container.start()
            try:
                target = Target(container, proxy, records)
                before = target.threads()
                yield target
                with RawCaller(broker_uri, amqp_config["rpc_exchange"]) as caller:
                    answer = caller.ask(f"{name}.echo", {"args": ["well"], "kwargs": {}})
                    assert answer == {"result": "well", "error": None}
                assert target.threads() == before
                assert not container.being_killed
                assert [record.getMessage() for record in records] == []
                assert proxy.accepted == 1, "the connection was lost"
                for record in refusals:
                    line = record.getMessage()
                    assert line.isprintable(), f"more than a line: {line!r}"
                    assert len(line) < 1500, f"long: {line!r}"
            finally:
                container.stop()
        assert queue_depth(broker_uri, f"rpc-{name}") == 0

    return attack


@pytest.fixture
def box(broker_uri: str, rpc_exchange: str) -> Iterator[Callable[[], ReplyBox]]:
    """Makes a reply box, once the exchange is there."""
    made: list[ReplyBox] = []

    def make() -> ReplyBox:
        made.append(ReplyBox(broker_uri, rpc_exchange))
        return made[-1]

    yield make
    for each in made:
        with each:
            pass


class Gate:
    """Holds workers until the test lets them through, and counts the runs for each value."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.open = threading.Event()
        self.runs: Counter[Any] = Counter()

    def hold(self, value: Any) -> None:
        self.runs[value] += 1
        self.begun.release()
        assert self.open.wait(TIMEOUT)

    def wait_for(self, workers: int) -> None:
        for _ in range(workers):
            assert self.begun.acquire(timeout=TIMEOUT)


@pytest.fixture
def gate() -> Iterator[Gate]:
    made = Gate()
    yield made
    made.open.set()


@pytest.fixture
def service_cls(name: str, gate: Gate) -> type:
    class Service:
        @rpc
        def echo(self, value: Any) -> Any:
            gate.runs[value] += 1
            return value

        @rpc
        def hold(self, value: Any) -> Any:
            gate.hold(value)
            return value

        @rpc
        def hold_text(self, value: str, times: int) -> str:
            gate.hold(value)
            return value * times

    Service.name = name  # type: ignore[attr-defined]
    return Service


@pytest.fixture(scope="session")
def node() -> Iterator[RabbitNode]:
    """A RabbitMQ to mistreat; it takes messages up to 200,000 bytes."""
    server = find_server()
    if server is None:
        pytest.skip("needs rabbitmq-server (Debian: apt-get install rabbitmq-server)")
    with RabbitNode(server, {"max_message_size": 200_000}) as made:
        made.start()
        yield made
