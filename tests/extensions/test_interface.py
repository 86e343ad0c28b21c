"""The protocol that extensions are typed against."""

import inspect

from tests.containers.dummies import dummy
from threadko.containers import ServiceContainer
from threadko.extensions import Container


class Service:
    name = "service"

    @dummy
    def method(self) -> None:
        pass


def test_container_has_everything_that_extensions_may_use() -> None:
    container: Container = ServiceContainer(Service, config={})
    promised = {name for name in Container.__dict__ if not name.startswith("_")}
    promised |= set(Container.__annotations__)
    assert len(promised) > 12
    assert [name for name in sorted(promised) if not hasattr(container, name)] == []


def test_container_takes_the_arguments_that_the_protocol_has() -> None:
    for name in ("spawn_worker", "run_worker", "open_line", "spawn_managed_thread"):
        promised = inspect.signature(getattr(Container, name)).parameters
        given = inspect.signature(getattr(ServiceContainer, name)).parameters
        assert list(promised) == list(given)
