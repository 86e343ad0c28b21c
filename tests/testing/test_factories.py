import pytest

from threadko.configuration import config as global_config
from threadko.exceptions import ConfigurationError, ContainerBeingKilled
from threadko.testing.factories import ContainerFactory, RunnerFactory


class Service:
    name = "service"


class Other:
    name = "other"


def test_container_has_the_configuration_given():
    with ContainerFactory() as factory:
        assert factory(Service, {"own": 1}).config == {"own": 1}


def test_container_without_configuration_reads_the_global_one():
    with ContainerFactory() as factory:
        container = factory(Service)
        with global_config.patch({"own": 2}):
            assert container.config["own"] == 2


def test_broker_is_that_of_the_option_when_none_is_configured():
    with ContainerFactory("amqp://option") as factory:
        assert factory(Service, {"own": 1}).config == {"own": 1, "AMQP_URI": "amqp://option"}


@pytest.mark.parametrize("key", ["AMQP_URI", "amqp_uri"])
def test_broker_that_is_configured_wins_over_the_option(key):
    with ContainerFactory("amqp://option") as factory:
        assert factory(Service, {key: "amqp://mine"}).config == {key: "amqp://mine"}


def test_container_is_killed_when_the_test_ends():
    with ContainerFactory() as factory:
        container = factory(Service, {})
        container.start()
    container.wait()
    with pytest.raises(ContainerBeingKilled):
        container.start()


def test_last_made_is_killed_first():
    killed = []

    class Recorder:
        def __init__(self, name):
            self.name = name

        def kill(self):
            killed.append(self.name)

    with ContainerFactory() as factory:
        factory.add(Recorder("first"))
        factory.add(Recorder("second"))
    assert killed == ["second", "first"]


def test_others_are_killed_though_one_cannot_be():
    killed = []

    class Recorder:
        def __init__(self, error):
            self.error = error

        def kill(self):
            killed.append(self.error)
            if self.error:
                raise self.error

    factory = ContainerFactory()
    factory.add(Recorder(None))
    factory.add(Recorder(ValueError("cannot")))
    with pytest.raises(ValueError, match="cannot"), factory:
        pass
    assert killed[1] is None


def test_runner_runs_the_classes_given():
    with RunnerFactory() as factory:
        runner = factory(Service, Other, config={})
        runner.start()
        assert sorted(runner.service_names) == ["other", "service"]


def test_runner_refuses_two_services_of_one_name():
    with RunnerFactory() as factory, pytest.raises(ConfigurationError):
        factory(Service, Service, config={})
