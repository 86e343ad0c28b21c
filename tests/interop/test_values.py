"""Arguments and results arrive as they were sent, whichever side is threadko."""

from typing import Any

import pytest

from tests.interop.conftest import Pair
from tests.interop.contract import ARGUMENTS, CHANGED, VALUES
from tests.interop.sides import THREADKO, CallError, Framework, World

pytestmark = pytest.mark.interop


@pytest.mark.parametrize(("args", "kwargs"), ARGUMENTS.values(), ids=ARGUMENTS)
def test_arguments_come_back_unchanged_when_they_are_echoed(
    pair: Pair, args: list[Any], kwargs: dict[str, Any]
) -> None:
    echo = pair.caller.call(pair.service.name, "echo", args, kwargs)

    assert echo == {"args": args, "kwargs": kwargs}


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_a_value_is_the_same_for_the_service_and_for_the_caller(pair: Pair, value: Any) -> None:
    there, back = (
        pair.caller.call(pair.service.name, method, [value]) for method in ("seen_as", "result")
    )

    assert there == repr(value)
    assert repr(back) == repr(value)


@pytest.mark.parametrize(("sent", "received"), CHANGED.values(), ids=CHANGED)
def test_a_value_becomes_its_nearest_relation_when_json_has_no_form_for_it(
    pair: Pair, sent: Any, received: Any
) -> None:
    there, back = (
        pair.caller.call(pair.service.name, method, [sent]) for method in ("seen_as", "result")
    )

    assert there == repr(received)
    assert repr(back) == repr(received)


def test_an_object_arrives_as_what_it_says_of_itself_when_it_has_a_json_method(pair: Pair) -> None:
    assert pair.caller.call(pair.service.name, "reduced") == {"reduced": True}


def test_all_values_pass_when_one_service_calls_another(
    world: World, frameworks: tuple[Framework, Framework]
) -> None:
    calling, called = (world.service(each) for each in frameworks)
    values = list(VALUES.values())

    back = world.caller(THREADKO).call(
        calling.name, "forward", [called.name, "result", [values], {}]
    )

    assert repr(back) == repr(values)


def test_keyword_arguments_pass_when_one_service_calls_another(
    world: World, frameworks: tuple[Framework, Framework]
) -> None:
    calling, called = (world.service(each) for each in frameworks)
    args, kwargs = ARGUMENTS["rich"]

    echo = world.caller(THREADKO).call(calling.name, "forward", [called.name, "echo", args, kwargs])

    assert echo == {"args": args, "kwargs": kwargs}


def test_the_caller_hears_of_it_when_a_result_cannot_be_serialised(pair: Pair) -> None:
    with pytest.raises(CallError) as caught:
        pair.caller.call(pair.service.name, "unserialisable")

    assert caught.value.path == pair.caller.error("RemoteError")
    assert caught.value.exc_type == "UnserializableValueError"
    assert caught.value.value.startswith("Unserializable value: `{'an': <object object at")


def test_threadko_refuses_half_a_character_which_nameko_lets_through(
    world: World, nameko: Framework
) -> None:
    # A lone surrogate has an escaped form in JSON, and no form in UTF-8 or in a database.
    with pytest.raises(CallError, match="surrogate") as at_caller:
        world.caller(THREADKO).call(world.service(nameko).name, "result", ["\ud800"])
    with pytest.raises(CallError) as at_service:
        world.caller(nameko).call(world.service(THREADKO).name, "result", ["\ud800"])

    assert at_caller.value.path == "threadko.exceptions.EncodeError"
    assert at_service.value.exc_type == "UnserializableValueError"
