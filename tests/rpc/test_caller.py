"""What options make of a request, on the wire."""

import json
import zlib
from collections.abc import Iterator
from typing import Any

import pytest

from tests.rpc.raw import RawService
from tests.support.timing import TIMEOUT
from threadko.exceptions import ConfigurationError
from threadko.rpc import ClusterRpc, ServiceRpc, rpc
from threadko.runners import run_services
from threadko.standalone.rpc import ClusterRpcClient, ServiceRpcClient


@pytest.fixture
def name(names: Any) -> str:
    service: str = names.service("far")
    return service


@pytest.fixture
def service(
    amqp_config: dict[str, Any], broker_uri: str, rpc_exchange: str, name: str
) -> Iterator[RawService]:
    with ClusterRpcClient(config=amqp_config):  # declares the exchange
        pass
    with RawService(broker_uri, rpc_exchange, name) as made:
        yield made


def test_options_are_sent_with_each_request(
    service: RawService, name: str, amqp_config: dict[str, Any]
) -> None:
    client = ServiceRpcClient(
        name,
        {"language": "en"},
        TIMEOUT,
        config=amqp_config,
        headers={"x-shop": "1", "nameko.language": "de"},
        priority=4,
        delivery_mode=1,
        expiration=12.5,
        app_id="shop",
        type="order",
    )
    with client as far:
        call = far.method.call_async(1)
        request = service.take()
        properties = request.properties
        assert properties.headers["x-shop"] == "1"
        assert properties.headers["nameko.language"] == "en"  # the context wins
        assert (properties.priority, properties.delivery_mode) == (4, 1)
        assert (properties.app_id, properties.type) == ("shop", "order")
        assert properties.expiration == "12500"
        service.reply(request, "done")
        assert call.result() == "done"


@pytest.mark.parametrize(
    ("timeout", "expiration", "sent"), [(50, 90, "50000"), (90, 50, "50000"), (None, 50, "50000")]
)
def test_request_expires_with_the_smaller_of_both_limits(
    service: RawService,
    name: str,
    amqp_config: dict[str, Any],
    timeout: float | None,
    expiration: float,
    sent: str,
) -> None:
    client = ServiceRpcClient(name, timeout=timeout, config=amqp_config, expiration=expiration)
    with client as far:
        call = far.method.call_async()
        assert service.take().properties.expiration == sent
        call.cancel()


def test_request_is_compressed_as_asked(
    service: RawService, name: str, amqp_config: dict[str, Any]
) -> None:
    with ServiceRpcClient(name, config=amqp_config, compression="gzip") as far:
        call = far.method.call_async("x" * 1000)
        request = service.take()
        assert request.properties.headers["compression"] == "application/x-gzip"
        assert json.loads(zlib.decompress(request.body))["args"] == ["x" * 1000]
        service.reply(request, "done")
        assert call.result() == "done"


def test_services_call_with_options_too(names: Any, amqp_config: dict[str, Any]) -> None:
    class Far:
        name = names.service("far")

        @rpc
        def echo(self, value: Any) -> Any:
            return value

    class Near:
        name = names.service("near")
        packed = ServiceRpc(Far.name, compression="bzip2", serializer="yaml")
        plain = ServiceRpc(Far.name)
        cluster = ClusterRpc(headers={"x": "y"}, retry=False)

        @rpc
        def ask(self, value: Any) -> Any:
            far = self.cluster[Far.name]
            return [self.packed.echo(value), self.plain.echo(value), far.echo(value)]

    config = {**amqp_config, "ACCEPT": ["json", "yaml"]}
    with (
        run_services(Far, Near, config=config),
        ServiceRpcClient(Near.name, timeout=TIMEOUT, config=config) as near,
    ):
        assert near.ask("grüß") == ["grüß"] * 3


def test_callers_of_another_broker_have_a_connection_of_their_own(
    names: Any, amqp_config: dict[str, Any], broker_uri: str
) -> None:
    class Far:
        name = names.service("far")

        @rpc
        def echo(self, value: Any) -> Any:
            return value

    class Near:
        name = names.service("near")
        here = ServiceRpc(Far.name)
        also_here = ClusterRpc()
        there = ServiceRpc(Far.name, uri=broker_uri)
        also_there = ClusterRpc(uri=broker_uri)

        @rpc
        def ask(self, value: Any) -> Any:
            return [self.here.echo(value), self.there.echo(value)]

    with run_services(Far, Near, config=amqp_config) as runner:
        listeners = {
            each.reply_listener
            for each in runner.service_map[Near.name].dependencies
            if isinstance(each, ClusterRpc)
        }
        assert len(listeners) == 2
        with ServiceRpcClient(Near.name, timeout=TIMEOUT, config=amqp_config) as near:
            assert near.ask(1) == [1, 1]


def test_unknown_serializer_is_refused_when_it_is_set_up(
    names: Any, amqp_config: dict[str, Any]
) -> None:
    with pytest.raises(ConfigurationError, match="no serializer is named 'xml'"):
        ClusterRpcClient(config=amqp_config, serializer="xml")
