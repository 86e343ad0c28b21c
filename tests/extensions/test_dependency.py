"""Dependency providers."""

from tests.containers.dummies import FakeContainer
from threadko.extensions import DependencyProvider


def test_clone_knows_its_attribute() -> None:
    declaration = DependencyProvider()
    assert declaration.attr_name is None
    container = FakeContainer()
    clone = declaration.bind(container, "database")
    assert (clone.attr_name, clone.container) == ("database", container)


def test_declaration_can_decorate_methods_of_its_class() -> None:
    class Audit(DependencyProvider):
        def noted(self, method):  # type: ignore[no-untyped-def]
            def wrapper(service, *args):  # type: ignore[no-untyped-def]
                if self.attr_name is not None:
                    getattr(service, self.attr_name).append(method.__name__)
                return method(service, *args)

            return wrapper

    class Service:
        audit = Audit()

        @audit.noted
        def double(self, value: int) -> int:
            return 2 * value

    assert Service().double(1) == 2
    Service.audit.bind(FakeContainer(), "audit")
    service = Service()
    service.audit = []  # what a worker does
    assert (service.double(2), service.audit) == (4, ["double"])


def test_hooks_do_nothing_when_they_are_not_overridden() -> None:
    provider = DependencyProvider()
    ctx = object()
    assert provider.get_dependency(ctx) is None  # type: ignore[arg-type, func-returns-value]
    provider.worker_setup(ctx)  # type: ignore[arg-type]
    provider.worker_result(ctx, 1, None)  # type: ignore[arg-type]
    provider.worker_teardown(ctx)  # type: ignore[arg-type]
