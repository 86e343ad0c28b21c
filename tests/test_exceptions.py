"""The error tree, and its wire form in both directions."""

import concurrent.futures
import copy
import inspect
import json
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from threadko import exceptions
from threadko.exceptions import (
    BadRequest,
    BrokerError,
    BrokerRefused,
    ConfigurationError,
    ContainerBeingKilled,
    ContainerStopped,
    DecodeError,
    EncodeError,
    ExtensionNotFound,
    IncorrectSignature,
    LifecycleError,
    MalformedRequest,
    MethodNotFound,
    PublishFailed,
    RemoteError,
    ReplyQueueExpiredWithPendingReplies,
    RpcTimeout,
    ThreadkoError,
    UndeliverableMessage,
    UnknownService,
    UnserializableValueError,
    WorkerKilled,
    WorkerPoolFull,
    deserialize,
    deserialize_to_instance,
    get_module_path,
    registry,
    safe_for_serialization,
    serialize,
)

ALL_CLASSES = [
    value
    for name, value in vars(exceptions).items()
    if inspect.isclass(value)
    and issubclass(value, BaseException)
    and value.__module__ == exceptions.__name__
    and not name.startswith("_")
]


class Speechless:
    def __str__(self) -> str:
        raise ValueError("no text")

    __repr__ = __str__


class Impostor:
    @property
    def __class__(self) -> type:
        raise ValueError("no class")

    def __str__(self) -> str:
        return "impostor"


class Breaking:
    def __iter__(self) -> Iterator[int]:
        yield 1
        raise ValueError("broken")

    def __str__(self) -> str:
        return "breaking"


class Endless:
    def __iter__(self) -> Iterator[str]:
        while True:
            yield "x"


@pytest.fixture
def clean_registry() -> Iterator[None]:
    before = dict(registry)
    yield
    registry.clear()
    registry.update(before)


@pytest.mark.parametrize("exc_type", ALL_CLASSES)
def test_every_class_stands_under_the_root_and_in_the_drawing_and_in_all(
    exc_type: type[BaseException],
) -> None:
    assert issubclass(exc_type, ThreadkoError) or exc_type is WorkerKilled
    assert exceptions.__doc__ is not None
    assert f" {exc_type.__name__}" in exceptions.__doc__
    assert exc_type.__name__ in exceptions.__all__


@pytest.mark.parametrize(
    ("exc_type", "family"),
    [
        (BrokerRefused, BrokerError),
        (BrokerRefused, ConfigurationError),
        (ContainerStopped, ContainerBeingKilled),
        (DecodeError, ValueError),
        (EncodeError, ValueError),
        (ExtensionNotFound, AttributeError),
        (MalformedRequest, BadRequest),
        (ReplyQueueExpiredWithPendingReplies, BrokerError),
        (RpcTimeout, TimeoutError),
        (RpcTimeout, concurrent.futures.TimeoutError),
        (UndeliverableMessage, PublishFailed),
        (WorkerPoolFull, LifecycleError),
    ],
)
def test_an_error_is_caught_as_its_family(exc_type: type, family: type) -> None:
    assert issubclass(exc_type, family)


def test_worker_killed_passes_an_except_exception() -> None:
    assert not issubclass(WorkerKilled, Exception)


def test_rpc_timeout_has_text_and_args_of_its_own() -> None:
    error = RpcTimeout("too late")
    assert (str(error), error.args) == ("too late", ("too late",))
    assert RpcTimeout().args == ()


def test_remote_error_tells_type_and_value() -> None:
    error = RemoteError("ValueError", "no good")
    assert (error.exc_type, error.value, str(error)) == (
        "ValueError",
        "no good",
        "ValueError no good",
    )


def test_remote_error_survives_pickling_and_copying() -> None:
    error = RemoteError("ValueError", "no good")
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert (other.exc_type, other.value, other.args) == ("ValueError", "no good", error.args)


def test_unknown_service_names_the_service() -> None:
    error = UnknownService("x")
    assert (error._service_name, error.args, str(error)) == ("x", ("x",), "Unknown service `x`")


def test_unserializable_value_error_shows_the_repr() -> None:
    error = UnserializableValueError({1})
    assert (error.repr_value, error.args) == ("{1}", ())
    assert str(error) == "Unserializable value: `{1}`"


def test_unserializable_value_error_is_made_when_repr_fails() -> None:
    assert UnserializableValueError(Speechless()).repr_value == "[__repr__ failed]"


def test_unserializable_value_error_cuts_a_very_long_repr() -> None:
    assert len(UnserializableValueError("x" * 1_000_000).repr_value) < 3_000


