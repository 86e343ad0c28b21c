"""Events between services, against the broker."""

import json
import queue
import threading
import time
from datetime import datetime, timezone
from decimal import Decimal

import pytest

from tests.conftest import pika_channel
from tests.containers.dummies import FakeContainer
from tests.support import amqp
from tests.support.proxy import Proxy
from tests.support.timing import TIMEOUT
from threadko.context import current_worker
from threadko.events import (
    BROADCAST,
    SERVICE_POOL,
    SINGLETON,
    EventDispatcher,
    EventHandler,
    EventHandlerConfigurationError,
    Retry,
    event_handler,
    get_event_exchange,
)
from threadko.exceptions import ConfigurationError, ContainerStopped, EncodeError, WorkerKilled
from threadko.extensions import DependencyProvider
from threadko.messaging import Exchange
from threadko.rpc import rpc
from threadko.standalone.events import event_dispatcher
from threadko.standalone.rpc import ServiceRpcClient
from threadko.timer import timer

# What is declared


class _Container(FakeContainer):
    service_name = "listener"

    def __init__(self, config=()):
        super().__init__()
        self.config = dict(config)


def bind(*args, config=(), cls=EventHandler, **options):
    return cls(*args, **options).bind(_Container(config), "on_sold")


@pytest.mark.parametrize(
    ("handler_type", "reliable", "name", "auto_delete", "exclusive"),
    [
        (SERVICE_POOL, True, "evt-shop-sold--listener.on_sold", False, False),
        (SERVICE_POOL, False, "evt-shop-sold--listener.on_sold", True, False),
        (SINGLETON, True, "evt-shop-sold", False, False),
        (SINGLETON, False, "evt-shop-sold", True, False),
    ],
)
def test_queue_is_nameko_s(handler_type, reliable, name, auto_delete, exclusive):
    queue = bind("shop", "sold", handler_type, reliable).queue
    assert (queue.name, queue.durable, queue.auto_delete, queue.exclusive) == (
        name,
        True,
        auto_delete,
        exclusive,
    )
    assert queue.exchange == Exchange("shop.events", "topic", durable=True)
    assert (queue.routing_key, queue.declare_arguments) == ("sold", {})


def test_broadcast_has_a_queue_for_each_start():
    first, second = (
        bind("shop", "sold", BROADCAST, reliable_delivery=False).queue for _ in range(2)
    )
    assert first.name.startswith("evt-shop-sold--listener.on_sold-")
    assert first.name != second.name
    assert (first.auto_delete, first.exclusive) == (True, True)


def test_reliable_broadcast_needs_a_name_that_stays():
    with pytest.raises(EventHandlerConfigurationError, match="broadcast_identifier"):
        bind("shop", "sold", BROADCAST)

    class Named(EventHandler):
        broadcast_identifier = "host-1"

    queue = bind("shop", "sold", BROADCAST, cls=Named).queue
    assert queue.name == "evt-shop-sold--listener.on_sold-host-1"
    assert (queue.auto_delete, queue.exclusive) == (False, False)


def test_configuration_decides_about_exchanges_and_arguments():
    config = {
        "AUTO_DELETE_EVENT_EXCHANGES": True,
        "DECLARE_EVENT_EXCHANGES": False,
        "EVENT_QUEUE_ARGUMENTS": {"x-queue-type": "quorum"},
    }
    queue = bind("shop", "sold", config=config).queue
    assert (queue.exchange.auto_delete, queue.exchange.no_declare) == (True, True)
    assert queue.declare_arguments == {"x-queue-type": "quorum"}
    assert get_event_exchange("shop") == Exchange("shop.events", "topic")


@pytest.mark.parametrize("handler_type", [SERVICE_POOL, SINGLETON, BROADCAST])
def test_queue_that_goes_with_its_consumers_is_no_quorum_queue(handler_type):
    arguments = {"x-queue-type": "quorum", "x-delivery-limit": 20, "x-max-length": 1000}
    config = {"EVENT_QUEUE_ARGUMENTS": arguments}
    queue = bind("shop", "sold", handler_type, False, config=config).queue
    assert queue.declare_arguments == {"x-max-length": 1000}


@pytest.mark.parametrize(
    ("args", "options"),
    [
        (("shop", "sold", "everybody"), {}),
        (("", "sold"), {}),
        (("shop", None), {}),
        (("shop", "sold", BROADCAST, False), {"dead_letter": True}),
        (("shop", "sold"), {"retry": 3}),
    ],
)
def test_wrong_options_are_an_error_where_they_stand(args, options):
    with pytest.raises(ConfigurationError):
        event_handler(*args, **options)(lambda self, data: None)


