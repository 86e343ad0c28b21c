"""Containers and runners for one test, ended when it ends.

A factory belongs to the thread of its test.
"""

import logging
from collections.abc import Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Protocol, TypeVar
from unittest import mock

from threadko.concurrency.stopping import StopEvent
from threadko.configuration import config as global_config
from threadko.configuration.settings import ContainerSettings
from threadko.constants import AMQP_URI_CONFIG_KEY
from threadko.containers import ServiceContainer, get_container_cls
from threadko.runners import ServiceRunner
from threadko.serialization import setup

__all__ = ["ContainerFactory", "Killable", "RunnerFactory", "make_mock_container"]

AnyFactory = TypeVar("AnyFactory", bound="_Factory")


class Killable(Protocol):
    """Something that the end of a test ends."""

    def kill(self) -> None:
        """End at once."""


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
        # That the end of a test kills what it made is no news to anybody.
        logger = logging.getLogger("threadko.containers.container")
        logger.addFilter(_is_news)
        try:
            # A stack goes on when one cannot be killed, and raises its error at the end.
            self._made.close()
        finally:
            logger.removeFilter(_is_news)

    def _complete(self, config: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        if self._amqp_uri is None and not config:
            return None
        added = dict(config or {})
        # One key may be spelled in several ways, and that which is given wins.
        spelled = {key.upper() for key in added}
        entries = {k: v for k, v in global_config.items() if k.upper() not in spelled}
        entries.update(added)
        if self._amqp_uri is not None and AMQP_URI_CONFIG_KEY not in map(str.upper, entries):
            entries[AMQP_URI_CONFIG_KEY] = self._amqp_uri
        return entries


def _is_news(record: logging.LogRecord) -> bool:
    return record.msg != "service %s is killed" or record.exc_info is not None


class ContainerFactory(_Factory):
    """Makes containers; starting them is up to the test."""

    def __call__(
        self, service_cls: type, config: Mapping[str, Any] | None = None
    ) -> ServiceContainer:
        """Return a container of the class.

        It reads the global configuration; with `config`, that one and what it adds or changes.
        """
        complete = self._complete(config)
        given = {} if complete is None else {"config": complete}
        container = get_container_cls(complete)(service_cls, **given)
        self.add(container)
        return container


class RunnerFactory(_Factory):
    """Makes runners; starting them is up to the test."""

    def __call__(
        self,
        *service_classes: type | Mapping[str, Any] | None,
        config: Mapping[str, Any] | None = None,
    ) -> ServiceRunner:
        """Return a runner of the classes; `config` is as for a container.

        As with nameko 2, the configuration may come first as well.
        """
        classes = []
        for given in service_classes:
            if isinstance(given, type):
                classes.append(given)
            elif given is not None:
                config = {**given, **(config or {})}
        runner = ServiceRunner(config=self._complete(config))
        self.add(runner)
        for service_cls in classes:
            runner.add_service(service_cls)
        return runner


def make_mock_container() -> Any:
    """Return a mock of a container, for extensions that are tested by themselves.

    It has the attributes of one, as the global configuration makes them, and no service.
    """
    container = mock.create_autospec(ServiceContainer, instance=True)
    settings = ContainerSettings.from_config(global_config)
    container.config = global_config
    container.service_cls = mock.Mock
    container.service_name = "mock_service"
    container.max_workers = settings.max_workers
    container.parent_calls_tracked = settings.parent_calls_tracked
    container.serializer, container.accept = setup(global_config)
    container.stopping = StopEvent()
    container.shared_extensions = {}
    container.being_killed = False
    container.interface = container
    return container
