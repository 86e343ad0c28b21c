"""The configuration as a dependency."""

import pytest

from tests.support.timing import TIMEOUT
from threadko import config
from threadko.dependency_providers import Config
from threadko.extensions import Entrypoint
from threadko.rpc import rpc
from threadko.standalone.rpc import ServiceRpcClient
from threadko.testing.services import entrypoint_hook


class once(Entrypoint):  # noqa: N801 - used as a decorator
    """A method that only tests fire."""


once = once.decorator


class Service:
    name = "service"
    config = Config()

    @once
    def read(self, key):
        return self.config.get(key)

    @once
    def change(self, key, value):
        assert type(self.config) is dict
        self.config[key] = value
        return self.config[key]

    @once
    def extend(self, key, value):
        self.config[key].append(value)


def run(container, method, *args):
    with entrypoint_hook(container, method) as hook:
        return hook(*args)


@pytest.fixture
def container(container_factory):
    """A service on the global configuration."""
    with config.patch({"own": "value"}):
        container = container_factory(Service)
        container.start()
        yield container


def test_worker_sees_the_configuration_as_it_is_when_it_begins(container):
    assert run(container, "read", "own") == "value"
    with config.patch({"own": "patched"}):
        assert run(container, "read", "own") == "patched"
    assert run(container, "read", "own") == "value"


def test_what_a_worker_changes_is_its_own(container):
    assert run(container, "change", "own", 1) == 1
    assert run(container, "read", "own") == "value"
    assert config["own"] == "value"


def test_configuration_of_the_container_itself_is_injected(container_factory, amqp_config, names):
    class Serving(Service):
        name = names.service()

        # Not the functions of `Service` themselves, which would have an entrypoint more then.
        @rpc
        def change(self, key, value):
            return super().change(key, value)

        @rpc
        def read(self, key):
            return super().read(key)

    own = {**amqp_config, "own": "value"}
    with config.patch({"own": "global"}):
        container_factory(Serving, config=own).start()
        with ServiceRpcClient(Serving.name, config=amqp_config, timeout=TIMEOUT) as client:
            assert client.change("own", 1) == 1
            assert client.read("own") == "value"
    assert own["own"] == "value"


def test_copy_is_shallow(container_factory):
    own = {"list": []}
    container = container_factory(Service, config=own)
    container.start()
    run(container, "extend", "list", 1)
    assert own == {"list": [1]}
