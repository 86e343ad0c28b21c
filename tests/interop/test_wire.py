"""What threadko and two namekos put on the wire: the same, but for what is said here."""

import json
import re
from typing import Any

import pytest
from pika.exceptions import ChannelClosedByBroker

from tests.conftest import Names
from tests.interop.sides import NAMEKO2, THREADKO, Framework, World, new_name
from tests.rpc.raw import RawCaller, RawService
from tests.support.amqp import RawMessage, declare_queue

pytestmark = pytest.mark.interop

EXCHANGE = "nameko-rpc"
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
REPLY_QUEUE_MILLISECONDS = 300_000

#: What messages carry, besides ids.
ORDINARY = {
    "content_type": "application/json",
    "content_encoding": "utf-8",
    "delivery_mode": 2,
    "priority": 0,
}


def properties_of(message: RawMessage) -> dict[str, Any]:
    """The properties that are set."""
    return {name: value for name, value in vars(message.properties).items() if value is not None}


def test_a_standalone_request_has_the_same_properties_and_body_from_each(
    world: World, framework: Framework, names: Names
) -> None:
    caller, name = world.caller(framework), names.service("interop")
    with RawService(world.uri, EXCHANGE, name) as service:
        caller.begin(name, "method", [((1, "ž"), {"a": None})], context={"language": "cs"})
        request = service.take()
        service.reply(request, "done")

        assert caller.end() == ["done"]

    found = properties_of(request)
    headers = found.pop("headers")
    assert {key: found.pop(key) for key in ORDINARY} == ORDINARY
    assert UUID.fullmatch(found.pop("correlation_id"))
    assert UUID.fullmatch(found.pop("reply_to"))
    # Ours is not executed any more when its caller has gone, and says which message it is.
    assert set(found) == ({"expiration", "message_id"} if framework is THREADKO else set())
    assert set(headers) == {"nameko.language", "nameko.call_id_stack"}
    assert json.loads(request.body) == {"args": [1, "ž"], "kwargs": {"a": None}}
    assert request.method.routing_key == f"{name}.method"


def test_a_services_request_has_the_same_properties_and_body_from_each(
    world: World, framework: Framework, names: Names
) -> None:
    middle, name = world.service(framework), names.service("interop")
    with RawService(world.uri, EXCHANGE, name) as service:
        world.caller(THREADKO).begin(
            middle.name, "forward", [((name, "method", [1], {"b": 2}), {})]
        )
        request = service.take()
        service.reply(request, "done")

        assert world.caller(THREADKO).end() == ["done"]

    found = properties_of(request)
    headers = found.pop("headers")
    assert {key: found.pop(key) for key in ORDINARY} == ORDINARY
    assert UUID.fullmatch(found.pop("correlation_id"))
    assert UUID.fullmatch(found.pop("reply_to"))
    assert set(found) == ({"message_id"} if framework is THREADKO else set())
    assert set(headers) == {"nameko.call_id_stack"}
    assert json.loads(request.body) == {"args": [1], "kwargs": {"b": 2}}


@pytest.mark.parametrize("outcome", ["result", "error"])
def test_a_reply_has_the_same_properties_and_body_from_each(
    world: World, framework: Framework, outcome: str
) -> None:
    target = world.service(framework).name
    with RawCaller(world.uri, EXCHANGE) as caller:
        if outcome == "result":
            sent = caller.send(f"{target}.one", {"args": [[None]], "kwargs": {}})
        else:
            sent = caller.send(f"{target}.fail", {"args": ["KeyError", [1]], "kwargs": {}})
        reply, body = caller.take()

    found = properties_of(reply)
    assert found == {**ORDINARY, "correlation_id": sent, "headers": {}}
    error = {"exc_type": "KeyError", "exc_path": "builtins.KeyError", "exc_args": ["1"]}
    assert body == (
        {"result": [None], "error": None}
        if outcome == "result"
        else {"result": None, "error": {**error, "value": "1"}}
    )


