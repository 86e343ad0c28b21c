"""A web server on a free port, for services of a test's own."""

import pytest

from tests.web.client import RawClient


@pytest.fixture
def serve(container_factory):
    """Start a container of a service class; returns it with its address."""

    def serve(service_cls, **config):
        config = {"WEB_SERVER_ADDRESS": "127.0.0.1:0", **config}
        container = container_factory(service_cls, config=config)
        container.start()
        return container, find_server(container).bind_addr

    return serve


@pytest.fixture
def connect():
    """Open raw connections, closed when the test ends."""
    made = []

    def connect(address):
        made.append(RawClient(address))
        return made[-1]

    yield connect
    for client in made:
        client.sock.close()


def find_server(container):
    (found,) = [each for each in container.subextensions if hasattr(each, "bind_addr")]
    return found
