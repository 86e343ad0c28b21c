"""`consume`, against the broker."""

import logging
import queue
import threading

import kombu
import pytest

from tests.conftest import pika_channel
from tests.containers.dummies import Gate, in_thread
from tests.support import amqp
from tests.support.proxy import Proxy
from tests.support.timing import TIMEOUT, wait_until
from threadko.amqp import publish as amqp_publish
from threadko.exceptions import BrokerRefused, ConfigurationError, WorkerKilled
from threadko.extensions import DependencyProvider
from threadko.messaging import (
    Binding,
    Consumer,
    Exchange,
    Queue,
    Retry,
    consume,
)

# Headers


# Options


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"retry": 5}, "retry must be a Retry"),
        ({"retry": Retry(), "requeue_on_error": True}, "requeue_on_error gives a message back"),
        ({"dead_letter": True, "requeue_on_error": True}, "requeue_on_error gives a message back"),
        ({"no_ack": True, "retry": Retry()}, "with no_ack a message is gone"),
        ({"no_ack": True, "requeue_on_error": True}, "with no_ack a message is gone"),
        ({"prefetch_count": -1}, "prefetch_count must be"),
        ({"prefetch_count": "1"}, "prefetch_count must be"),
        ({"heartbeat": 0}, "the heartbeat must be"),
        ({"dead_letter": "orders.dead"}, "dead_letter must be True or False"),
        ({"accept": "json"}, "accept must be a list of names"),
        ({"accept": 5}, "accept must be a list of names"),
    ],
)
def test_wrong_option_of_consume_is_an_error_where_it_stands(options, text):
    with pytest.raises(ConfigurationError, match=text):
        consume(Queue("q"), **options)(lambda self, body: None)


def test_unknown_option_of_consume_is_an_error():
    with pytest.raises(TypeError):
        consume(Queue("q"), colour="red")(lambda self, body: None)


@pytest.mark.parametrize("value", [None, "name", 1, Queue])
def test_consume_needs_a_queue(value):
    with pytest.raises(ConfigurationError, match="a Queue is wanted"):
        consume(value)(lambda self, body: None)


class _Late(Consumer):
    """Its queue is one of the configuration's."""

    def __init__(self, **options):
        super().__init__(None, **options)

    def setup(self):
        name = self.container.config["queue_name"]
        self.queue = name and kombu.Queue(name, no_ack=name.endswith("no-ack"))
        super().setup()


def _late(queue, **options):
    return _Late.decorator(**options)


def test_queue_of_a_subclass_may_be_known_at_the_start_only(serve, send, heard, queue_name):
    serve(_late, {"queue_name": queue_name})
    send("late")
    assert heard.take() == "late"


@pytest.mark.parametrize(
    ("name", "text"), [(None, "a Queue is wanted"), ("a-no-ack", "with no_ack a message is gone")]
)
def test_queue_that_is_known_late_is_checked_at_the_start(serve, name, text):
    with pytest.raises(ConfigurationError, match=text):
        serve(_late, {"queue_name": name}, dead_letter=True)


class _SilentError(BaseException):
    def __str__(self):
        raise SystemExit


class Heard:
    """What a consumer's method was called with, and what it is to do."""

    def __init__(self):
        self.calls = queue.SimpleQueue()
        self.outcomes = queue.SimpleQueue()  # exceptions to raise, then success

    def __call__(self, body):
        self.calls.put(body)
        try:
            outcome = self.outcomes.get_nowait()
        except queue.Empty:
            return
        if outcome is not None:
            raise outcome

    def take(self):
        return self.calls.get(timeout=TIMEOUT)


@pytest.fixture
def heard():
    return Heard()


@pytest.fixture
def serve(container_factory, amqp_config, names, heard, queue_name):
    """Runs a service that consumes from the queue."""

    def serve(entrypoint=consume, config=(), members=(), **options):
        def handle(self, body):
            heard(body)

        handler = entrypoint(Queue(queue_name), **options)(handle)
        cls = type("Consuming", (), {"name": names.service(), "handle": handler, **dict(members)})
        container = container_factory(cls, config={**amqp_config, **dict(config)})
        container.start()
        return container

    return serve


