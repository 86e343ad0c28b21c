"""Containers and runners for one test, ended when it ends.

A factory belongs to the thread of its test.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Protocol, TypeVar

from threadko.configuration import config as global_config
from threadko.constants import AMQP_URI_CONFIG_KEY
from threadko.containers import ServiceContainer
from threadko.runners import ServiceRunner

__all__ = ["ContainerFactory", "Killable", "RunnerFactory"]

AnyFactory = TypeVar("AnyFactory", bound="_Factory")


class Killable(Protocol):
    """Something that the end of a test ends."""

    def kill(self) -> None: ...


class _Factory:
    """Keeps what it made, and kills it in reverse at the end, so that users go before the used.

    With `amqp_uri`, that is the broker of whatever is configured without one.
    """

    def __init__(self, amqp_uri: str | None = None) -> None:
        self._amqp_uri = amqp_uri
        self._made = ExitStack()

    def add(self, made: Killable) -> None:
        """Have something else killed at the end too."""
        self._made.callback(made.kill)

    def __enter__(self: AnyFactory) -> AnyFactory:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # A stack goes on when one cannot be killed, and raises its error at the end.
        self._made.close()

    def _complete(self, config: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        if self._amqp_uri is None:
            return config
        entries = dict((global_config if config is None else config).items())
        if not any(key.upper() == AMQP_URI_CONFIG_KEY for key in entries):
            entries[AMQP_URI_CONFIG_KEY] = self._amqp_uri
        return entries


class ContainerFactory(_Factory):
    """Makes containers; starting them is up to the test."""

    def __call__(
        self, service_cls: type, config: Mapping[str, Any] | None = None
    ) -> ServiceContainer:
        """Return a container of the class; without `config` it reads the global one."""
        container = ServiceContainer(service_cls, config=self._complete(config))
        self.add(container)
        return container


class RunnerFactory(_Factory):
    """Makes runners; starting them is up to the test."""

    def __call__(
        self, *service_classes: type, config: Mapping[str, Any] | None = None
    ) -> ServiceRunner:
        """Return a runner of the classes; without `config` it reads the global one."""
        runner = ServiceRunner(config=self._complete(config))
        self.add(runner)
        for service_cls in service_classes:
            runner.add_service(service_cls)
        return runner