@pytest.mark.parametrize(
    ("method", "args", "error"),
    [
        ("absent", [], {"exc_type": "MethodNotFound", "exc_args": ["absent"], "value": "absent"}),
        (
            "fail",
            ["UnknownService", ["x"]],
            {
                "exc_type": "UnknownService",
                "exc_args": ["x"],
                "value": "Unknown service `x`",
            },
        ),
        (
            "fail",
            ["RemoteError", ["T", "v"]],
            {"exc_type": "RemoteError", "exc_args": ["T v"], "value": "T v"},
        ),
    ],
    ids=["method not found", "unknown service", "remote error"],
)
def test_an_error_that_all_of_them_know_has_namekos_path_from_each(
    world: World, framework: Framework, method: str, args: list[Any], error: dict[str, Any]
) -> None:
    with RawCaller(world.uri, EXCHANGE) as caller:
        body = {"args": args, "kwargs": {}}
        reply = caller.ask(f"{world.service(framework).name}.{method}", body)

    path = f"nameko.exceptions.{error['exc_type']}"
    assert reply == {"result": None, "error": {**error, "exc_path": path}}


def test_a_request_without_correlation_id_is_answered_without_one_by_each(
    world: World, framework: Framework
) -> None:
    with RawCaller(world.uri, EXCHANGE) as caller:
        body = {"args": [7], "kwargs": {}, "more": "is ignored"}
        caller.send(f"{world.service(framework).name}.one", body, correlation_id=None)
        reply, answer = caller.take()

    assert reply.properties.correlation_id is None
    assert answer == {"result": 7, "error": None}


def test_the_queue_of_requests_is_declared_alike_by_each(
    world: World, framework: Framework
) -> None:
    # The broker closes the channel over any difference.
    declare_queue(world.uri, f"rpc-{world.service(framework).name}", durable=True)


@pytest.mark.parametrize("who", ["client", "service"])
def test_the_queue_of_replies_expires_five_minutes_after_its_caller_with_each(
    world: World, framework: Framework, names: Names, who: str
) -> None:
    name = names.service("interop")
    with RawService(world.uri, EXCHANGE, name) as service:
        if who == "client":
            caller = world.caller(framework)
            caller.begin(name, "method")
            stem = "standalone_rpc_proxy" if framework is NAMEKO2 else "standalone_rpc_client"
        else:
            caller = world.caller(THREADKO)
            stem = world.service(framework).name
            caller.begin(stem, "forward", [((name, "method", [], {}), {})])
        request = service.take()
        queue = f"rpc.reply-{stem}-{request.properties.reply_to}"
        declare_queue(
            world.uri, queue, durable=True, arguments={"x-expires": REPLY_QUEUE_MILLISECONDS}
        )
        with pytest.raises(ChannelClosedByBroker, match="x-expires"):
            declare_queue(world.uri, queue, durable=True, arguments={"x-expires": 1000})
        service.reply(request)
        caller.end()


def test_an_expiration_is_counted_in_seconds_when_a_nameko_service_sets_it(
    world: World, nameko: Framework, names: Names
) -> None:
    name = names.service("interop")
    with (
        RawService(world.uri, EXCHANGE, name) as service,
        world.run(nameko, options={"expiration": 7.5}) as middle,
    ):
        world.caller(THREADKO).begin(middle.name, "forward", [((name, "method", [], {}), {})])
        request = service.take()
        service.reply(request)
        world.caller(THREADKO).end()

        answer = world.caller(THREADKO).call(
            middle.name, "forward", [world.service(THREADKO).name, "one", [1], {}]
        )

    assert request.properties.expiration == "7500"
    assert answer == 1


def test_unknown_service_is_told_from_the_same_return_by_each(
    world: World, framework: Framework
) -> None:
    # With a queue nobody consumes from there is somebody to wait for, and no error.
    absent = new_name()
    with RawService(world.uri, EXCHANGE, absent) as service:
        world.caller(framework).begin(absent, "method")
        service.reply(service.take(), "late")

        assert world.caller(framework).end() == ["late"]
