"""A service whose hooks and method a test can watch, hold and make fail."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.containers.dummies import Hooked, HookedDependency, HookedEntrypoint, Journal
from threadko.containers import ServiceContainer
from threadko.extensions import DependencyProvider


class Stage:
    """Makes containers of one service: a dependency that owns a shared extension, an entrypoint
    that owns the same one, and a method that does what the test says.
    """

    def __init__(self) -> None:
        self.journal = Journal()
        self.failing: dict[str, BaseException] = {}
        self.doing: dict[str, Callable[[Any], object]] = {}
        self.containers: list[ServiceContainer] = []

    def call(self, line: str, given: Any) -> None:
        self.journal.write(line)
        if line in self.doing:
            self.doing[line](given)
        if line in self.failing:
            raise self.failing[line]

    def make(self, **config: Any) -> ServiceContainer:
        call = self.call

        class Owner(HookedDependency):
            server = Hooked(call, "server")

        class Trigger(HookedEntrypoint):
            server = Hooked(call, "server")

        class Plain(DependencyProvider):
            """One without hooks of its own."""

        class Service:
            name = "service"
            owner = Owner(call, "owner")
            plain = Plain()

            @Trigger.decorator(call)
            def method(self, do: Callable[[], object] | None = None) -> object:
                return do and do()

        container = ServiceContainer(Service, config={"max_workers": 2, **config})
        self.containers.append(container)
        return container

    def start(self, **config: Any) -> ServiceContainer:
        container = self.make(**config)
        container.start()
        self.journal.lines.clear()
        return container


@pytest.fixture
def stage() -> Iterator[Stage]:
    stage = Stage()
    yield stage
    stage.doing.clear()
    stage.failing.clear()
    for container in stage.containers:
        container.kill()
