"""Dependency providers."""

from tests.containers.dummies import FakeContainer
from threadko.extensions import DependencyProvider


def test_clone_knows_its_attribute() -> None:
    declaration = DependencyProvider()
    container = FakeContainer()
    clone = declaration.bind(container, "database")
    assert (clone.attr_name, clone.container) == ("database", container)
    assert declaration.attr_name == ""


def test_hooks_do_nothing_when_they_are_not_overridden() -> None:
    provider = DependencyProvider()
    ctx = object()
    assert provider.get_dependency(ctx) is None  # type: ignore[arg-type, func-returns-value]
    provider.worker_setup(ctx)  # type: ignore[arg-type]
    provider.worker_result(ctx, 1, None)  # type: ignore[arg-type]
    provider.worker_teardown(ctx)  # type: ignore[arg-type]
