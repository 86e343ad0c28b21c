"""What goes wrong on one side is the same error on the other."""

from typing import Any

import pytest

from tests.interop.conftest import Pair
from tests.interop.sides import (
    ALL,
    NAMEKO2,
    NAMEKO3,
    THREADKO,
    CallError,
    Framework,
    World,
    new_name,
)
from tests.rpc.raw import RawCaller

pytestmark = pytest.mark.interop


def raised_by(pair: Pair, method: str, *args: Any, **kwargs: Any) -> CallError:
    """Make a call that must fail, and return what it raised."""
    with pytest.raises(CallError) as caught:
        pair.caller.call(pair.service.name, method, args, kwargs)
    return caught.value


def test_method_not_found_arrives_as_an_instance_when_there_is_no_such_method(pair: Pair) -> None:
    raised = raised_by(pair, "absent")

    assert raised.path == pair.caller.error("MethodNotFound")
    assert pair.caller.error("BadRequest") in raised.classes
    assert raised.arguments == ("absent",)


@pytest.mark.parametrize(
    ("args", "kwargs", "text"),
    [
        ([], {}, "one() missing 1 required positional argument: 'a'"),
        ([1], {"b": 2}, "one() got an unexpected keyword argument 'b'"),
        ([1, 2], {}, "one() takes 2 positional arguments but 3 were given"),
        ([1], {"a": 2}, "one() got multiple values for argument 'a'"),
    ],
    ids=["missing", "unknown", "too many", "twice"],
)
def test_incorrect_signature_arrives_as_an_instance_when_arguments_do_not_fit(
    pair: Pair, args: list[Any], kwargs: dict[str, Any], text: str
) -> None:
    raised = raised_by(pair, "one", *args, **kwargs)

    assert raised.path == pair.caller.error("IncorrectSignature")
    assert pair.caller.error("BadRequest") in raised.classes
    (argument,) = raised.arguments
    assert text in argument


@pytest.mark.parametrize("name", ["MalformedRequest", "MethodNotFound", "IncorrectSignature"])
def test_a_bad_request_arrives_as_an_instance_when_a_method_raises_it(
    pair: Pair, name: str
) -> None:
    raised = raised_by(pair, "fail", name, ["as I say", "7"])

    assert raised.path == pair.caller.error(name)
    assert raised.arguments == ("as I say", "7")


@pytest.mark.parametrize("reader", ALL, ids=str)
@pytest.mark.parametrize("body", [{"args": []}, {"kwargs": {}}, {}], ids=str)
def test_malformed_request_is_an_instance_for_every_caller_when_the_body_lacks_arguments(
    world: World, framework: Framework, reader: Framework, body: Any
) -> None:
    assert reader.python  # or the test is skipped
    with RawCaller(world.uri, "nameko-rpc") as raw:
        reply = raw.ask(f"{world.service(framework).name}.echo", body)

    raised = world.caller(reader).deserialize(reply["error"])

    assert reply["result"] is None
    assert raised.path == world.caller(reader).error("MalformedRequest")
    assert raised.arguments == ("Message missing `args` or `kwargs`",)


@pytest.mark.parametrize(
    ("kind", "args", "value"),
    [
        ("ValueError", ["broken ☃"], "broken ☃"),
        ("ValueError", [], ""),
        ("ValueError", ["broken", 7], "('broken', 7)"),
        ("KeyError", ["key"], "'key'"),
        ("RuntimeError", [None], "None"),
        ("RuntimeError", [{"a": [1, None]}], "{'a': [1, None]}"),
        ("RuntimeError", [b"\xff"], "b'\\xff'"),
        ("RuntimeError", ["\N{SNAKE}\x00\u05e9"], "\N{SNAKE}\x00\u05e9"),
        ("FileNotFoundError", [2, "No such file"], "[Errno 2] No such file"),
        ("StopIteration", [3], "3"),
        ("MuteError", [], "[__unicode__ failed]"),
        ("ShelfError", ["a", 1], ["a", "1"]),
        ("ConfigurationError", ["wrong"], "wrong"),
        ("RpcTimeout", [], ""),
        ("UnknownService", ["other"], "Unknown service `other`"),
        ("RemoteError", ["ValueError", "broken"], "ValueError broken"),
    ],
    ids=str,
)
def test_a_remote_error_carries_type_and_text_when_a_method_raises(
    pair: Pair, kind: str, args: list[Any], value: Any
) -> None:
    raised = raised_by(pair, "fail", kind, args)

    assert raised.path == pair.caller.error("RemoteError")
    assert raised.exc_type == kind
    assert raised.value == value
    assert raised.text == f"{kind} {value}"


