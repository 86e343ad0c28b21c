"""The configuration as a dependency."""

import pytest

from tests.support.timing import TIMEOUT
from threadko.dependency_providers import Config
from threadko.rpc import rpc
from threadko.standalone.rpc import ServiceRpcClient


def test_configuration_of_the_container_is_injected_and_stays(
    container_factory, amqp_config, names
):
    class Service:
        name = names.service()
        config = Config()

        @rpc
        def read(self, key):
            return self.config.get(key)

        @rpc
        def change(self):
            self.config["other"] = 1

    config = {**amqp_config, "own": "value"}
    container_factory(Service, config=config).start()
    config["own"] = "changed"
    with ServiceRpcClient(Service.name, config=amqp_config, timeout=TIMEOUT) as client:
        assert client.read("own") == "value"
        with pytest.raises(Exception, match="does not support item assignment"):
            client.change()
