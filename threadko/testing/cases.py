"""Test cases for `unittest`, with the powers of the pytest plugin; pytest need not be installed.

A case belongs to the thread that runs it. Whatever its methods begin is ended by its cleanup, in
the order that `testing.scope` tells.
"""

import atexit
import threading
import unittest
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, ClassVar

from threadko.configuration import config
from threadko.containers import ServiceContainer
from threadko.runners import ServiceRunner
from threadko.testing.brokers import BrokerSource, make_broker
from threadko.testing.entrypoints import entrypoint_hook, entrypoint_waiter
from threadko.testing.messages import FoundMessage, take_message
from threadko.testing.scope import Scope
from threadko.testing.services import replace_dependencies, restrict_entrypoints, worker_factory
from threadko.testing.utils import find_free_port, get_container
from threadko.testing.websocket import Socket, open_sockets

__all__ = ["ServiceTestCase"]

_lock = threading.Lock()
# One for all cases that name the same addresses; guarded by _lock.
_sources: dict[tuple[str | None, str | None], BrokerSource] = {}


class ServiceTestCase(unittest.TestCase):
    """A test case that runs services.

    `broker_uri` names a RabbitMQ in place of the development broker, `broker_api_uri` its
    management API. Both may be set in a subclass, from the environment say.
    """

    broker_uri: ClassVar[str | None] = None
    broker_api_uri: ClassVar[str | None] = None

    def run(self, result: unittest.TestResult | None = None) -> unittest.TestResult | None:
        """Run the test, with a scope for all that it makes."""
        # Not in setUp, which a subclass may override without calling it.
        uris = (self.broker_uri, self.broker_api_uri)
        self._kit_scope = Scope(lambda: _get_source(*uris), self.broker_uri)
        self._containers = self._kit_scope.make_container_factory()
        self._runners = self._kit_scope.make_runner_factory()
        self.addCleanup(self._kit_scope.close)
        return super().run(result)

    @property
    def amqp_uri(self) -> str:
        """The URI of this test's broker, which is as good as new."""
        return self._kit_scope.get_broker().uri

    def use_config(self, entries: Mapping[str, Any], *, clear: bool = False) -> None:
        """Add entries to the global configuration for this test, in place of all if `clear`."""
        patch = config.patch(entries, clear=clear)
        patch.start()
        self.addCleanup(patch.stop)

    def use_broker(self) -> str:
        """Have the global configuration name this test's broker, and return its URI."""
        self.use_config({"AMQP_URI": self.amqp_uri})
        return self.amqp_uri

    def use_web(self) -> int:
        """Have the global configuration name a free port for the web server, and return it."""
        port = find_free_port()
        self.use_config({"WEB_SERVER_ADDRESS": f"127.0.0.1:{port}"})
        return port

    def make_container(
        self, service_cls: type, config: Mapping[str, Any] | None = None
    ) -> ServiceContainer:
        """Return a container, not started; `config` adds to the global configuration of now."""
        return self._containers(service_cls, config)

    def make_runner(
        self, *service_classes: type, config: Mapping[str, Any] | None = None
    ) -> ServiceRunner:
        """Return a runner, not started; `config` adds to the global configuration of now."""
        return self._runners(*service_classes, config=config)

    def start(self, *service_classes: type, config: Mapping[str, Any] | None = None) -> Any:
        """Run services on this test's broker: its container for one, its runner for several."""
        if not {"AMQP_URI"} & {key.upper() for key in (config or {})}:
            config = {**(config or {}), "AMQP_URI": self.amqp_uri}
        made: Any
        if len(service_classes) == 1:
            made = self.make_container(service_classes[0], config)
        else:
            made = self.make_runner(*service_classes, config=config)
        made.start()
        return made

    def get_container(self, runner: ServiceRunner, service_cls: type) -> ServiceContainer:
        """Return the container of a service in a runner; the test fails if it has none."""
        found = get_container(runner, service_cls)
        if found is None:
            self.fail(f"the runner runs {', '.join(runner.service_names)} and no {service_cls!r}")
        return found

    def fire(
        self,
        container: ServiceContainer,
        method_name: str,
        /,
        *args: Any,
        context_data: Mapping[str, Any] | None = None,
        timeout: float | None = 30,
        **kwargs: Any,
    ) -> Any:
        """Fire an entrypoint once, and return what its method returns; see `entrypoint_hook`."""
        with self.entrypoint_hook(container, method_name, context_data, timeout) as hook:
            return hook(*args, **kwargs)

    def get_message(self, queue_name: str, **options: Any) -> FoundMessage:
        """Return the first message of a queue on this test's broker; see `take_message`."""
        return take_message(self.amqp_uri, queue_name, **options)

    def open_websocket(self, port: int, host: str = "127.0.0.1", path: str = "/ws") -> Socket:
        """Return an open websocket, closed at the end of the test."""
        sockets: AbstractContextManager[Any] = open_sockets(host, port, path)
        open_socket = sockets.__enter__()
        self.addCleanup(sockets.__exit__, None, None, None)
        socket: Socket = open_socket()
        return socket

    entrypoint_hook = staticmethod(entrypoint_hook)
    entrypoint_waiter = staticmethod(entrypoint_waiter)
    replace_dependencies = staticmethod(replace_dependencies)
    restrict_entrypoints = staticmethod(restrict_entrypoints)
    worker_factory = staticmethod(worker_factory)


def _get_source(amqp_uri: str | None, api_uri: str | None) -> BrokerSource:
    with _lock:
        key = (amqp_uri, api_uri)
        if key not in _sources:
            _sources[key] = make_broker(amqp_uri, api_uri)
        return _sources[key]


def _close_sources() -> None:
    with _lock:
        sources = list(_sources.values())
        _sources.clear()
    for source in sources:
        source.close()


atexit.register(_close_sources)
