"""Entrypoints: declaring them, and checking arguments."""

import functools
import inspect
from typing import Any

import pytest

from tests.containers.dummies import FakeContainer
from threadko.exceptions import IncorrectSignature
from threadko.extensions import ENTRYPOINT_EXTENSIONS_ATTR, Entrypoint, register_entrypoint


class Fire(Entrypoint):
    def __init__(self, target: Any = None, **kwargs: Any) -> None:
        self.target = target
        super().__init__(**kwargs)


fire = Fire.decorator


def declared(function: Any) -> list[Any]:
    entrypoints: list[Any] = getattr(function, ENTRYPOINT_EXTENSIONS_ATTR)
    return entrypoints


def test_method_is_returned_as_it_is_when_decorated_without_parentheses() -> None:
    def method(self: Any) -> None: ...

    assert fire(method) is method
    (entrypoint,) = declared(method)
    assert type(entrypoint) is Fire


def test_method_is_returned_as_it_is_when_decorated_with_arguments() -> None:
    def method(self: Any) -> None: ...

    assert fire("target", expected_exceptions=ValueError)(method) is method
    (entrypoint,) = declared(method)
    assert entrypoint.target == "target"
    assert entrypoint.expected_exceptions == (ValueError,)


def test_method_is_declared_when_decorated_with_empty_parentheses() -> None:
    @fire()
    def method(self: Any) -> None: ...

    assert len(declared(method)) == 1


def test_several_entrypoints_stand_in_order_of_declaration() -> None:
    @fire("second")
    @fire("first")
    def method(self: Any) -> None: ...

    assert [entrypoint.target for entrypoint in declared(method)] == ["first", "second"]


def test_entrypoint_is_noted_once_when_registered_twice() -> None:
    def method(self: Any) -> None: ...

    entrypoint = Fire()
    register_entrypoint(method, entrypoint)
    register_entrypoint(method, entrypoint)
    assert declared(method) == [entrypoint]


async def coroutine(self: Any) -> None: ...


async def generator(self: Any) -> Any:
    yield


@pytest.mark.parametrize("method", [coroutine, generator])
@pytest.mark.parametrize("decorator", [fire, fire("target")])
def test_async_method_is_refused(decorator: Any, method: Any) -> None:
    with pytest.raises(TypeError, match="'async def'"):
        decorator(method)


@pytest.mark.parametrize("kind", [staticmethod, classmethod])
@pytest.mark.parametrize("decorator", [fire, fire("target")])
def test_what_is_no_plain_method_is_refused(decorator: Any, kind: Any) -> None:
    with pytest.raises(TypeError, match="plain methods only"):
        decorator(kind(lambda self: None))


@pytest.mark.parametrize("wrong", ["ValueError", ["ValueError"], [int]])
def test_expected_exceptions_are_refused_when_they_are_no_exceptions(wrong: Any) -> None:
    with pytest.raises(TypeError, match="exception classes"):
        Fire(expected_exceptions=wrong)


def test_unknown_option_is_refused_by_its_name() -> None:
    with pytest.raises(TypeError, match=r"^Fire has no option 'targett'$"):
        Fire(targett=1)


def test_clone_keeps_what_was_declared() -> None:
    declaration = Fire("t", expected_exceptions=[KeyError], sensitive_arguments=("password",))
    container = FakeContainer()
    clone = declaration.bind(container, "method")
    assert clone.method_name == "method"
    assert clone.container is container
    assert clone.target == "t"
    assert clone.expected_exceptions == (KeyError,)
    assert clone.sensitive_arguments == ("password",)


def test_settle_does_nothing_when_it_is_not_overridden() -> None:
    Fire().bind(FakeContainer(), "method").settle(None, result=1)


def wrapped(method: Any) -> Any:
    @functools.wraps(method)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return method(*args, **kwargs)

    return wrapper


class Service:
    def none(self) -> None: ...
    def one(self, a: Any) -> None: ...
    def two(self, a: Any, b: Any = 1) -> None: ...
    def star(self, a: Any, *args: Any) -> None: ...
    def named(self, a: Any, *, b: Any, c: Any = 1) -> None: ...
    def anything(self, **kwargs: Any) -> None: ...
    def positional(self, a: Any, /, b: Any = 1) -> None: ...
    def both(self, a: Any, /, **kwargs: Any) -> None: ...

    decorated = wrapped(one)


METHODS = [name for name in vars(Service) if not name.startswith("_")]
ARGUMENTS: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    ((), {}),
    ((1,), {}),
    ((1, 2), {}),
    ((1, 2, 3), {}),
    ((), {"a": 1}),
    ((), {"b": 1}),
    ((), {"a": 1, "b": 2}),
    ((1,), {"a": 1}),
    ((1,), {"b": 1}),
    ((1,), {"b": 1, "c": 2}),
    ((), {"a": 1, "z": 2}),
    ((), {"self": 1}),
    ((1,), {"self": 1}),
]


def fits(function: Any, args: Any, kwargs: Any) -> bool:
    try:
        inspect.signature(function, follow_wrapped=False).bind(None, *args, **kwargs)
    except TypeError:
        return False
    return True


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(("args", "kwargs"), ARGUMENTS)
def test_arguments_are_accepted_just_when_the_method_takes_them(
    name: str, args: Any, kwargs: Any
) -> None:
    entrypoint = Fire().bind(FakeContainer(Service), name)
    if fits(getattr(Service, name), args, kwargs):
        entrypoint.check_signature(args, kwargs)
    else:
        with pytest.raises(IncorrectSignature):
            entrypoint.check_signature(args, kwargs)


@pytest.mark.parametrize(
    ("name", "args", "kwargs", "text"),
    [
        ("one", (), {}, "one() missing 1 required positional argument: 'a'"),
        ("one", (1, 2), {}, "one() takes 2 positional arguments but 3 were given"),
        ("one", (), {"z": 1}, "one() got an unexpected keyword argument 'z'"),
    ],
)
def test_refusal_says_what_python_says(name: str, args: Any, kwargs: Any, text: str) -> None:
    entrypoint = Fire().bind(FakeContainer(Service), name)
    with pytest.raises(IncorrectSignature) as caught:
        entrypoint.check_signature(args, kwargs)
    assert caught.value.args == (text,)


def test_refusal_names_method_and_argument_when_it_is_positional_only() -> None:
    entrypoint = Fire().bind(FakeContainer(Service), "positional")
    with pytest.raises(IncorrectSignature, match=r"positional\(\) .*'?a'?"):
        entrypoint.check_signature((), {"a": 1})


def test_signature_is_worked_out_once() -> None:
    class Counted(FakeContainer):
        asked = 0

        @property
        def service_cls(self) -> type:
            self.asked += 1
            return Service

        @service_cls.setter
        def service_cls(self, value: type) -> None: ...

    container = Counted()
    entrypoint = Fire().bind(container, "one")
    for _ in range(3):
        entrypoint.check_signature((1,), {})
    assert container.asked == 1
