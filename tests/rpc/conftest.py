from collections.abc import Iterator

import pytest

from tests.rpc.raw import RawCaller, RawService
from tests.support.proxy import Proxy


@pytest.fixture
def proxy(broker_uri: str) -> Iterator[Proxy]:
    with Proxy.for_uri(broker_uri) as made:
        yield made


@pytest.fixture
def caller(broker_uri: str, container_factory, rpc_exchange: str) -> Iterator[RawCaller]:
    with RawCaller(broker_uri, rpc_exchange) as made:
        yield made


@pytest.fixture
def service(broker_uri: str, rpc_exchange: str, names) -> Iterator[RawService]:
    with RawService(broker_uri, rpc_exchange, names.service("raw")) as made:
        yield made