def test_module_path_is_dotted() -> None:
    assert get_module_path(ValueError) == "builtins.ValueError"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("text", "text"),
        (1, "1"),
        (None, "None"),
        (True, "True"),
        (b"ab\xff", "b'ab\\xff'"),
        (bytearray(b"a"), "bytearray(b'a')"),
        ([1, "a", None], ["1", "a", "None"]),
        ((1, (2,)), ["1", ["2"]]),
        ({"a": 1, 2: [3]}, {"a": "1", "2": ["3"]}),
        ({(1, 2): 3}, {"(1, 2)": "3"}),
        ((i for i in range(2)), ["0", "1"]),
        (Speechless(), "[__unicode__ failed]"),
        ([Speechless(), 1], ["[__unicode__ failed]", "1"]),
        ({Speechless(): 1}, {"[__unicode__ failed]": "1"}),
        (Breaking(), "breaking"),
        ("lone \ud800", "lone \\ud800"),
    ],
)
def test_a_value_becomes_strings_lists_and_dicts(value: object, expected: object) -> None:
    assert safe_for_serialization(value) == expected


def test_a_value_that_hides_its_class_becomes_a_placeholder() -> None:
    # Made here, for pytest cannot take it as a parameter.
    assert safe_for_serialization(Impostor()) == "[__unicode__ failed]"


def test_a_subclass_of_str_becomes_a_plain_str() -> None:
    class Loud(str):
        __slots__ = ()

        def __str__(self) -> str:
            return "LOUD"

    assert type(safe_for_serialization(Loud("quiet"))) is str


def test_an_endless_iterable_is_cut() -> None:
    assert 0 < len(safe_for_serialization(Endless())) < 100_000


def test_a_cycle_is_cut() -> None:
    cycle: list[Any] = ["a"]
    cycle.append(cycle)
    assert safe_for_serialization(cycle) == ["a", "[...]"]


def test_the_same_value_twice_is_no_cycle() -> None:
    shared = ["a"]
    assert safe_for_serialization([shared, shared]) == [["a"], ["a"]]


def test_deep_nesting_is_cut() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert "[...]" in json.dumps(safe_for_serialization(deep))


def test_a_file_is_not_read() -> None:
    with Path(__file__).open() as file:
        assert "TextIOWrapper" in safe_for_serialization(file)


def test_an_exception_travels_with_type_path_args_and_text() -> None:
    assert serialize(ValueError("bad", 1)) == {
        "exc_type": "ValueError",
        "exc_path": "builtins.ValueError",
        "exc_args": ["bad", "1"],
        "value": "('bad', 1)",
    }


@pytest.mark.parametrize(
    ("exc", "args", "value"),
    [
        (MethodNotFound("m"), ["m"], "m"),
        (IncorrectSignature("one() missing"), ["one() missing"], "one() missing"),
        (UnknownService("x"), ["x"], "Unknown service `x`"),
        (RemoteError("T", "v"), ["T v"], "T v"),
        (UnserializableValueError({1}), [], "Unserializable value: `{1}`"),
    ],
)
def test_an_error_that_nameko_has_travels_under_its_path(
    exc: Exception, args: list[str], value: str
) -> None:
    name = type(exc).__name__
    assert serialize(exc) == {
        "exc_type": name,
        "exc_path": f"nameko.exceptions.{name}",
        "exc_args": args,
        "value": value,
    }


def test_an_error_that_nameko_lacks_travels_under_our_path() -> None:
    assert serialize(PublishFailed())["exc_path"] == "threadko.exceptions.PublishFailed"


def test_a_users_class_with_a_name_of_ours_keeps_its_path() -> None:
    own = type("MethodNotFound", (Exception,), {"__module__": "shop.errors"})
    assert serialize(own())["exc_path"] == "shop.errors.MethodNotFound"


@pytest.mark.parametrize("make", [Speechless, Breaking, Endless, Impostor, lambda: "\ud800"])
def test_serialize_makes_encodable_data_when_an_argument_misbehaves(
    make: Callable[[], object],
) -> None:
    data = serialize(ValueError(make()))
    json.dumps(data, ensure_ascii=False).encode("utf-8")
    assert data["exc_type"] == "ValueError"


def test_serialize_makes_data_when_the_exception_itself_misbehaves() -> None:
    class AwfulError(Exception):
        @property
        def args(self) -> Any:
            raise ValueError("no args")

        def __str__(self) -> str:
            raise ValueError("no text")

    data = serialize(AwfulError())
    assert (data["exc_args"], data["value"]) == ([], "[__unicode__ failed]")