def test_a_registered_error_arrives_as_an_instance_with_its_arguments_as_text(pair: Pair) -> None:
    raised = raised_by(pair, "fail", "OutOfStockError", ["tea ☃", 3, None, [1, {"a": 1.5}]])

    assert raised.path == "tests.interop.contract.OutOfStockError"
    assert raised.arguments == ("tea ☃", "3", "None", ["1", {"a": "1.5"}])


@pytest.mark.parametrize(
    ("called", "text"), [(THREADKO, "b'ab'"), (NAMEKO2, ["97", "98"]), (NAMEKO3, ["97", "98"])]
)
def test_bytes_in_an_error_are_text_from_threadko_and_a_list_from_nameko(
    world: World, called: Framework, text: Any
) -> None:
    assert called.python  # or the test is skipped
    pair = Pair(world.caller(THREADKO), world.service(called))

    assert raised_by(pair, "fail", "OutOfStockError", [b"ab"]).arguments == (text,)


def test_a_registered_error_that_cannot_be_made_is_a_remote_error_in_threadko_only(
    world: World, nameko: Framework
) -> None:
    # Its constructor takes one argument, and two are sent.
    in_threadko = raised_by(
        Pair(world.caller(THREADKO), world.service(nameko)), "fail", "AwkwardError", ["why"]
    )
    in_nameko = raised_by(
        Pair(world.caller(nameko), world.service(THREADKO)), "fail", "AwkwardError", ["why"]
    )

    assert in_threadko.path == "threadko.exceptions.RemoteError"
    assert (in_threadko.exc_type, in_threadko.value) == ("AwkwardError", "('why', 'none')")
    assert in_nameko.path == "builtins.TypeError"


@pytest.mark.parametrize("kind", ["SystemExit", "KeyboardInterrupt"])
def test_nameko_hears_of_it_when_a_threadko_method_asks_to_leave_the_process(
    world: World, nameko: Framework, kind: str
) -> None:
    pair = Pair(world.caller(nameko), world.service(THREADKO))

    assert raised_by(pair, "fail", kind, ["now"]).exc_type == kind
    assert pair.caller.call(pair.service.name, "result", [1]) == 1


def test_unknown_service_is_raised_when_there_is_no_queue(
    framework: Framework, world: World
) -> None:
    caller, absent = world.caller(framework), new_name()

    with pytest.raises(CallError) as caught:
        caller.call(absent, "anything")

    assert caught.value.path == caller.error("UnknownService")
    assert caught.value.arguments == (absent,)
    assert caught.value.text == f"Unknown service `{absent}`"


def test_unknown_service_is_a_remote_error_when_a_service_in_between_met_it(pair: Pair) -> None:
    absent = new_name()

    raised = raised_by(pair, "forward", absent, "anything", [], {})

    assert raised.path == pair.caller.error("RemoteError")
    assert (raised.exc_type, raised.value) == ("UnknownService", f"Unknown service `{absent}`")


def test_an_error_tells_of_the_error_below_it_when_it_comes_over_three_hops(
    world: World, frameworks: tuple[Framework, Framework]
) -> None:
    calling, called = frameworks
    pair = Pair(world.caller(calling), world.service(called))
    last = world.service(calling).name

    remote = raised_by(pair, "forward", last, "fail", ["ValueError", ["broken"]], {})
    instance = raised_by(pair, "forward", last, "absent", [], {})

    assert (remote.exc_type, remote.value) == ("RemoteError", "ValueError broken")
    assert instance.path == pair.caller.error("MethodNotFound")
    assert instance.arguments == ("absent",)