@pytest.mark.parametrize("kind", ["kombu", "threadko"])
def test_queue_of_several_bindings_is_consumed_by_each_and_bound_again_when_it_is_deleted(
    container_factory, amqp_config, names, heard, queue_name, broker_uri, kind
):
    first, second = f"{queue_name}-first", f"{queue_name}-second"
    make = kombu.Exchange if kind == "kombu" else Exchange
    one, two = (make(each, "topic", auto_delete=True) for each in (first, second))
    if kind == "kombu":
        bindings = [kombu.binding(one, "a.#"), kombu.binding(one, "b.#"), kombu.binding(two, "#")]
        bound = kombu.Queue(queue_name, bindings)
    else:
        bound = Queue(queue_name, one, "a.#", bindings=[Binding(one, "b.#"), Binding(two, "#")])

    class Consuming:
        name = names.service()

        @consume(bound)
        def handle(self, body):
            heard(body)

    def hear_each():
        publisher = amqp_publish.Publisher(broker_uri, mandatory=True)
        for exchange, key in ((first, "a.x"), (first, "b.x"), (second, "c")):
            publisher.publish(key, exchange=exchange, routing_key=key)
        return {heard.take() for _ in range(3)}

    container = container_factory(Consuming, config=amqp_config)
    container.start()
    assert hear_each() == {"a.x", "b.x", "c"}
    amqp.delete_queue(broker_uri, queue_name)
    wait_until(lambda: amqp.has_queue(broker_uri, queue_name))
    wait_until(lambda: amqp.queue_consumers(broker_uri, queue_name) == 1)
    assert hear_each() == {"a.x", "b.x", "c"}


def depth(uri, name):
    return amqp.queue_depth(uri, name)


def test_method_gets_the_body_and_the_message_is_gone(serve, send, heard, broker_uri, queue_name):
    container = serve()
    send({"a": [1.5, "ü"]})
    assert heard.take() == {"a": [1.5, "ü"]}
    container.stop()
    assert depth(broker_uri, queue_name) == 0


def test_context_data_comes_from_the_headers(serve, send, names):
    seen = queue.SimpleQueue()

    class Spy(DependencyProvider):
        def worker_setup(self, worker_ctx):
            seen.put(worker_ctx)

    serve(members={"spy": Spy()})
    headers = {"nameko.language": "de", "foreign": "x", "nameko.call_id_stack": ["caller"]}
    send(1, headers=headers, message_id="own")
    worker_ctx = seen.get(timeout=TIMEOUT)
    assert worker_ctx.data["language"] == "de"
    assert "foreign" not in worker_ctx.data
    assert worker_ctx.call_id_stack == ["caller", worker_ctx.call_id]
    assert (worker_ctx.message_id, worker_ctx.redelivered) == ("own", False)
    assert worker_ctx.headers["foreign"] == "x"


def test_failed_message_is_gone_when_nothing_else_is_asked_for(
    serve, send, heard, broker_uri, queue_name, caplog
):
    heard.outcomes.put(LookupError("of the method"))
    container = serve(config={"max_workers": 1})
    send(1)
    send(2)
    assert [heard.take(), heard.take()] == [1, 2]
    container.stop()
    assert depth(broker_uri, queue_name) == 0
    assert "of the method" in caplog.text


def test_requeue_on_error_tries_until_it_works(serve, send, heard, broker_uri, queue_name):
    for _ in range(3):
        heard.outcomes.put(LookupError())
    container = serve(requeue_on_error=True)
    send(1)
    assert [heard.take() for _ in range(4)] == [1] * 4
    container.stop()
    assert depth(broker_uri, queue_name) == 0


def test_expected_exception_is_a_warning_and_treated_alike(serve, send, heard, caplog):
    heard.outcomes.put(LookupError("expected one"))
    serve(expected_exceptions=LookupError, requeue_on_error=True)
    send(1)
    assert [heard.take(), heard.take()] == [1, 1]
    levels = [record.levelno for record in caplog.records if "expected one" in record.getMessage()]
    assert levels == [logging.WARNING]


@pytest.mark.parametrize("body", [b"{", b"\xff"])
def test_unreadable_message_is_dropped_and_said(
    serve, heard, send, broker_uri, queue_name, caplog, body
):
    container = serve()
    amqp.publish(broker_uri, body, routing_key=queue_name, content_type="application/json")
    send("good")
    assert heard.take() == "good"
    container.stop()
    assert depth(broker_uri, queue_name) == 0
    assert f"a message of {queue_name} was dropped" in caplog.text


def test_accept_of_the_entrypoint_wins(serve, heard, broker_uri, queue_name, send):
    container = serve(accept=["yaml"])
    send("json is not accepted")
    amqp.publish(
        broker_uri, b"a: 1", routing_key=queue_name,
        content_type="application/x-yaml", content_encoding="utf-8",
    )  # fmt: skip
    assert heard.take() == {"a": 1}
    container.stop()


