"""Peers that nameko users have: old ones, careless ones, and one that listens to everything."""

import json
from typing import Any

import pytest

from tests.conftest import Names
from tests.interop.sides import THREADKO, CallError, Framework, World, new_name
from tests.rpc.raw import RawService
from tests.support.amqp import declare_queue, delete_queue, expect_message
from tests.support.timing import TIMEOUT

pytestmark = pytest.mark.interop

EXCHANGE = "nameko-rpc"


@pytest.mark.parametrize(
    ("error", "exc_type", "value"),
    [
        (
            {"exc_type": "KeyError", "value": "'key'", "traceback": "Traceback (most recent ..."},
            "KeyError",
            "'key'",
        ),
        ({"exc_type": "KeyError", "value": ["not", "text"]}, "KeyError", ["not", "text"]),
        (
            {"exc_type": "E", "exc_path": "unheard.of.E", "exc_args": [1], "value": "v"},
            "E",
            "v",
        ),
    ],
    ids=["of an old nameko", "with a list", "of another package"],
)
def test_a_remote_error_is_made_from_what_there_is_by_each(
    world: World,
    framework: Framework,
    names: Names,
    error: dict[str, Any],
    exc_type: str,
    value: Any,
) -> None:
    caller, name = world.caller(framework), names.service("interop")
    with RawService(world.uri, EXCHANGE, name) as service:
        caller.begin(name, "method")
        body = json.dumps({"result": None, "error": error}).encode()
        service.reply_raw(service.take(), body)

        with pytest.raises(CallError) as caught:
            caller.end()

    assert caught.value.path == caller.error("RemoteError")
    assert (caught.value.exc_type, caught.value.value) == (exc_type, value)


def test_an_instance_is_made_when_its_error_comes_without_arguments(
    world: World, framework: Framework
) -> None:
    error = {"exc_path": "nameko.exceptions.MethodNotFound", "exc_type": "MethodNotFound"}

    raised = world.caller(framework).deserialize(error)

    assert raised.path == world.caller(framework).error("MethodNotFound")
    assert raised.arguments == ()


def test_the_right_reply_is_waited_for_when_others_come_first(
    world: World, framework: Framework, names: Names
) -> None:
    caller, name = world.caller(framework), names.service("interop")
    with RawService(world.uri, EXCHANGE, name) as service:
        caller.begin(name, "method", [((number,), {}) for number in range(3)])
        one, two, three = (service.take() for _ in range(3))
        service.reply(two, "for nobody", correlation_id=None)
        service.reply(two, "for somebody else", correlation_id=new_name())
        service.reply(one, "first")
        service.reply(three, "third")
        service.reply(two, "second")

        assert caller.end() == ["first", "second", "third"]


def test_the_first_reply_counts_when_threadko_is_answered_twice(world: World, names: Names) -> None:
    # Of a nameko's client it depends on how many replies it reads before it looks.
    caller, name = world.caller(THREADKO), names.service("interop")
    with RawService(world.uri, EXCHANGE, name) as service:
        caller.begin(name, "method", [((number,), {}) for number in range(2)])
        one, two = service.take(), service.take()
        service.reply(one, "first")
        service.reply(one, "first again")
        service.reply(two, "second")

        assert caller.end() == ["first", "second"]


def test_an_old_reply_without_error_is_a_result(
    world: World, framework: Framework, names: Names
) -> None:
    caller, name = world.caller(framework), names.service("interop")
    with RawService(world.uri, EXCHANGE, name) as service:
        caller.begin(name, "method")
        service.reply_raw(service.take(), b'{"result": 7}')

        assert caller.end() == [7]


def test_calls_pass_and_an_absent_service_is_silence_when_a_tap_takes_all_messages(
    world: World, frameworks: tuple[Framework, Framework], rpc_exchange: str
) -> None:
    calling, called = frameworks
    caller = world.caller(calling)
    config = {"rpc_exchange": rpc_exchange, "BROKER_START_TIMEOUT": TIMEOUT}
    with world.run(called, config=config) as service:
        tap = declare_queue(world.uri, new_name(), exchange=rpc_exchange, routing_key="#")
        try:
            answer = caller.call(service.name, "one", [7], config=config)
            # There is a queue for its requests now, that of the tap.
            with pytest.raises(CallError) as caught:
                caller.call(new_name(), "one", [7], config=config, timeout=0.5)
            request, reply = (expect_message(world.uri, tap) for _ in range(2))
        finally:
            delete_queue(world.uri, tap)

    assert answer == 7
    assert caught.value.path == caller.error("RpcTimeout")
    assert json.loads(request.body) == {"args": [7], "kwargs": {}}
    assert json.loads(reply.body) == {"result": 7, "error": None}
