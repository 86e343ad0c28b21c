import pytest

from threadko.configuration import config as global_config
from threadko.containers import ServiceContainer
from threadko.exceptions import ConfigurationError, ContainerBeingKilled
from threadko.extensions import SharedExtension, WorkerContext
from threadko.testing.factories import ContainerFactory, RunnerFactory, make_mock_container
from threadko.testing.utils import DummyProvider


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


def test_configuration_given_adds_to_the_global_one():
    with ContainerFactory() as factory, global_config.patch({"own": 1, "MAX_WORKERS": 3}):
        container = factory(Service, {"other": 2, "max_workers": 4})
        assert container.config == {"own": 1, "other": 2, "max_workers": 4}
        assert container.max_workers == 4
        assert "other" not in global_config


class OwnContainer(ServiceContainer):
    pass


def test_container_is_of_the_configured_class():
    path = f"{__name__}.OwnContainer"
    with ContainerFactory() as factory:
        assert type(factory(Service, {"SERVICE_CONTAINER_CLS": path})).__name__ == "OwnContainer"


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


def test_configuration_of_a_runner_may_come_first():
    with RunnerFactory() as factory:
        assert factory({"own": 1}, Service).containers[0].config == {"own": 1}
        assert factory(None, Service).service_names == ["service"]
        both = factory({"own": 1}, Service, config={"own": 2})
        assert both.containers[0].config == {"own": 2}


def test_mock_container_is_one_that_extensions_can_be_bound_to():
    class Own(SharedExtension):
        pass

    container = make_mock_container()
    assert Own().bind(container) is Own().bind(container)
    assert container.config is global_config
    assert (container.serializer, container.accept) == ("json", ["json"])
    assert not container.stopping.is_set()
    assert isinstance(container, ServiceContainer)
    worker_ctx = WorkerContext(container, None, DummyProvider("method"))
    assert worker_ctx.call_id.startswith("mock_service.method.")
    container.spawn_worker(1, (), {})
    container.spawn_worker.assert_called_once_with(1, (), {})
    with pytest.raises(AttributeError):
        container.no_such_method()


def test_runner_refuses_two_services_of_one_name():
    with RunnerFactory() as factory, pytest.raises(ConfigurationError):
        factory(Service, Service, config={})
