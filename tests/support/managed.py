"""Fixtures: a RabbitMQ of our own with its management API, for the folders that import them."""

import pytest

from tests.support.broker import HOW_TO_GET_ONE, RabbitNode, find_free_ports, find_server
from tests.support.timing import TIMEOUT
from threadko.exceptions import BrokerError, ConfigurationError
from threadko.testing.rabbit import Client
from threadko.testing.utils import assert_stops_raising

__all__ = ["api_port", "api_uri", "node"]


@pytest.fixture(scope="session")
def api_port():
    return find_free_ports(1)[0]


@pytest.fixture(scope="session")
def api_uri(api_port):
    return f"http://guest:guest@127.0.0.1:{api_port}"


@pytest.fixture(scope="session")
def node(api_port, api_uri):
    """A RabbitMQ with its management API."""
    server = find_server()
    if server is None:
        pytest.skip(HOW_TO_GET_ONE)
    settings = {"management.tcp.port": api_port, "management.tcp.ip": "127.0.0.1"}
    with RabbitNode(server, settings, ["rabbitmq_management"]) as made:
        made.start()
        # It lets nobody in while it begins.
        errors = (BrokerError, ConfigurationError)
        assert_stops_raising(lambda: Client(api_uri), errors, 4 * TIMEOUT)
        yield made