def test_equal_handler_type_need_not_be_the_same_string():
    assert bind("shop", "sold", "".join(["single", "ton"])).queue.name == "evt-shop-sold"


# Between services


class Log:
    """Who handled what."""

    def __init__(self):
        self.entries = queue.SimpleQueue()

    def take(self, count=1):
        return sorted(self.entries.get(timeout=TIMEOUT) for _ in range(count))

    def is_empty(self):
        return self.entries.empty()


@pytest.fixture
def log():
    return Log()


@pytest.fixture
def source(names):
    return names.service("source")


@pytest.fixture
def listen(container_factory, amqp_config, names, source, log):
    """Starts an instance of a service that handles the source's events."""
    services = {}

    def listen(label, service="listener", config=(), raises=(), members=(), **options):
        name = services.setdefault(service, names.service(service))
        outcomes = list(raises)

        def on_sold(self, data):
            log.entries.put((label, data))
            if outcomes:
                error = outcomes.pop()
                if error is not None:
                    raise error

        options = {"source_service": source, "event_type": "sold", **options}
        cls = options.pop("cls", EventHandler)
        handler = cls.decorator(**options)(on_sold)
        container = container_factory(
            type("Listener", (), {"name": name, "on_sold": handler, **dict(members)}),
            config={**amqp_config, **dict(config)},
        )
        queue_name = container.entrypoints[0].queue.name
        names.queues.append(queue_name)
        container.start()
        return container

    return listen


@pytest.fixture
def dispatch(source, amqp_config):
    with event_dispatcher(config=amqp_config) as dispatcher:

        def dispatch(data, event_type="sold", **options):
            dispatcher(source, event_type, data, **options)

        yield dispatch


def test_pool_handles_each_event_once_for_each_service(listen, dispatch, log):
    for label in ("a1", "a2"):
        listen(label, service="a")
    listen("b1", service="b")
    for number in range(10):
        dispatch(number)
    handled = log.take(20)
    assert sorted(data for label, data in handled if label.startswith("a")) == list(range(10))
    assert sorted(data for label, data in handled if label.startswith("b")) == list(range(10))
    assert {label for label, _ in handled} == {"a1", "a2", "b1"}
    assert log.is_empty()


def test_singleton_handles_each_event_once_in_the_fleet(listen, dispatch, log):
    listen("a", service="a", handler_type=SINGLETON)
    listen("b", service="b", handler_type=SINGLETON)
    for number in range(10):
        dispatch(number)
    handled = log.take(10)
    assert sorted(data for _, data in handled) == list(range(10))
    assert {label for label, _ in handled} == {"a", "b"}
    assert log.is_empty()


def test_broadcast_reaches_every_instance(listen, dispatch, log):
    for label in ("a1", "a2", "b1"):
        listen(label, service=label[0], handler_type=BROADCAST, reliable_delivery=False)
    dispatch("x")
    assert log.take(3) == [("a1", "x"), ("a2", "x"), ("b1", "x")]


def test_reliable_events_wait_for_their_handler(listen, dispatch, log):
    listen("first").stop()
    dispatch("meanwhile")
    listen("second")
    assert log.take() == [("second", "meanwhile")]


def test_unreliable_events_are_for_those_who_are_there(listen, dispatch, log):
    listen("first", reliable_delivery=False).stop()
    dispatch("meanwhile")
    listen("second", reliable_delivery=False)
    dispatch("now")
    assert log.take() == [("second", "now")]


@pytest.mark.parametrize(
    ("pattern", "types"),
    [("sold.*", ["sold.car"]), ("sold.#", ["sold", "sold.car", "sold.car.red"]), ("#", "all")],
)
def test_wildcards_stand_for_words(listen, dispatch, log, pattern, types):
    listen("a", event_type=pattern)
    for event_type in ("sold", "sold.car", "sold.car.red", "bought"):
        dispatch(event_type, event_type=event_type)
    expected = ["bought", "sold", "sold.car", "sold.car.red"] if types == "all" else types
    assert [data for _, data in log.take(len(expected))] == expected
    assert log.is_empty()


