"""What a time-out says of a service that nobody runs."""

import threading
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.rpc.raw import RawService
from tests.support.amqp import delete_queue
from tests.support.timing import TIMEOUT
from threadko.exceptions import RpcTimeout
from threadko.rpc import probe, replies, rpc
from threadko.runners import run_services
from threadko.standalone.rpc import ClusterRpcClient

SHORT, LONG = 1.5, 4.0


@pytest.fixture(autouse=True)
def _asks_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy broker takes longer to answer than it would be given."""
    monkeypatch.setattr(replies, "_PROBE_SECONDS", TIMEOUT)
    monkeypatch.setattr(replies, "_PROBE_SHARE", 0.6)
    monkeypatch.setattr(probe, "_FRESH_SECONDS", TIMEOUT)


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
        gone = client[first].method.with_timeout(LONG).call_async()
        lonely = client[second].method.with_timeout(LONG).call_async()
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


class OpenConnection:
    """Notes what is asked for, and answers nothing."""

    is_open = True

    def __init__(self) -> None:
        self.opened: list[int] = []

    def open_channel(self, number: int, *args: Any, **kwargs: Any) -> None:
        self.opened.append(number)


@pytest.mark.parametrize(("age", "asks_again"), [(0.4, False), (0.6, True)])
def test_answer_that_will_be_too_old_when_the_call_times_out_is_asked_for_again(
    monkeypatch: pytest.MonkeyPatch, age: float, asks_again: bool
) -> None:
    monkeypatch.setattr(probe, "_FRESH_SECONDS", 1.0)
    now = [100.0]
    monkeypatch.setattr(probe, "time", SimpleNamespace(monotonic=lambda: now[0]))
    connection = OpenConnection()
    asking = probe.Probe(cast(Any, SimpleNamespace(connection=connection)), 4)
    asking._asked = "shop"
    asking._note("; no consumer is on queue rpc-shop")
    now[0] += age
    asking.ask("shop")
    assert connection.opened == ([4] if asks_again else [])
    now[0] += 0.5  # the most that there is between question and time-out
    assert bool(asking.describe("shop")) == (not asks_again)
