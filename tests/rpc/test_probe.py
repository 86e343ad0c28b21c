"""What a time-out says of a service that nobody runs."""

import threading
from typing import Any

import pytest

from tests.rpc.raw import RawService
from tests.support.amqp import delete_queue
from tests.support.timing import TIMEOUT
from threadko.exceptions import RpcTimeout
from threadko.rpc import rpc
from threadko.runners import run_services
from threadko.standalone.rpc import ClusterRpcClient

SHORT = 0.5


@pytest.fixture
def client(amqp_config: dict[str, Any]) -> Any:
    with ClusterRpcClient(config=amqp_config, timeout=TIMEOUT) as made:
        yield made


def time_out(client: Any, name: str, method: str = "method") -> str:
    with pytest.raises(RpcTimeout) as caught:
        client[name][method].with_timeout(SHORT)()
    return str(caught.value)


def test_timeout_says_that_nobody_consumes(
    client: Any, names: Any, broker_uri: str, rpc_exchange: str
) -> None:
    name = names.service("lonely")
    with RawService(broker_uri, rpc_exchange, name):
        text = time_out(client, name)
        assert text == (
            f"{name}.method did not answer within {SHORT} s; no consumer is on queue rpc-{name}"
        )
        calls = [client[name].method.with_timeout(SHORT).call_async() for _ in range(20)]
        for call in calls:
            with pytest.raises(RpcTimeout, match="no consumer is on queue"):
                call.result()


def test_timeout_says_that_the_queue_is_gone(
    client: Any, names: Any, broker_uri: str, rpc_exchange: str
) -> None:
    first, second = names.service("gone"), names.service("lonely")
    with (
        RawService(broker_uri, rpc_exchange, first) as service,
        RawService(broker_uri, rpc_exchange, second),
    ):
        gone = client[first].method.with_timeout(SHORT).call_async()
        lonely = client[second].method.with_timeout(SHORT).call_async()
        service.take()
        delete_queue(broker_uri, service.queue)
        with pytest.raises(RpcTimeout, match="its queue does not exist any more"):
            gone.result()
        with pytest.raises(RpcTimeout, match="no consumer is on queue"):
            lonely.result()
        assert "no consumer" in time_out(client, second)


def test_timeout_says_no_more_where_the_service_is_merely_slow(
    client: Any, names: Any, amqp_config: dict[str, Any]
) -> None:
    released = threading.Event()

    class Service:
        name = names.service("slow")

        @rpc
        def hold(self) -> None:
            assert released.wait(TIMEOUT)

        @rpc
        def echo(self, value: Any) -> Any:
            return value

    with run_services(Service, config=amqp_config):
        assert time_out(client, Service.name, "hold").endswith(f"within {SHORT} s")
        released.set()
        assert client[Service.name].echo(1) == 1
