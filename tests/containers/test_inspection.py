"""What a service class declares."""

from typing import Any

import pytest

from tests.containers.dummies import Dummy, dummy
from threadko.containers.inspection import (
    get_service_name,
    in_start_order,
    iter_dependencies,
    iter_entrypoints,
)
from threadko.exceptions import ConfigurationError
from threadko.extensions import DependencyProvider, Extension, SharedExtension


class Base:
    name = "base"
    zebra = DependencyProvider()

    @dummy
    def second(self) -> None: ...

    @dummy
    def first(self) -> None: ...

    def plain(self) -> None: ...


class Derived(Base):
    ant = DependencyProvider()

    def first(self) -> None: ...

    @dummy
    @Dummy.decorator()
    def third(self) -> None: ...

    @property
    def trap(self) -> Any:
        raise AssertionError("a property was run")


def test_name_is_that_of_the_class_or_its_base() -> None:
    assert get_service_name(Base) == "base"
    assert get_service_name(Derived) == "base"


@pytest.mark.parametrize("name", [None, 7, "", b"x", property(lambda self: "x")])
def test_name_is_refused_when_it_is_no_text(name: Any) -> None:
    service = type("Nameless", (), {"name": name})
    with pytest.raises(ConfigurationError, match=r"test_inspection\.Nameless.*'name'"):
        get_service_name(service)


def test_name_is_refused_when_there_is_none() -> None:
    with pytest.raises(ConfigurationError, match=r"test_inspection\.Nameless.*'name'"):
        get_service_name(type("Nameless", (), {}))


@pytest.mark.parametrize("given", [Base(), "base", None])
def test_name_is_refused_when_it_is_no_class(given: Any) -> None:
    with pytest.raises(ConfigurationError, match="a service is a class"):
        get_service_name(given)


def test_dependencies_come_in_order_of_declaration() -> None:
    assert [name for name, _ in iter_dependencies(Derived)] == ["zebra", "ant"]


def test_entrypoints_come_in_order_of_declaration() -> None:
    assert [name for name, _ in iter_entrypoints(Base)] == ["second", "first"]


def test_entrypoint_is_gone_when_the_method_is_overridden_without_it() -> None:
    assert [name for name, _ in iter_entrypoints(Derived)] == ["second", "third", "third"]


def test_start_order_puts_each_after_what_it_owns_and_shared_ones_once() -> None:
    class Shared(SharedExtension):
        pass

    class Owner(Extension):
        def __init__(self, shared: Any) -> None:
            self.shared = shared
            self.own = Extension()

    shared = Shared()
    first, second = Owner(shared), Owner(shared)
    assert in_start_order([first, second]) == (shared, first.own, first, second.own, second)