def test_service_dispatches_with_its_context(listen, log, container_factory, amqp_config, source):
    seen = queue.SimpleQueue()

    class Spy(DependencyProvider):
        def worker_setup(self, worker_ctx):
            seen.put(worker_ctx.data)

    class Source:
        name = source
        dispatch = EventDispatcher(exchange="ignored", routing_key="ignored")

        @rpc
        def sell(self, item):
            self.dispatch("sold", item)

    listen("a", members={"spy": Spy()})
    container_factory(Source, config=amqp_config).start()
    context = {"language": "de"}
    with ServiceRpcClient(
        source, context_data=context, config=amqp_config, timeout=TIMEOUT
    ) as client:
        client.sell({"car": 1.5})
    assert log.take() == [("a", {"car": 1.5})]
    data = seen.get(timeout=TIMEOUT)
    assert data["language"] == "de"
    assert [call_id.split(".")[1] for call_id in data["call_id_stack"][-2:]] == ["sell", "on_sold"]


@pytest.fixture
def dispatching(container_factory, amqp_config, source, names, broker_uri):
    """Starts a service that dispatches; returns it, `dispatch` of a worker, and a tap."""
    with pika_channel(broker_uri) as channel:
        channel.exchange_declare(f"{source}.events", "topic", durable=True)
    tap = names.queue("tap")
    amqp.declare_queue(broker_uri, tap, exchange=f"{source}.events", routing_key="#")

    def dispatching(**members):
        kept = queue.SimpleQueue()

        class Source:
            name = source
            dispatch = EventDispatcher()

            @timer(1000, eager=True)
            def begin(self):
                kept.put(self.dispatch)
                self.dispatch("in method", 0)

        for key, value in members.items():
            setattr(Source, key, value)
        container = container_factory(Source, config=amqp_config)
        container.start()
        return container, kept.get(timeout=TIMEOUT), tap

    return dispatching


def test_dispatch_works_until_the_last_dependency_has_stopped(dispatching, broker_uri):
    late = []

    class Late(DependencyProvider):
        def worker_teardown(self, worker_ctx):
            worker_ctx.service.dispatch("in teardown", 1)

        def stop(self):
            late[0]("in stop", 2)

    container, dispatch, tap = dispatching(late=Late())
    late.append(dispatch)
    done = threading.Event()

    def run():
        dispatch("in managed thread", 3)
        done.set()

    container.spawn_managed_thread(run)
    assert done.wait(TIMEOUT)
    container.stop()
    with pytest.raises(ContainerStopped, match="the publisher is stopped"):
        dispatch("too late", 4)
    arrived = [each.method.routing_key for each in amqp.take_messages(broker_uri, tap, 4)]
    assert sorted(arrived) == ["in managed thread", "in method", "in stop", "in teardown"]
    assert amqp.queue_depth(broker_uri, tap) == 0


@pytest.mark.parametrize(
    ("end", "errors"), [("stop", {ContainerStopped}), ("kill", {WorkerKilled, ContainerStopped})]
)
def test_every_thread_hears_of_the_end_and_what_was_dispatched_is_there(
    dispatching, broker_uri, end, errors
):
    container, dispatch, tap = dispatching()
    returned, raised = [], []
    many = threading.Event()

    def work(thread):
        try:
            for number in range(10**9):
                dispatch("sold", [thread, number])
                returned.append((thread, number))
                if len(returned) > 300:
                    many.set()
        except BaseException as error:
            raised.append(type(error))

    threads = [threading.Thread(target=work, args=(each,), daemon=True) for each in range(16)]
    for thread in threads:
        thread.start()
    assert many.wait(TIMEOUT)
    getattr(container, end)()
    for thread in threads:
        thread.join(TIMEOUT)
    assert len(raised) == 16
    assert set(raised) <= errors
    bodies = [each.body for each in amqp.take_messages(broker_uri, tap, 1 + len(returned))]
    arrived = {tuple(json.loads(body)) for body in bodies if body != b"0"}
    if end == "stop":
        assert arrived == set(returned)
    else:  # what was under way may have arrived, and stand before others in the queue
        rest = amqp.take_messages(broker_uri, tap, amqp.queue_depth(broker_uri, tap))
        assert set(returned) <= arrived | {tuple(json.loads(each.body)) for each in rest}


CONTEXT = {
    "text": "ü€",
    "none": None,
    "integers": [0, -1, 2**31, -(2**63), 2**63 - 1],
    "floats": [1.5, 5e-324, -1e308],
    "booleans": [True, False],
    "bytes": b"\xff\x00",
    "nested": {"a": [1, [None, {}], {"b": "c"}]},
    "decimal": Decimal("1.25"),
    "moment": datetime(2020, 1, 2, 3, 4, 5, tzinfo=timezone.utc),
    "large": "x" * 70_000,
    "": "no key",
}


