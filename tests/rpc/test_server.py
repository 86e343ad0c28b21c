import itertools
import json
import logging
import struct
import threading
from contextlib import contextmanager

import pytest
from pika import frame, spec
from pika.exceptions import UnroutableError

from tests.rpc.raw import RawCaller
from tests.support.amqp import (
    delete_queue,
    open_channel,
    publish,
    queue_consumers,
    queue_depth,
)
from tests.support.fake_broker import FakeBroker
from tests.support.timing import TIMEOUT, wait_until
from threadko.amqp.message import Delivery, Properties, encode_properties
from threadko.containers import ServiceContainer
from threadko.exceptions import ConfigurationError, DecodeError, MethodNotFound, WorkerKilled
from threadko.extensions import DependencyProvider
from threadko.rpc import Rpc, RpcConsumer, rpc
from threadko.rpc.server import RpcMessage
from threadko.serialization import Serialization

RIGHT = {"args": [1], "kwargs": {}}


class Broken(Exception):  # noqa: N818 - a name for the wire
    pass


class Odd:
    def __repr__(self):
        raise RuntimeError("no text either")


def make_service(name, **attributes):
    class Service:
        @rpc
        def echo(self, value):
            return value

        @rpc
        def add(self, one, two=2):
            return one + two

        @rpc
        def fail(self, text):
            raise Broken(text)

        @rpc
        def fail_at_length(self, size):
            raise Broken("x" * size)

        @rpc
        def leave(self, kind):
            raise {"exit": SystemExit, "interrupt": KeyboardInterrupt, "end": GeneratorExit}[kind](
                "out"
            )

        @rpc
        def odd(self, kind):
            cycle = []
            cycle.append(cycle)
            return {
                "object": object(),
                "cycle": cycle,
                "lambda": print,
                "surrogate": "\ud800",
                "no repr": Odd(),
                "long repr": [{"x" * 5000}],
            }[kind]

        @rpc
        def long(self, size):
            return "x" * size

        @rpc
        def surrogate_error(self):
            raise Broken("\ud800")

        @rpc
        def defaults(self, *args, **kwargs):
            return [args, kwargs]

    Service.name = name
    for key, value in attributes.items():
        setattr(Service, key, value)
    return Service


@contextmanager
def running(service_cls, config, **options):
    container = ServiceContainer(service_cls, config={**config, **options})
    container.start()
    try:
        yield container
    finally:
        container.stop()


@pytest.fixture
def name(names):
    return names.service("server")


@pytest.fixture
def container(name, amqp_config, broker_uri):
    """A running service; when it has stopped, no message is left of what it was sent."""
    with running(make_service(name), amqp_config, MAX_MESSAGE_SIZE=200_000) as made:
        yield made
    assert queue_depth(broker_uri, f"rpc-{name}") == 0


@pytest.fixture
def caller(container, broker_uri, rpc_exchange):
    with RawCaller(broker_uri, rpc_exchange) as made:
        yield made
        if not container.being_killed:
            # Whatever was sent before, it answers.
            assert made.ask(f"{container.service_name}.echo", RIGHT)["result"] == 1
        assert made.left() is None


def test_reply_is_nameko_s_on_the_wire(caller, name):
    correlation_id = caller.send(f"{name}.echo", {"args": ["ä"], "kwargs": {}})
    reply, body = caller.take()
    assert body == {"result": "ä", "error": None}
    properties = reply.properties
    assert properties.correlation_id == correlation_id
    assert (properties.content_type, properties.content_encoding) == ("application/json", "utf-8")
    assert (properties.delivery_mode, properties.priority) == (2, 0)
    assert properties.headers == {}


def test_reply_has_no_correlation_id_when_the_request_has_none(caller, name):
    caller.send(f"{name}.echo", RIGHT, correlation_id=None)
    reply, body = caller.take()
    assert body["result"] == 1
    assert reply.properties.correlation_id is None