def test_no_ack_loses_what_fails(serve, send, heard, broker_uri, queue_name):
    heard.outcomes.put(LookupError())
    container = serve(no_ack=True)
    send(1)
    assert heard.take() == 1
    container.stop()
    assert depth(broker_uri, queue_name) == 0


def test_prefetch_count_of_the_entrypoint_wins(
    container_factory, amqp_config, names, queue_name, broker_uri, send
):
    gate = Gate()

    class Holding:
        name = names.service()

        @consume(Queue(queue_name), prefetch_count=1)
        def hold(self, body):
            gate.hold()

    container_factory(Holding, config=amqp_config).start()
    for number in range(3):
        send(number)
    gate.wait_reached()
    assert depth(broker_uri, queue_name) == 2
    gate.released.set()


def test_stop_gives_back_what_waits_and_finishes_what_runs(
    container_factory, amqp_config, names, queue_name, broker_uri, send
):
    gate, done, doors_closed = Gate(), [], threading.Event()

    class Last(DependencyProvider):
        def cancel(self):
            doors_closed.set()  # entrypoints before dependencies

    class Holding:
        name = names.service()
        last = Last()

        @consume(Queue(queue_name))
        def hold(self, body):
            gate.hold()
            done.append(body)

    container = container_factory(Holding, config={**amqp_config, "max_workers": 1})
    container.start()
    for number in range(4):
        send(number)
    gate.wait_reached()
    stop = in_thread(container.stop)
    assert doors_closed.wait(TIMEOUT)
    gate.released.set()
    assert stop.finish() is None
    assert done == [0]
    assert depth(broker_uri, queue_name) == 3


def test_kill_gives_all_back(container_factory, amqp_config, names, queue_name, broker_uri, send):
    gate = Gate()

    class Holding:
        name = names.service()

        @consume(Queue(queue_name))
        def hold(self, body):
            gate.hold()

    container = container_factory(Holding, config=amqp_config)
    container.start()
    send(1)
    gate.wait_reached()
    container.kill()
    gate.released.set()
    assert amqp.expect_message(broker_uri, queue_name).body == b"1"


def test_worker_that_is_ended_gives_its_message_back_once(
    serve, send, heard, broker_uri, queue_name
):
    heard.outcomes.put(WorkerKilled("one"))
    heard.outcomes.put(WorkerKilled("two"))
    container = serve()
    send(1)
    assert [heard.take(), heard.take()] == [1, 1]
    send(2)
    assert heard.take() == 2
    container.stop()
    assert depth(broker_uri, queue_name) == 0


def test_handle_message_may_be_overridden(serve, send, heard, broker_uri, queue_name):
    class Filtering(Consumer):
        def handle_message(self, body, message):
            if body == "ignore":
                message.ack()
            elif body == "fail":
                raise LookupError
            else:
                self.run_worker((body.upper(),), {}, message)

    container = serve(entrypoint=Filtering.decorator)
    for body in ("ignore", "fail", "pass"):
        send(body)
    assert heard.take() == "PASS"
    container.stop()
    assert depth(broker_uri, queue_name) == 0


def test_notes_in_the_headers_of_a_message_do_not_stop_its_retries(
    serve, send, heard, broker_uri, queue_name
):
    class Noting(Consumer):
        consumer = None  # a name of nameko's that subclasses have as well

        def handle_message(self, body, message):
            message.headers["received"] = object()  # AMQP cannot carry it
            heard.calls.put(message.headers.pop("own", None))
            super().handle_message(body, message)

    retry = Retry(max=1, delays=0.02)
    container = serve(entrypoint=Noting.decorator, retry=retry, dead_letter=True)
    for _ in range(2):
        heard.outcomes.put(LookupError())
    send("x", headers={"own": "kept"})
    assert [heard.take() for _ in range(4)] == ["kept", "x", "kept", "x"]
    assert wait_dead(broker_uri, queue_name).properties.headers["own"] == "kept"
    container.stop()


def test_consumer_settles_messages_for_an_override(serve, send, heard, broker_uri, queue_name):
    class Choosing(Consumer):
        def handle_message(self, body, message):
            heard.calls.put(message.redelivered)
            if message.redelivered:
                self.consumer.ack_message(message)
            self.consumer.requeue_message(message)  # nothing for one that was settled

    container = serve(entrypoint=Choosing.decorator)
    send(1)
    assert [heard.take(), heard.take()] == [False, True]
    container.stop()
    assert depth(broker_uri, queue_name) == 0


