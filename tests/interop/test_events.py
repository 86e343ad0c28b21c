"""Events between threadko and two namekos, and handlers of both on one queue."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.conftest import Names
from tests.interop.peer import Peer
from tests.interop.sides import ALL, NAMEKO2, NAMEKO3, THREADKO, Framework
from tests.support import amqp
from tests.support.timing import TIMEOUT

pytestmark = pytest.mark.interop

MIXED = ((THREADKO, NAMEKO2), (THREADKO, NAMEKO3), (NAMEKO2, THREADKO), (NAMEKO3, THREADKO))


class Listener:
    """A process with one instance of the service."""

    def __init__(self, framework: Framework, uri: str, name: str, source: str) -> None:
        module = f"tests.interop.{framework.package}_side.listener"
        self.source = source
        self.peer = Peer(framework.python, module, uri, name, source)

    def dispatch(self, *events: Any, event_type: str = "sold") -> None:
        """Have it dispatch events of the source, with its standalone dispatcher."""
        self.peer.ask(do="dispatch", source=self.source, type=event_type, events=list(events))

    def handled(self, kind: str) -> list[tuple[Any, Any]]:
        """Data and context of the events that one of its handlers has had."""
        answer = self.peer.ask(do="handled")["handled"]
        return [(data, context) for each, data, context in answer if each == kind]


@pytest.fixture
def source(names: Names) -> str:
    return names.service("source")


@pytest.fixture
def listen(broker_uri: str, names: Names, source: str) -> Iterator[Callable[..., Listener]]:
    name = names.service("listener")
    for method in ("pool", "relay"):
        event_type = "relay" if method == "relay" else "sold"
        names.queues.append(f"evt-{source}-{event_type}--{name}.{method}")
    names.queues.append(f"evt-{source}-sold")
    with ExitStack() as stack:

        def listen(framework: Framework) -> Listener:
            listener = Listener(framework, broker_uri, name, source)
            stack.callback(listener.peer.close)
            return listener

        yield listen


def gather(listeners: list[Listener], kind: str, count: int) -> list[Any]:
    """Wait until the handlers of one kind have had so many events in all."""
    end = time.monotonic() + TIMEOUT
    while True:
        found = [data for each in listeners for data, _ in each.handled(kind)]
        if len(found) >= count:
            return sorted(found)
        assert time.monotonic() < end, f"{kind}: {len(found)} of {count}"


@pytest.mark.parametrize("order", MIXED, ids=lambda order: f"{order[0]} then {order[1]}")
@pytest.mark.parametrize("dispatcher", [0, 1], ids=["first dispatches", "second dispatches"])
def test_handlers_of_both_share_queues_and_each_event_is_handled_as_promised(
    listen: Callable[..., Listener], order: tuple[Framework, Framework], dispatcher: int
) -> None:
    assert all(framework.python for framework in order)
    listeners = [listen(framework) for framework in order]
    listeners[dispatcher].dispatch(*range(30))
    assert gather(listeners, "pool", 30) == list(range(30))
    assert gather(listeners, "single", 30) == list(range(30))
    assert gather(listeners, "all", 60) == sorted([*range(30), *range(30)])
    for kind in ("pool", "single"):
        assert all(each.handled(kind) for each in listeners), "both take their share"
    contexts = [context for each in listeners for _, context in each.handled("pool")]
    assert contexts == [{"language": "de"}] * 30


@pytest.mark.parametrize("framework", ALL, ids=str)
@pytest.mark.parametrize(
    "data", [None, 1.5, "ü€", [1, [2]], {"a": {"b": None}}], ids=lambda data: repr(data)
)
def test_event_data_arrives_as_it_was(
    listen: Callable[..., Listener], framework: Framework, data: Any
) -> None:
    assert framework.python
    listeners = [listen(THREADKO), listen(framework)]
    listeners[1].dispatch(data)
    end = time.monotonic() + TIMEOUT
    while True:
        found = [each for listener in listeners for each, _ in listener.handled("pool")]
        if found:
            break
        assert time.monotonic() < end
    assert found == [data]


@pytest.mark.parametrize("framework", ALL, ids=str)
def test_event_of_a_service_looks_the_same_on_the_wire(
    listen: Callable[..., Listener], framework: Framework, broker_uri: str, names: Names
) -> None:
    assert framework.python
    listener = listen(framework)
    tap = names.queue("tap")
    name = names.services[-1]
    amqp.declare_queue(broker_uri, tap, exchange=f"{name}.events", routing_key="relayed")
    listener.dispatch({"n": 1}, event_type="relay")
    message = amqp.expect_message(broker_uri, tap)
    properties = message.properties
    assert message.body == b'{"n": 1}'
    assert (message.method.exchange, message.method.routing_key) == (f"{name}.events", "relayed")
    assert (properties.content_type, properties.content_encoding) == ("application/json", "utf-8")
    assert (properties.delivery_mode, properties.priority) == (2, 0)
    assert (properties.reply_to, properties.correlation_id) == (None, None)
    headers = dict(properties.headers)
    assert [each.rsplit(".", 1)[0] for each in headers.pop("nameko.call_id_stack")] == [
        f"{name}.relay"
    ]
    assert headers == {"nameko.language": "de"}
