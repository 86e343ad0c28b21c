"""A service whose methods do what the test says."""

import pytest

from tests.containers.dummies import Gate
from tests.support.managed import api_port, api_uri, node
from threadko.extensions import DependencyProvider
from threadko.testing.services import dummy

__all__ = ["Recorder", "Service", "api_port", "api_uri", "container", "gate", "node"]


class Recorder(DependencyProvider):
    """Writes down which hooks ran."""

    def __init__(self):
        self.lines = []

    def get_dependency(self, worker_ctx):
        return self

    def worker_result(self, worker_ctx, result=None, exc_info=None):
        self.lines.append("result")

    def worker_teardown(self, worker_ctx):
        self.lines.append("teardown")


class Service:
    """One that any test of the kit can use."""

    name = "service"
    recorder = Recorder()

    @dummy
    def method(self, do=None):
        return do() if callable(do) else do

    @dummy
    def other(self, value=None):
        return value


@pytest.fixture
def container(container_factory):
    container = container_factory(Service, {"max_workers": 4})
    container.start()
    return container


@pytest.fixture
def gate():
    """Holds a worker until the test ends, at the latest."""
    gate = Gate()
    yield gate
    gate.released.set()