def read_as_kombu(message):
    """What code for nameko reads of a message."""
    return {
        "correlation_id": message.properties["correlation_id"],
        "reply_to": message.properties.get("reply_to"),
        "has reply_to": "reply_to" in message.properties,
        "headers": dict(message.headers),
        "routing_key": message.delivery_info["routing_key"],
        "exchange": message.delivery_info["exchange"],
        "redelivered": message.delivery_info["redelivered"],
        "delivery_tag": message.delivery_info["delivery_tag"],
        "content": (message.content_type, message.content_encoding),
        "body": message.body,
        "payload": message.payload,
    }


def test_handle_message_reads_its_message_as_it_is_in_kombu(serve, send, heard, queue_name):
    seen = []

    class Reading(Consumer):
        def handle_message(self, body, message):
            seen.append((read_as_kombu(message), message.payload is body))
            super().handle_message(body, message)

    serve(entrypoint=Reading.decorator)
    send({"a": 1}, correlation_id="c-1", headers={"key": "value"}, content_encoding="utf-8")
    assert heard.take() == {"a": 1}
    assert seen == [
        (
            {
                "correlation_id": "c-1",
                "reply_to": None,
                "has reply_to": False,
                "headers": {"key": "value"},
                "routing_key": queue_name,
                "exchange": "",
                "redelivered": False,
                "delivery_tag": 1,
                "content": ("application/json", "utf-8"),
                "body": b'{"a": 1}',
                "payload": {"a": 1},
            },
            True,
        )
    ]


def test_handle_message_processed_may_be_overridden(serve, send, heard, broker_uri, queue_name):
    processed = queue.SimpleQueue()

    class Rejecting(Consumer):
        def handle_message_processed(self, message, result=None, exc_info=None):
            processed.put(exc_info and exc_info[0])
            message.reject(requeue=not message.redelivered)

    heard.outcomes.put(LookupError())
    container = serve(entrypoint=Rejecting.decorator)
    send(1)
    assert processed.get(timeout=TIMEOUT) is LookupError
    assert processed.get(timeout=TIMEOUT) is None
    container.stop()
    assert depth(broker_uri, queue_name) == 0


@pytest.mark.parametrize("where", ["handle_message_processed", "handle_decode_error"])
def test_message_that_an_override_fails_to_settle_goes_back(
    serve, send, heard, broker_uri, queue_name, caplog, where
):
    outcomes = [LookupError("the archive is away")]

    class Archiving(Consumer):
        def note(self, message):
            heard.calls.put(message.redelivered)
            if outcomes:
                raise outcomes.pop()
            message.ack()

        def handle_message_processed(self, message, result=None, exc_info=None):
            if where == "handle_decode_error":
                raise LookupError("the archive is away")
            self.note(message)

        def handle_decode_error(self, message, error):
            self.note(message)

    # With a prefetch of 1 nothing more would come, for ever.
    container = serve(Archiving.decorator, prefetch_count=1, accept=["json"])
    if where == "handle_decode_error":
        amqp.publish(broker_uri, b"{", routing_key=queue_name, content_type="application/json")
    else:
        heard.outcomes = queue.SimpleQueue()
        send(1)
        assert heard.take() == 1
    calls = [heard.take()]
    while calls[-1] is not True:
        calls.append(heard.take())
    assert False in calls
    container.stop()
    assert depth(broker_uri, queue_name) == 0
    assert "the archive is away" in caplog.text


def test_refused_queue_fails_the_start(serve, broker_uri, queue_name):
    with pika_channel(broker_uri) as channel:
        channel.queue_declare(queue_name, durable=False)
    with pytest.raises(BrokerRefused, match="other arguments"):
        serve()


def test_message_taken_twice_after_a_cut_is_settled_once(
    container_factory, amqp_config, names, queue_name, broker_uri, send
):
    seen = queue.SimpleQueue()
    gate = Gate()

    class Holding:
        name = names.service()

        @consume(Queue(queue_name))
        def hold(self, body):
            seen.put(body)
            if body == "first" and not gate.reached.is_set():
                gate.hold()

    with Proxy.for_uri(broker_uri) as proxy:
        config = {**amqp_config, "AMQP_URI": proxy.uri_for(broker_uri)}
        container = container_factory(Holding, config=config)
        container.start()
        send("first")
        gate.wait_reached()
        proxy.cut()
        assert [seen.get(timeout=TIMEOUT) for _ in range(2)] == ["first", "first"]
        gate.released.set()  # its acknowledgement comes from the connection before
        send("second")
        assert seen.get(timeout=TIMEOUT) == "second"
        container.stop()
    assert depth(broker_uri, queue_name) == 0