def test_context_of_every_type_is_carried_by_an_event(
    listen, log, container_factory, amqp_config, source
):
    seen = queue.SimpleQueue()

    class Spy(DependencyProvider):
        def worker_setup(self, worker_ctx):
            seen.put(worker_ctx.context_data)

    class Source:
        name = source
        dispatch = EventDispatcher()

        @rpc
        def sell(self):
            self.dispatch("sold", 1)

    listen("a", members={"spy": Spy()})
    container_factory(Source, config=amqp_config).start()
    with ServiceRpcClient(
        source, context_data=CONTEXT, config=amqp_config, timeout=TIMEOUT
    ) as client:
        client.sell()
    got = dict(seen.get(timeout=TIMEOUT))
    del got["call_id_stack"]
    assert got == {key: value for key, value in CONTEXT.items() if value is not None}


@pytest.mark.parametrize(
    "value",
    [object(), {1}, 2**64, float("nan"), "\ud800", [object()], Decimal("1e400"), "x" * 200_000],
    ids=lambda value: repr(value)[:20],
)
def test_context_that_cannot_be_sent_is_an_error_where_it_is_dispatched(
    dispatching, container_factory, amqp_config, source, value
):
    outcome = queue.SimpleQueue()

    def begin(self):
        current_worker.get().data["bad"] = value
        try:
            self.dispatch("sold", 1)
        except Exception as error:
            outcome.put(error)

    dispatching(again=timer(1000, eager=True)(begin))
    assert isinstance(outcome.get(timeout=TIMEOUT), EncodeError)


def test_delayed_event_comes_later(listen, dispatch, log):
    listen("a")
    dispatch("later", delay=TIMEOUT / 10)
    dispatch("now")
    assert [log.entries.get(timeout=TIMEOUT)[1] for _ in range(2)] == ["now", "later"]


def test_first_event_of_all_declares_its_exchange(dispatch, broker_uri, source):
    dispatch("x")
    with pika_channel(broker_uri) as channel:
        channel.exchange_declare(f"{source}.events", passive=True)


def test_exchange_that_is_deleted_is_declared_anew(listen, dispatch, log, broker_uri, source):
    dispatch("before")
    amqp.delete_exchange(broker_uri, f"{source}.events")
    dispatch("lost, for nobody listens")
    listen("a")
    dispatch("after")
    assert log.take() == [("a", "after")]


def test_event_that_fails_is_tried_again_and_dies(listen, dispatch, log, broker_uri):
    errors = [LookupError("no")] * 3
    container = listen("a", raises=errors, retry=Retry(max=2, delays=0.02), dead_letter=True)
    dispatch("x")
    assert log.take(3) == [("a", "x")] * 3
    name = container.entrypoints[0].queue.name
    amqp.wait_for_queue(broker_uri, f"{name}.dead")
    headers = amqp.expect_message(broker_uri, f"{name}.dead").properties.headers
    assert headers["x-threadko-reason"] == "exhausted"
    assert headers["x-threadko-routing-key"] == "sold"
    assert headers["x-threadko-exchange"].endswith(".events")
    assert log.is_empty()


def test_singleton_and_pool_retry_only_for_themselves(listen, dispatch, log):
    listen("a", service="a", raises=[LookupError()], retry=Retry(delays=0.02))
    listen("b", service="b")
    dispatch("x")
    assert log.take(3) == [("a", "x"), ("a", "x"), ("b", "x")]
    assert log.is_empty()


def test_requeue_on_error_gives_the_event_to_somebody(listen, dispatch, log):
    listen("a", raises=[LookupError()] * 2, requeue_on_error=True)
    dispatch("x")
    assert log.take(3) == [("a", "x")] * 3


def test_ten_thousand_are_not_needed_to_see_that_threads_may_share_a_dispatcher(
    listen, dispatch, log
):
    listen("a")
    barrier = threading.Barrier(8)

    def run(first):
        barrier.wait(TIMEOUT)
        for number in range(first, first + 50):
            dispatch(number)

    threads = [threading.Thread(target=run, args=(50 * n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    assert [data for _, data in log.take(400)] == list(range(400))
    for thread in threads:
        thread.join(TIMEOUT)


def test_broadcast_survives_a_lost_connection(listen, dispatch, log, broker_uri):
    with Proxy.for_uri(broker_uri) as proxy:
        config = {"AMQP_URI": proxy.uri_for(broker_uri)}
        container = listen("a", handler_type=BROADCAST, reliable_delivery=False, config=config)
        dispatch("before")
        assert log.take() == [("a", "before")]
        proxy.cut()
        # Its queue goes with the connection, and comes again with the next.
        end = time.monotonic() + TIMEOUT
        while log.is_empty():
            assert time.monotonic() < end
            dispatch("after")
        container.stop()
