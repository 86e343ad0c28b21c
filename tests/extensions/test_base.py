"""Extensions: clone and bind, what they own, sharing."""

import threading
from typing import Any

import pytest

from tests.containers.dummies import FakeContainer
from threadko.extensions import (
    DependencyProvider,
    Entrypoint,
    Extension,
    ProviderCollector,
    SharedExtension,
    declared_members,
    is_dependency,
    is_entrypoint,
    is_extension,
    iter_extensions,
)


class Simple(Extension):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.given = (args, kwargs)


class Explosive:
    """A value that must not be looked at."""

    @property
    def __class__(self) -> Any:
        raise AssertionError("looked at")


class Owner(Extension):
    second = Simple("2")
    first = Simple("1")

    def __init__(self) -> None:
        self.third = Simple("3")

    @property
    def trap(self) -> Any:
        raise AssertionError("a property was run")


def test_clone_gets_the_arguments_of_the_declaration() -> None:
    declaration = Simple(1, key="value")
    container = FakeContainer()
    clone = declaration.bind(container)
    assert clone is not declaration
    assert clone.given == ((1,), {"key": "value"})
    assert clone.container is container


def test_declaration_stays_unbound_when_clones_are_bound() -> None:
    declaration = Simple()
    clone = declaration.bind(FakeContainer())
    other = declaration.bind(FakeContainer())
    assert not declaration.is_bound()
    assert clone.is_bound()
    assert clone is not other


def test_binding_is_refused_when_it_is_bound() -> None:
    with pytest.raises(RuntimeError, match="bound already"):
        Simple().bind(FakeContainer()).bind(FakeContainer())


def test_arguments_are_refused_when_no_class_takes_them() -> None:
    with pytest.raises(TypeError):
        Extension("argument")


def test_owned_extensions_are_bound_with_their_owner() -> None:
    container = FakeContainer()
    owner = Owner().bind(container)
    for name, given in {"second": "2", "first": "1", "third": "3"}.items():
        assert getattr(owner, name).container is container
        assert getattr(owner, name).given == ((given,), {})
    assert Owner.first.container is None


def test_extension_that_a_subclass_takes_away_is_not_owned() -> None:
    class Lesser(Owner):
        first = None  # type: ignore[assignment]

    owner = Lesser().bind(FakeContainer())
    assert owner.first is None
    assert len(list(iter_extensions(owner))) == 2


def test_properties_are_not_run_when_extensions_are_sought() -> None:
    owner = Owner().bind(FakeContainer())
    owner.value = Explosive()
    assert [item.given[0][0] for item in iter_extensions(owner)] == ["2", "1", "3"]


def test_children_come_before_their_parents() -> None:
    class Middle(Extension):
        inner = Simple()

    class Outer(Extension):
        middle = Middle()

    outer = Outer()
    assert list(iter_extensions(outer)) == [Middle.inner, Outer.middle]


def test_each_extension_comes_once_when_owned_twice_or_in_a_circle() -> None:
    class Left(Extension):
        pass

    parent, child = Left(), Left()
    parent.first = parent.second = child  # type: ignore[attr-defined]
    child.back = parent  # type: ignore[attr-defined]
    assert list(iter_extensions(parent)) == [child]


def test_members_come_in_order_of_declaration_with_bases_first() -> None:
    class Base:
        b = 1
        a = 2

    class Derived(Base):
        c = 3
        b = 4

    instance = Derived()
    instance.d = 5  # type: ignore[attr-defined]
    members = {key: item for key, item in declared_members(instance).items() if len(key) == 1}
    assert list(members.items()) == [("b", 4), ("a", 2), ("c", 3), ("d", 5)]


def test_kinds_are_told_apart() -> None:
    values = [Extension(), DependencyProvider(), Entrypoint(), Explosive(), Extension]
    assert [is_extension(value) for value in values] == [True, True, True, False, False]
    assert [is_dependency(value) for value in values] == [False, True, False, False, False]
    assert [is_entrypoint(value) for value in values] == [False, False, True, False, False]


def test_hooks_do_nothing_when_they_are_not_overridden() -> None:
    extension = Extension().bind(FakeContainer())
    hooks = ("setup", "start", "ready", "open", "cancel", "stop", "kill")
    assert [getattr(extension, hook)() for hook in hooks] == [None] * 7


def test_repr_tells_whether_it_is_bound() -> None:
    assert repr(Simple()).startswith("<Simple unbound at ")
    assert repr(Simple().bind(FakeContainer())).startswith("<Simple bound at ")


class Shared(SharedExtension):
    pass


class Keyed(SharedExtension):
    def __init__(self, key: str) -> None:
        self.key = key

    @property
    def sharing_key(self) -> object:
        return type(self), self.key


def test_shared_extension_is_one_for_each_container() -> None:
    one, other = FakeContainer(), FakeContainer()
    assert Shared().bind(one) is Shared().bind(one)
    assert Shared().bind(one) is not Shared().bind(other)


def test_sharing_key_tells_shared_extensions_apart() -> None:
    container = FakeContainer()
    assert Keyed("a").bind(container) is Keyed("a").bind(container)
    assert Keyed("a").bind(container) is not Keyed("b").bind(container)


def test_shared_extension_is_one_when_many_threads_bind_at_once() -> None:
    container = FakeContainer()
    barrier = threading.Barrier(8)
    bound: list[Any] = []

    def bind() -> None:
        barrier.wait()
        bound.append(Shared().bind(container))

    threads = [threading.Thread(target=bind) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(bound) == 8
    assert all(item is bound[0] for item in bound)


def test_mixin_gets_its_init_when_it_stands_behind() -> None:
    class Server(SharedExtension, ProviderCollector):
        pass

    Server().bind(FakeContainer()).register_provider("provider")
