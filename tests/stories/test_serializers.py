"""Calls in other serializers and compressions, over a real broker."""

import bz2
import json
import lzma
import zlib
from collections.abc import Callable
from typing import Any

import pytest

from tests.rpc.raw import RawCaller, RawService
from tests.support.timing import TIMEOUT
from threadko.exceptions import RemoteError
from threadko.rpc import rpc
from threadko.runners import run_services
from threadko.standalone.rpc import ClusterRpcClient

OWN = {
    "hex": {
        "encoder": "tests.stories.test_serializers.write_hex",
        "decoder": "tests.stories.test_serializers.read_hex",
        "content_type": "application/x-hex",
    }
}
COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "application/x-gzip": zlib.compress,
    "application/x-bz2": bz2.compress,
    "application/x-lzma": lzma.compress,
}


def write_hex(value: Any) -> str:
    return json.dumps(value).encode().hex()


def read_hex(text: str) -> Any:
    return json.loads(bytes.fromhex(text))


@pytest.fixture
def service_cls(name):
    class Service:
        @rpc
        def echo(self, value):
            return value

    Service.name = name
    return Service


@pytest.mark.parametrize("serializer", ["json", "yaml", "pickle", "msgpack", "hex"])
def test_service_and_client_speak_the_serializer_that_is_configured(
    serializer, name, amqp_config, service_cls
):
    config = {**amqp_config, "serializer": serializer, "SERIALIZERS": OWN}
    value = {"a": [1, 2.5, None, True, "grüß dich"]}
    with (
        run_services(service_cls, config=config),
        ClusterRpcClient(config=config, timeout=TIMEOUT) as client,
    ):
        assert client[name].echo(value) == value


def test_each_caller_is_answered_in_its_own_type(name, amqp_config, service_cls):
    accepting = {**amqp_config, "ACCEPT": ["json", "yaml"]}
    with (
        run_services(service_cls, config=accepting),
        ClusterRpcClient(config=amqp_config, timeout=TIMEOUT) as json_client,
        ClusterRpcClient(config={**amqp_config, "serializer": "yaml"}, timeout=TIMEOUT) as yamler,
    ):
        assert json_client[name].echo([1]) == [1]
        assert yamler[name].echo([1]) == [1]


def test_type_that_is_not_accepted_is_refused_with_the_ones_that_are(
    name, amqp_config, service_cls
):
    yaml = {**amqp_config, "serializer": "yaml", "ACCEPT": ["json", "yaml"]}
    with (
        run_services(service_cls, config=amqp_config),
        ClusterRpcClient(config=yaml, timeout=TIMEOUT) as client,
        pytest.raises(Exception, match="'application/x-yaml' is not accepted, only json"),
    ):
        client[name].echo(1)


@pytest.mark.parametrize("compression", list(COMPRESSIONS))
def test_compressed_request_is_unpacked(
    compression, name, amqp_config, broker_uri, rpc_exchange, service_cls
):
    body = COMPRESSIONS[compression](b'{"args": ["unpacked"], "kwargs": {}}')
    with (
        run_services(service_cls, config=amqp_config),
        RawCaller(broker_uri, rpc_exchange) as caller,
    ):
        answer = caller.ask(f"{name}.echo", body, headers={"compression": compression})
        assert answer["result"] == "unpacked"


def test_request_that_unpacks_to_too_much_is_refused(
    name, amqp_config, broker_uri, rpc_exchange, service_cls
):
    config = {**amqp_config, "MAX_MESSAGE_SIZE": 100_000}
    bomb = zlib.compress(b'{"args": ["' + b"x" * 50_000_000 + b'"], "kwargs": {}}')
    with (
        run_services(service_cls, config=config),
        RawCaller(broker_uri, rpc_exchange) as caller,
    ):
        answer = caller.ask(f"{name}.echo", bomb, headers={"compression": "application/x-gzip"})
        assert answer["error"]["exc_type"] == "MalformedRequest"
        assert caller.ask(f"{name}.echo", {"args": [1], "kwargs": {}})["result"] == 1


@pytest.mark.parametrize("compression", list(COMPRESSIONS))
def test_compressed_reply_is_readable(compression, name, amqp_config, broker_uri, rpc_exchange):
    body = COMPRESSIONS[compression](b'{"result": "unpacked", "error": null}')
    with (
        ClusterRpcClient(config=amqp_config, timeout=TIMEOUT) as client,
        RawService(broker_uri, rpc_exchange, name) as service,
    ):
        call = client[name].echo.call_async(1)
        service.reply_raw(service.take(), body, headers={"compression": compression})
        assert call.result() == "unpacked"
        call = client[name].echo.call_async(1)
        service.reply_raw(service.take(), b"rubbish", headers={"compression": compression})
        with pytest.raises(RemoteError, match="MalformedReply"):
            call.result()