# Retry and dead letters


def dead_message(uri, name):
    with pika_channel(uri) as channel:
        for _ in range(10_000):
            method, properties, body = channel.basic_get(f"{name}.dead", auto_ack=True)
            if method is not None:
                return properties, body
    raise AssertionError("nothing in the dead queue")


def wait_dead(uri, name):
    """Take the first message of a dead queue that need not be there yet."""
    amqp.wait_for_queue(uri, f"{name}.dead")
    return amqp.expect_message(uri, f"{name}.dead")


def test_message_that_fails_twice_succeeds_at_the_third_attempt(
    serve, send, heard, broker_uri, queue_name
):
    heard.outcomes.put(LookupError())
    heard.outcomes.put(LookupError())
    container = serve(retry=Retry(max=3, delays=(0.02, 0.05)))
    send("x")
    assert [heard.take() for _ in range(3)] == ["x"] * 3
    container.stop()
    assert depth(broker_uri, queue_name) == 0
    assert heard.calls.empty()


def test_exhausted_message_lies_in_the_dead_queue_with_its_story(
    serve, send, heard, broker_uri, queue_name
):
    for _ in range(3):
        heard.outcomes.put(LookupError("no such thing"))
    container = serve(retry=Retry(max=2, delays=0.02), dead_letter=True)
    send("x", headers={"nameko.language": "de", "own": 1}, message_id="m-1")
    assert [heard.take() for _ in range(3)] == ["x"] * 3
    container.stop()
    properties, body = dead_message(broker_uri, queue_name)
    headers = properties.headers
    assert body == b'"x"'
    assert properties.message_id == "m-1"
    assert (headers["nameko.language"], headers["own"]) == ("de", 1)
    assert headers["x-threadko-reason"] == "exhausted"
    assert headers["x-threadko-failures"] == 3
    assert headers["x-threadko-error"] == "LookupError: no such thing"
    assert headers["x-threadko-routing-key"] == queue_name
    assert headers["x-threadko-first-death"].endswith("+00:00")
    assert heard.calls.empty()


def test_error_that_is_not_to_be_retried_ends_it_at_once(
    serve, send, heard, broker_uri, queue_name
):
    heard.outcomes.put(KeyError("x"))
    container = serve(retry=Retry(delays=0.02, exceptions=ValueError), dead_letter=True)
    send(1)
    heard.take()
    container.stop()
    properties, _ = dead_message(broker_uri, queue_name)
    assert properties.headers["x-threadko-reason"] == "failed"


def test_unreadable_message_lies_in_the_dead_queue(serve, send, heard, broker_uri, queue_name):
    container = serve(dead_letter=True)
    amqp.publish(broker_uri, b"{", routing_key=queue_name, content_type="application/json")
    send("good")
    assert heard.take() == "good"
    container.stop()
    properties, body = dead_message(broker_uri, queue_name)
    assert (properties.headers["x-threadko-reason"], body) == ("undecodable", b"{")


def test_exhausted_message_without_a_dead_queue_is_dropped_and_said(
    serve, send, heard, broker_uri, queue_name, caplog
):
    heard.outcomes.put(LookupError("no such thing"))
    heard.outcomes.put(LookupError("no such thing"))
    container = serve(retry=Retry(max=1, delays=0.02))
    send(1)
    assert [heard.take(), heard.take()] == [1, 1]
    container.stop()
    assert depth(broker_uri, queue_name) == 0
    assert f"a message of {queue_name} is dropped, exhausted" in caplog.text


@pytest.mark.parametrize("given", ["", "x" * 253])
def test_queue_without_room_for_a_dead_one_fails_the_start(container_factory, amqp_config, given):
    class Consuming:
        name = "consuming"

        @consume(Queue(given, exclusive=True), dead_letter=True)
        def handle(self, body):
            pass

    with pytest.raises(ConfigurationError, match=r"name of its own|bytes long"):
        container_factory(Consuming, config=amqp_config).start()