@pytest.mark.parametrize(
    ("method", "body", "exc_type", "exc_args"),
    [
        ("nowhere", RIGHT, "MethodNotFound", ["nowhere"]),
        ("echo", {"args": [1]}, "MalformedRequest", ["Message missing `args` or `kwargs`"]),
        ("echo", [], "MalformedRequest", None),
        ("echo", "text", "MalformedRequest", None),
        ("echo", None, "MalformedRequest", None),
        ("echo", 5, "MalformedRequest", None),
        ("echo", {"args": {"value": 1}, "kwargs": {}}, "MalformedRequest", None),
        ("echo", {"args": "x", "kwargs": {}}, "MalformedRequest", None),
        ("echo", {"args": [], "kwargs": []}, "MalformedRequest", None),
        ("echo", b"", "MalformedRequest", None),
        ("echo", b"\x00\xff\xfe random \x80", "MalformedRequest", None),
        ("echo", b"[" * 100_000, "MalformedRequest", None),
        ("echo", b'{"args": [' + b"9" * 10_000 + b'], "kwargs": {}}', "MalformedRequest", None),
        (
            "add",
            {"args": [], "kwargs": {}},
            "IncorrectSignature",
            ["add() missing 1 required positional argument: 'one'"],
        ),
        ("echo", {"args": [1, 2], "kwargs": {}}, "IncorrectSignature", None),
        ("echo", {"args": [1], "kwargs": {"self": 1}}, "IncorrectSignature", None),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_caller_is_told_when_the_request_is_wrong(caller, name, method, body, exc_type, exc_args):
    answer = caller.ask(f"{name}.{method}", body)
    assert answer["result"] is None
    assert answer["error"]["exc_type"] == exc_type
    assert answer["error"]["exc_path"] == f"nameko.exceptions.{exc_type}"
    assert exc_args is None or answer["error"]["exc_args"] == exc_args


@pytest.mark.parametrize(
    "properties",
    [
        {"content_type": None},
        {"content_type": "application/unheard-of"},
        {"content_type": "application/x-python-serialize"},
        {"content_type": ""},
        {"content_encoding": "unheard-of"},
        {"content_encoding": "base64"},
        {"headers": {"compression": "unheard-of"}, "content_type": "x"},
    ],
    ids=repr,
)
def test_caller_is_told_when_the_content_is_not_accepted(caller, name, properties):
    answer = caller.ask(f"{name}.echo", RIGHT, **properties)
    assert answer["error"] is None or answer["error"]["exc_type"] == "MalformedRequest"


def test_request_is_carried_out_when_it_names_no_encoding(caller, name):
    assert caller.ask(f"{name}.echo", RIGHT, content_encoding=None)["result"] == 1


def test_request_is_carried_out_when_nobody_is_to_be_told(caller, name):
    caller.send(f"{name}.echo", RIGHT, reply_to=None)
    caller.send(f"{name}.odd", {"args": ["object"], "kwargs": {}}, reply_to=None)
    caller.send(f"{name}.fail", {"args": ["x"], "kwargs": {}}, reply_to=None)
    caller.send(f"{name}.nowhere", b"\xff", reply_to=None)


def test_request_is_carried_out_when_its_reply_queue_is_gone(caller, name):
    caller.send(f"{name}.echo", RIGHT, reply_to="nobody-s")


@pytest.mark.parametrize(
    "headers",
    [
        {"nameko.call_id_stack": None},
        {"nameko.call_id_stack": "text"},
        {"nameko.call_id_stack": [1, None, "a"]},
        {"nameko.": 1, "nameko": 2, "": 3},
        {"nameko.deep": {"a": [{"b": [None, {}]}]}},
        {"nameko.service": 2**62},
    ],
    ids=repr,
)
def test_request_is_carried_out_when_its_headers_are_odd(caller, name, headers):
    assert caller.ask(f"{name}.echo", RIGHT, headers=headers)["result"] == 1


def nested_table(depth):
    """The bytes of a table inside a table, and so on."""
    table = struct.pack(">I", 0)
    for _ in range(depth):
        entry = b"\x01aF" + table
        table = struct.pack(">I", len(entry)) + entry
    return table


def send_raw_header(uri, exchange, routing_key, properties):
    """Publish a request whose encoded properties pika would never write."""
    body = b'{"args": [1], "kwargs": {}}'
    header = struct.pack(">HHQ", 60, 0, len(body)) + properties
    with open_channel(uri) as channel:
        number = channel.channel_number
        channel.connection._impl._output_marshaled_frames(
            [
                frame.Method(number, spec.Basic.Publish(0, exchange, routing_key)).marshal(),
                struct.pack(">BHI", 2, number, len(header)) + header + b"\xce",
                frame.Body(number, body).marshal(),
            ]
        )
        channel.basic_qos(prefetch_count=1)  # a round trip: the broker has seen it


HEADERS_FLAG = struct.pack(">H", 1 << 13)


@pytest.mark.parametrize(
    "payload",
    [
        HEADERS_FLAG + struct.pack(">I", 11) + b"\x01tT" + struct.pack(">Q", 2**40),
        HEADERS_FLAG + struct.pack(">I", 11) + b"\x01tT" + struct.pack(">Q", 2**63),
        HEADERS_FLAG + nested_table(2000),
        struct.pack(">H", 1 << 10) + b"\x02\xff\xfe",
        struct.pack(">H", 1 << 9) + b"\x02\xff\xfe",
        struct.pack(">H", 1 << 15) + b"\x02\xff\xfe",
    ],
    ids=["year 36812", "timestamp 2**63", "deep table", "correlation id", "reply_to", "type"],
)
def test_service_lives_when_a_header_is_hostile(caller, name, broker_uri, rpc_exchange, payload):
    send_raw_header(broker_uri, rpc_exchange, f"{name}.echo", payload)


def test_request_is_answered_when_it_came_past_the_exchange(caller, name, broker_uri):
    publish(
        broker_uri,
        b'{"args": [], "kwargs": {}}',
        routing_key=f"rpc-{name}",
        content_type="application/json",
        reply_to=caller.reply_to,
        correlation_id="1",
    )
    _, answer = caller.take()
    assert answer["error"]["exc_type"] == "MethodNotFound"
    assert answer["error"]["exc_args"] == [f"rpc-{name}"]


@pytest.mark.parametrize("kind", ["object", "cycle", "lambda", "surrogate", "no repr", "long repr"])
def test_caller_is_told_when_the_result_cannot_be_encoded(caller, name, kind):
    error = caller.ask(f"{name}.odd", {"args": [kind], "kwargs": {}})["error"]
    assert error["exc_type"] == "UnserializableValueError"
    assert error["exc_path"] == "nameko.exceptions.UnserializableValueError"
    assert error["exc_args"] == []
    assert error["value"].startswith("Unserializable value: `")
    assert error["value"].count("Unserializable value") == 1


def test_caller_is_told_when_the_reply_is_too_large(caller, name):
    error = caller.ask(f"{name}.long", {"args": [300_000], "kwargs": {}})["error"]
    assert error["exc_type"] == "EncodeError"
    assert "MAX_MESSAGE_SIZE" in error["value"] or "200000" in error["value"]


def test_caller_is_told_when_the_error_is_too_large(caller, name):
    error = caller.ask(f"{name}.fail_at_length", {"args": [3_000_000], "kwargs": {}})["error"]
    assert error["exc_type"] == "EncodeError"
    assert len(error["value"]) < 2_000


def test_caller_is_told_when_the_error_has_odd_text(caller, name):
    error = caller.ask(f"{name}.surrogate_error", {"args": [], "kwargs": {}})["error"]
    assert error["exc_type"] == "Broken"


@pytest.mark.parametrize(
    ("kind", "exc_type"),
    [("exit", "SystemExit"), ("interrupt", "KeyboardInterrupt"), ("end", "GeneratorExit")],
)
def test_caller_is_told_when_the_method_would_end_its_thread(caller, name, kind, exc_type):
    for _ in range(12):  # more than there are workers
        error = caller.ask(f"{name}.leave", {"args": [kind], "kwargs": {}})["error"]
        assert (error["exc_type"], error["value"]) == (exc_type, "out")


def test_caller_is_told_what_the_method_raised(caller, name):
    error = caller.ask(f"{name}.fail", {"args": ["text"], "kwargs": {}})["error"]
    assert error["exc_type"] == "Broken"
    assert error["exc_path"] == f"{__name__}.Broken"
    assert (error["exc_args"], error["value"]) == (["text"], "text")


def test_worker_sees_the_message_that_fired_it(name, amqp_config, broker_uri, rpc_exchange):
    seen = []

    class Watcher(DependencyProvider):
        def worker_setup(self, worker_ctx):
            seen.append(worker_ctx)

    with running(make_service(name, watcher=Watcher()), amqp_config):
        with RawCaller(broker_uri, rpc_exchange) as caller:
            headers = {"nameko.language": "en", "other": 1, "nameko.call_id_stack": ["a.b.1"]}
            caller.ask(f"{name}.echo", RIGHT, headers=headers, message_id="m-1")
    (ctx,) = seen
    assert (ctx.message_id, ctx.redelivered, ctx.headers) == ("m-1", False, headers)
    assert ctx.context_data["language"] == "en"
    assert "other" not in ctx.context_data
    assert ctx.call_id_stack[:-1] == ["a.b.1"]


def test_dependencies_see_the_error_that_an_unserialisable_result_becomes(
    name, amqp_config, broker_uri, rpc_exchange
):
    seen = []

    class Watcher(DependencyProvider):
        def worker_result(self, worker_ctx, result=None, exc_info=None):
            seen.append((result, exc_info and exc_info[0].__name__))

    with running(make_service(name, watcher=Watcher()), amqp_config):
        with RawCaller(broker_uri, rpc_exchange) as caller:
            caller.ask(f"{name}.odd", {"args": ["object"], "kwargs": {}})
    assert seen == [(None, "UnserializableValueError")]


@pytest.mark.parametrize(
    "hook", ["get_dependency", "worker_setup", "worker_result", "worker_teardown"]
)
@pytest.mark.parametrize("error", [Broken("hook"), SystemExit("hook")], ids=repr)
def test_request_is_settled_when_a_hook_raises(
    name, amqp_config, broker_uri, rpc_exchange, hook, error
):
    def fail(*_, **__):
        raise error

    Failing = type("Failing", (DependencyProvider,), {hook: fail})  # noqa: N806 - a class
    with running(make_service(name, failing=Failing()), amqp_config):
        with RawCaller(broker_uri, rpc_exchange) as caller:
            for _ in range(2):
                answer = caller.ask(f"{name}.echo", RIGHT)
                if hook == "worker_teardown":
                    assert answer == {"result": 1, "error": None}
                else:
                    assert answer["error"]["value"] == "hook"
    assert queue_depth(broker_uri, f"rpc-{name}") == 0


def test_reply_leaves_after_worker_result(name, amqp_config, broker_uri, rpc_exchange):
    reached, go_on = threading.Event(), threading.Event()

    class Session(DependencyProvider):
        def worker_result(self, worker_ctx, result=None, exc_info=None):
            reached.set()
            assert go_on.wait(TIMEOUT)

    with running(make_service(name, session=Session()), amqp_config):
        with RawCaller(broker_uri, rpc_exchange) as caller:
            caller.send(f"{name}.echo", RIGHT)
            assert reached.wait(TIMEOUT)
            assert caller.left() is None
            go_on.set()
            assert caller.take()[1]["result"] == 1


def test_entrypoint_may_change_the_outcome(name, amqp_config, broker_uri, rpc_exchange):
    class Doubling(Rpc):
        def handle_result(self, message, worker_ctx, result=None, exc_info=None):
            return super().handle_result(message, worker_ctx, result * 2, exc_info)

    service_cls = make_service(name)

    def double(self, value):
        return value

    service_cls.double = Doubling.decorator(double)
    with running(service_cls, amqp_config):
        with RawCaller(broker_uri, rpc_exchange) as caller:
            assert caller.ask(f"{name}.double", RIGHT)["result"] == 2


def test_request_comes_again_when_its_worker_alone_was_killed(
    name, amqp_config, broker_uri, rpc_exchange
):
    runs = itertools.count(1)

    def once(self, value):
        if next(runs) == 1:
            raise WorkerKilled("this worker alone")
        return value

    service_cls = make_service(name, once=rpc(once))
    with running(service_cls, amqp_config):
        with RawCaller(broker_uri, rpc_exchange) as caller:
            assert caller.ask(f"{name}.once", RIGHT) == {"result": 1, "error": None}
    assert queue_depth(broker_uri, f"rpc-{name}") == 0


def test_request_whose_worker_is_always_killed_is_answered(
    name, amqp_config, broker_uri, rpc_exchange
):
    runs = []

    def never(self, value):
        runs.append(value)
        raise WorkerKilled("whenever it runs")

    service_cls = make_service(name, never=rpc(never))
    with running(service_cls, amqp_config):
        with RawCaller(broker_uri, rpc_exchange) as caller:
            error = caller.ask(f"{name}.never", RIGHT)["error"]
    assert error["exc_type"] == "WorkerKilled"
    assert "twice" in error["value"]
    assert len(runs) == 2
    assert queue_depth(broker_uri, f"rpc-{name}") == 0


def test_no_service_is_known_when_nobody_has_ever_served(broker_uri, caller, name):
    with pytest.raises(UnroutableError):
        caller.send("nobody.echo", RIGHT)


def test_handle_message_reads_its_message_as_it_is_in_kombu(
    name, amqp_config, broker_uri, rpc_exchange
):
    seen = []

    class Reading(Rpc):
        def handle_message(self, body, message):
            seen.append(message)
            assert message.payload is body
            super().handle_message(body, message)

    service_cls = make_service(name, read=Reading.decorator(lambda self, value: value))
    service_cls.read.__name__ = "read"
    with running(service_cls, amqp_config):
        with RawCaller(broker_uri, rpc_exchange) as caller:
            correlation_id = caller.send(f"{name}.read", RIGHT, headers={"key": "a secret"})
            assert caller.take()[1]["result"] == 1
    (message,) = seen
    assert message.properties["correlation_id"] == correlation_id
    assert message.properties.get("reply_to") == caller.reply_to
    assert message.properties.get("message_id") is None
    assert "message_id" not in message.properties
    assert message.headers == {"key": "a secret"}
    assert message.delivery_info == {
        "exchange": rpc_exchange,
        "routing_key": f"{name}.read",
        "redelivered": False,
        "delivery_tag": 1,
    }
    assert (message.content_type, message.content_encoding) == ("application/json", "utf-8")
    assert json.loads(message.body) == message.payload == RIGHT
    assert "secret" not in repr(message)


def make_special(service_name, consumer_cls, handle):
    """A service's class with one method, whose requests go through `consumer_cls`."""

    class Special(Rpc):
        rpc_consumer = consumer_cls()
        handle_result = handle

    class Service:
        name = service_name

        @Special.decorator
        def echo(self, value):
            return value

    return Service


def test_consumer_may_find_the_method_in_another_way(name, amqp_config, broker_uri, rpc_exchange):
    class Renaming(RpcConsumer):
        def handle_message(self, body, message):
            provider = self.get_provider_for_method(message.headers["method"])
            provider.handle_message(body, message)

    service_cls = make_special(name, Renaming, Rpc.handle_result)
    with running(service_cls, amqp_config), RawCaller(broker_uri, rpc_exchange) as caller:
        headers = {"method": f"{name}.echo"}
        assert caller.ask(f"{name}.other", RIGHT, headers=headers)["result"] == 1
        error = caller.ask(f"{name}.other", b"{", headers=headers)["error"]
        assert error["exc_type"] == "MalformedRequest"
        headers = {"method": f"{name}.nothing"}
        error = caller.ask(f"{name}.echo", RIGHT, headers=headers)["error"]
        assert (error["exc_type"], error["value"]) == ("MethodNotFound", "nothing")


def test_request_that_handle_result_has_settled_is_not_answered(
    name, amqp_config, broker_uri, rpc_exchange
):
    seen = []

    def settle(self, message, worker_ctx, result=None, exc_info=None):
        seen.append((result, message.redelivered))
        consumer = self.rpc_consumer.consumer
        if result == "answer":
            return consumer.handle_result(message, result, exc_info)
        if result == "requeue" and not message.redelivered:
            consumer.requeue_message(message)
        else:
            consumer.handle_result(message, result, exc_info)
            consumer.ack_message(message)
        consumer.requeue_message(message)  # nothing for one that was settled
        consumer.ack_message(message)
        return result, exc_info

    service_cls = make_special(name, RpcConsumer, settle)
    with running(service_cls, amqp_config), RawCaller(broker_uri, rpc_exchange) as caller:
        for value in ("ack", "requeue"):
            caller.send(f"{name}.echo", {"args": [value], "kwargs": {}})
        wait_until(lambda: len(seen) == 3)
        assert caller.ask(f"{name}.echo", {"args": ["answer"], "kwargs": {}})["result"] == "answer"
        assert caller.left() is None
    assert sorted(seen[:3]) == [("ack", False), ("requeue", False), ("requeue", True)]
    assert queue_depth(broker_uri, f"rpc-{name}") == 0


def test_headers_of_a_request_are_those_of_its_properties():
    for headers in ({}, {"key": 1}):
        header = encode_properties(Properties(headers=headers))
        delivery = Delivery(1, 1, False, "nameko-rpc", "service.method", header, b"")
        message = RpcMessage(delivery, Serialization.from_config({}))
        message.headers["key"] = 2
        assert message.properties["application_headers"] == {"key": 2}


def test_payload_of_a_request_that_cannot_be_read_raises_each_time():
    header = encode_properties(Properties(content_type="application/json"))
    delivery = Delivery(1, 1, False, "nameko-rpc", "service.method", header, b"{")
    message = RpcMessage(delivery, Serialization.from_config({}))
    for _ in range(2):
        with pytest.raises(DecodeError):
            message.payload  # noqa: B018 (the look at it)


def rpc_with(**options):
    """An entrypoint as code for nameko makes one, to set options of the consumer."""

    class MyRpc(Rpc):
        rpc_consumer = RpcConsumer(**options)

    return MyRpc.decorator


def test_unknown_option_of_the_consumer_is_an_error():
    with pytest.raises(TypeError, match="'colour', there are: accept, heartbeat, prefetch_count"):
        RpcConsumer(colour="red")


@pytest.mark.parametrize("options", [{"heartbeat": 0}, {"prefetch_count": -1}, {"accept": "json"}])
def test_unusable_option_of_the_consumer_is_an_error(options):
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        RpcConsumer(**options)


@pytest.mark.parametrize(
    ("options", "agreed"), [({"heartbeat": 7, "prefetch_count": 3}, (7, 3)), ({}, (9, 5))]
)
def test_options_of_the_consumer_win_over_the_configuration(options, agreed):
    class Service:
        name = "service"

        @rpc_with(**options)
        def one(self):
            pass

        @rpc_with(**options)
        def two(self):
            pass

    asked = []
    with FakeBroker(is_mute=lambda _, method: asked.append(method)) as broker:
        config = {"AMQP_URI": broker.uri, "HEARTBEAT": 9, "PREFETCH_COUNT": 5}
        with running(Service, config) as container:
            assert len(container.shared_extensions) == 1
    (tuned,) = [each for each in asked if isinstance(each, spec.Connection.TuneOk)]
    (limited,) = [each for each in asked if isinstance(each, spec.Basic.Qos)]
    assert (tuned.heartbeat, limited.prefetch_count) == agreed


def test_accept_of_the_consumer_wins(name, amqp_config, broker_uri, rpc_exchange):
    service_cls = make_service(name)

    class Service:
        name = service_cls.name

        @rpc_with(accept=["yaml"])
        def echo(self, value):
            return value

    with running(Service, amqp_config):
        with RawCaller(broker_uri, rpc_exchange) as caller:
            error = caller.ask(f"{name}.echo", RIGHT)["error"]
            assert error["exc_type"] == "MalformedRequest"
            body = b"{args: [1], kwargs: {}}"
            answer = caller.ask(f"{name}.echo", body, content_type="application/x-yaml")
            assert answer["result"] == 1


def test_two_services_of_one_entrypoint_class_have_a_consumer_each(container_factory, names):
    my_rpc = rpc_with(prefetch_count=3)

    class One:
        name = names.service("one")

        @my_rpc
        def method(self):
            pass

    class Two:
        name = names.service("two")

        @my_rpc
        def method(self):
            pass

    one, two = (container_factory(each, config={}) for each in (One, Two))
    (ours,), (theirs,) = one.shared_extensions.values(), two.shared_extensions.values()
    assert ours is not theirs


@pytest.mark.parametrize("other", [rpc, rpc_with(prefetch_count=4)])
def test_service_whose_methods_want_different_consumers_does_not_start(
    container_factory, amqp_config, names, other
):
    class Service:
        name = names.service()

        @other
        def first(self):
            pass

        @rpc_with(prefetch_count=3)
        def second(self):
            pass

    container = container_factory(Service, config=amqp_config)
    with pytest.raises(ConfigurationError, match=r"RpcConsumer\(.*\) cannot be both") as caught:
        container.start()
    assert "RpcConsumer(prefetch_count=3)" in str(caught.value)


def test_no_more_is_taken_than_the_prefetch(name, amqp_config, broker_uri, rpc_exchange):
    working = threading.Semaphore(0)
    go_on = threading.Event()

    def work(self):
        working.release()
        assert go_on.wait(TIMEOUT)

    service_cls = make_service(name, work=rpc(work))
    with running(service_cls, amqp_config, max_workers=3, PREFETCH_COUNT=5):
        with RawCaller(broker_uri, rpc_exchange) as caller:
            for _ in range(8):
                caller.send(f"{name}.work", {"args": [], "kwargs": {}})
            for _ in range(3):
                assert working.acquire(timeout=TIMEOUT)
            assert not working.acquire(blocking=False)
            assert queue_depth(broker_uri, f"rpc-{name}") >= 3
            go_on.set()
            for _ in range(8):
                caller.take()


def test_consumer_knows_the_method_of_a_routing_key(container, name, caller):
    (consumer,) = container.shared_extensions.values()
    found = consumer.get_provider_for_method(f"{name}.add")
    assert found.method_name == "add"
    with pytest.raises(MethodNotFound, match="minus"):
        consumer.get_provider_for_method(f"{name}.minus")


def test_consumer_is_back_when_its_queue_was_deleted(
    name, amqp_config, broker_uri, rpc_exchange, caplog
):
    caplog.set_level(logging.WARNING)
    with running(make_service(name), amqp_config):
        with RawCaller(broker_uri, rpc_exchange) as caller:
            assert caller.ask(f"{name}.echo", RIGHT)["result"] == 1
            delete_queue(broker_uri, f"rpc-{name}")
            while True:
                try:
                    answer = caller.ask(f"{name}.echo", RIGHT)
                except UnroutableError:
                    continue  # not declared again yet
                break
            assert answer["result"] == 1
    assert queue_consumers(broker_uri, f"rpc-{name}") == 0