def test_serialize_makes_a_list_of_args_that_are_none() -> None:
    class OddError(Exception):
        args = 5  # type: ignore[assignment]

    assert serialize(OddError())["exc_args"] == ["5"]


def test_an_iterable_exception_sends_a_list_as_its_value() -> None:
    class ManyError(Exception):
        def __iter__(self) -> Iterator[str]:
            return iter(["a", "b"])

    assert serialize(ManyError())["value"] == ["a", "b"]


@pytest.mark.parametrize("prefix", ["nameko", "threadko"])
@pytest.mark.parametrize("exc_type", [MalformedRequest, MethodNotFound, IncorrectSignature])
def test_a_framework_error_arrives_as_itself_under_both_paths(
    prefix: str, exc_type: type[Exception]
) -> None:
    name = exc_type.__name__
    error = deserialize(
        {"exc_type": name, "exc_path": f"{prefix}.exceptions.{name}", "exc_args": ["why"]}
    )
    assert type(error) is exc_type
    assert error.args == ("why",)


def test_an_unregistered_error_arrives_as_remote_error() -> None:
    error = deserialize(serialize(ValueError("bad")))
    assert isinstance(error, RemoteError)
    assert (error.exc_type, error.value) == ("ValueError", "bad")


@pytest.mark.usefixtures("clean_registry")
def test_a_registered_class_arrives_as_an_instance() -> None:
    @deserialize_to_instance
    class CustomError(Exception):
        pass

    error = deserialize(serialize(CustomError("a", 1)))
    assert type(error) is CustomError
    assert error.args == ("a", "1")


@pytest.mark.usefixtures("clean_registry")
def test_remote_error_arrives_when_the_constructor_wants_other_arguments() -> None:
    @deserialize_to_instance
    class PickyError(Exception):
        def __init__(self, *, code: int) -> None:
            super().__init__(f"code {code}")

    error = deserialize(serialize(PickyError(code=1)))
    assert isinstance(error, RemoteError)
    assert (error.exc_type, error.value) == ("PickyError", "code 1")


@pytest.mark.usefixtures("clean_registry")
def test_remote_error_arrives_when_the_registered_class_makes_no_exception() -> None:
    registry["shop.Odd"] = str  # type: ignore[assignment]
    assert isinstance(deserialize({"exc_path": "shop.Odd"}), RemoteError)


@pytest.mark.usefixtures("clean_registry")
@pytest.mark.parametrize("exc_type", [SystemExit, KeyboardInterrupt, WorkerKilled])
def test_remote_error_arrives_when_the_registered_class_would_end_the_caller(
    exc_type: type[BaseException],
) -> None:
    registry["shop.End"] = exc_type
    assert isinstance(deserialize({"exc_path": "shop.End"}), RemoteError)


@pytest.mark.usefixtures("clean_registry")
@pytest.mark.parametrize("exc_type", [SystemExit, GeneratorExit])
def test_remote_error_arrives_when_the_constructor_would_end_the_caller(
    exc_type: type[BaseException],
) -> None:
    @deserialize_to_instance
    class EndingError(Exception):
        def __init__(self) -> None:
            raise exc_type

    error = deserialize({"exc_type": "EndingError", "exc_path": get_module_path(EndingError)})
    assert isinstance(error, RemoteError)


@pytest.mark.usefixtures("clean_registry")
def test_a_class_registered_under_namekos_path_is_found() -> None:
    registry["nameko.exceptions.Custom"] = KeyError
    assert type(deserialize({"exc_path": "nameko.exceptions.Custom"})) is KeyError


@pytest.mark.parametrize(
    ("data", "exc_type", "value"),
    [
        ({}, None, ""),
        ({"exc_type": "E", "value": "v", "traceback": "old"}, "E", "v"),
        ({"exc_type": 5, "exc_path": ["x"], "exc_args": "abc", "value": ["a"]}, "5", ["a"]),
        (None, None, "None"),
        ("failed", None, "failed"),
        ([1], None, ["1"]),
    ],
)
def test_any_data_from_the_wire_becomes_a_remote_error(
    data: object, exc_type: str | None, value: object
) -> None:
    error = deserialize(data)
    assert isinstance(error, RemoteError)
    assert (error.exc_type, error.value) == (exc_type, value)


def test_arguments_that_are_no_list_are_ignored() -> None:
    error = deserialize({"exc_path": "nameko.exceptions.MethodNotFound", "exc_args": "abc"})
    assert type(error) is MethodNotFound
    assert error.args == ()