def test_waiting_holds_neither_prefetch_nor_neighbours(serve, send, heard, broker_uri, queue_name):
    heard.outcomes.put(LookupError())
    container = serve(retry=Retry(delays=3600), prefetch_count=1, config={"max_workers": 1})
    send("fails")
    for number in range(20):
        send(number)
    assert heard.take() == "fails"
    assert [heard.take() for _ in range(20)] == list(range(20))
    waiting = f"{queue_name}.delay-3600000"
    container.stop()
    assert depth(broker_uri, waiting) == 1
    amqp.delete_queue(broker_uri, waiting)


def test_queue_and_exchange_of_one_name_may_both_have_delays(
    container_factory, amqp_config, names, queue_name, broker_uri, heard, caplog
):
    exchange = Exchange(queue_name)

    class Consuming:
        name = names.service()

        @consume(Queue(queue_name, exchange, routing_key="k"), retry=Retry(max=1, delays=0.05))
        def handle(self, body):
            heard(body)

    heard.outcomes.put(LookupError())
    container = container_factory(Consuming, config=amqp_config)
    container.start()
    amqp_publish.Publisher(broker_uri).publish("x", exchange=exchange, routing_key="k", delay=0.05)
    assert [heard.take(), heard.take()] == ["x", "x"]
    container.stop()
    amqp.delete_exchange(broker_uri, queue_name)
    assert "could not be moved" not in caplog.text


@pytest.mark.parametrize(
    "headers",
    [
        {"x-threadko-failures": 2**63 - 1},
        {"x-threadko-failures": "many", "x-threadko-first-death": {"a": [None]}},
        {"x-threadko-error": b"\xff", "x-threadko-exchange": 5, "x-death": "x"},
        {"large": "x" * 129_500},  # room for itself, and not for what is added
    ],
    ids=["count", "types", "bytes", "size"],
)
def test_no_header_saves_a_message_from_its_dead_queue(
    serve, send, heard, broker_uri, queue_name, headers
):
    for _ in range(2):
        heard.outcomes.put(LookupError("é" * 1000))
    container = serve(retry=Retry(max=1, delays=0.02), dead_letter=True)
    send("x", headers=headers)
    dead = wait_dead(broker_uri, queue_name)
    assert dead.body == b'"x"'
    assert dead.properties.content_type == "application/json"
    assert dead.properties.headers["x-threadko-reason"] in ("exhausted", "failed")
    container.stop()
    assert depth(broker_uri, queue_name) == 0


def test_dead_queue_that_is_deleted_is_made_anew(serve, send, heard, broker_uri, queue_name):
    container = serve(dead_letter=True)
    for number in range(3):
        heard.outcomes.put(LookupError())
        send(number)
        heard.take()
        assert wait_dead(broker_uri, queue_name).body == str(number).encode()
        amqp.delete_queue(broker_uri, f"{queue_name}.dead")
    container.stop()


@pytest.mark.parametrize(
    "error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), _SilentError(), MemoryError()]
)
def test_error_of_any_kind_is_the_end_of_its_message_alone(
    serve, send, heard, broker_uri, queue_name, error
):
    heard.outcomes.put(error)
    container = serve(dead_letter=True, config={"max_workers": 1})
    send("bad")
    send("good")
    assert {heard.take(), heard.take()} == {"bad", "good"}
    assert wait_dead(broker_uri, queue_name).body == b'"bad"'
    container.stop()


def test_message_that_cannot_be_moved_goes_back(serve, send, heard, broker_uri, queue_name, caplog):
    with pika_channel(broker_uri) as channel:
        channel.queue_declare(f"{queue_name}.dead", durable=False)  # not what is to be declared
    heard.outcomes.put(LookupError())
    container = serve(dead_letter=True)
    send(1)
    assert [heard.take(), heard.take()] == [1, 1]
    container.stop()
    assert depth(broker_uri, queue_name) == 0
    assert "could not be moved" in caplog.text


def test_cut_while_a_failed_message_is_moved_loses_nothing(
    container_factory, amqp_config, names, queue_name, broker_uri, send
):
    class Failing:
        name = names.service()

        @consume(Queue(queue_name), dead_letter=True)
        def fail(self, body):
            raise LookupError

    with Proxy.for_uri(broker_uri) as proxy:
        config = {**amqp_config, "AMQP_URI": proxy.uri_for(broker_uri)}
        container = container_factory(Failing, config=config)
        container.start()
        for number in range(200):
            send(number)
            if number % 50 == 25:
                proxy.cut()
        dead = set()
        while len(dead) < 200:
            dead.add(wait_dead(broker_uri, queue_name).body)
        container.stop()
    assert dead == {str(number).encode() for number in range(200)}
