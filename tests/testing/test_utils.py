"""The small tools."""

import functools
import queue
import socket
import threading
from unittest.mock import Mock

import pytest

from tests.containers.dummies import in_thread
from tests.support.timing import TIMEOUT
from threadko.containers import ServiceContainer
from threadko.extensions import DependencyProvider, Entrypoint, Extension
from threadko.runners import ServiceRunner
from threadko.testing.utils import (
    ANY_PARTIAL,
    AnyInstanceOf,
    DummyProvider,
    ResourcePipeline,
    assert_stops_raising,
    find_free_port,
    get_container,
    get_extension,
    get_rabbit_connections,
    reset_rabbit_connections,
    wait_for_call,
)
from threadko.testing.waiting import WaitTimeout


class Owned(Extension):
    pass


class Owner(DependencyProvider):
    owned = Owned()


class Service:
    name = "service"
    owner = Owner()

    @Entrypoint.decorator
    def first(self):
        pass

    @Entrypoint.decorator
    def second(self):
        pass


class Other:
    name = "other"


@pytest.fixture
def container():
    return ServiceContainer(Service, config={})


def test_extension_is_found_by_class_and_attributes(container):
    assert get_extension(container, Owner) is container.dependencies[0]
    assert get_extension(container, Owned) is container.dependencies[0].owned
    assert get_extension(container, Entrypoint, method_name="second") is container.entrypoints[1]


@pytest.mark.parametrize("attributes", [{"method_name": "third"}, {"there_is_none": None}])
def test_no_extension_is_found_where_none_matches(container, attributes):
    assert get_extension(container, Entrypoint, **attributes) is None


def test_container_is_found_in_a_runner():
    runner = ServiceRunner(config={})
    runner.add_service(Service)
    assert get_container(runner, Service).service_cls is Service
    assert get_container(runner, Other) is None


def test_block_is_entered_when_the_mock_was_called():
    mocked, waiting = Mock(), threading.Event()

    def call_later():
        waiting.wait(TIMEOUT)
        mocked(1)

    later = in_thread(call_later)
    waiting.set()
    with wait_for_call(TIMEOUT, mocked) as called:
        assert called is mocked
        mocked.assert_called_once_with(1)
    assert later.finish() is None


def test_block_is_not_entered_when_the_mock_is_not_called():
    with pytest.raises(WaitTimeout, match=r"was not called within 0\.02 seconds"):
        with wait_for_call(0.02, Mock()):
            pytest.fail("entered")


def test_function_is_called_until_it_raises_no_more():
    function = Mock(side_effect=[ValueError, ValueError, 3])
    assert assert_stops_raising(function, ValueError, timeout=TIMEOUT, interval=0) == 3


def test_function_that_goes_on_raising_is_an_error_that_says_what_it_raised():
    function = Mock(side_effect=ValueError("broken"))
    with pytest.raises(WaitTimeout, match="still raises after 0 seconds: ValueError: broken") as e:
        assert_stops_raising(function, timeout=0)
    assert isinstance(e.value.__cause__, ValueError)


def test_other_exceptions_are_not_waited_out():
    with pytest.raises(KeyError):
        assert_stops_raising(Mock(side_effect=KeyError), ValueError)


def test_any_instance_equals_those_of_its_class():
    assert [AnyInstanceOf(int), AnyInstanceOf((int, str))] == [1, "a"]
    assert AnyInstanceOf(int) != "a"
    assert repr(AnyInstanceOf(int)) == "<any int>"
    assert repr(AnyInstanceOf((int, str))) == "<any int or str>"


def test_any_partial_equals_partials_alone():
    assert functools.partial(len, []) == ANY_PARTIAL
    assert len != ANY_PARTIAL
    assert repr(ANY_PARTIAL) == "<any partial>"


def test_dummy_provider_is_dependency_and_entrypoint(container):
    bound = DummyProvider("method").bind(container, "name")
    assert (bound.attr_name, bound.method_name, bound.container) == ("name", "name", container)
    assert DummyProvider("method").method_name == "method"
    assert isinstance(bound, Entrypoint)
    assert isinstance(bound, DependencyProvider)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_free_port_can_be_listened_on(host):
    with socket.create_server((host, find_free_port(host))):
        pass


def test_free_port_of_ipv6():
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 on this machine: enable it to run this")
    with socket.create_server(("::1", find_free_port("::1")), family=socket.AF_INET6):
        pass


class Manager:
    def __init__(self):
        self.deleted = []

    def get_connections(self):
        return [{"vhost": "a", "name": "1"}, {"vhost": "b", "name": "2"}]

    def delete_connection(self, name):
        self.deleted.append(name)


def test_connections_of_one_vhost_are_found_and_closed():
    manager = Manager()
    assert get_rabbit_connections("a", manager) == [{"vhost": "a", "name": "1"}]
    reset_rabbit_connections("b", manager)
    assert manager.deleted == ["2"]


class Resources:
    def __init__(self):
        self.created = 0
        self.destroyed = queue.SimpleQueue()

    def create(self):
        self.created += 1
        return self.created

    def all_destroyed(self):
        destroyed = set()
        while not self.destroyed.empty():
            destroyed.add(self.destroyed.get())
        return destroyed


def test_resources_are_used_once_and_all_destroyed():
    resources = Resources()
    with ResourcePipeline(resources.create, resources.destroyed.put, 2).run() as pipeline:
        used = []
        for _ in range(5):
            with pipeline.get() as resource:
                used.append(resource)
    assert used == [1, 2, 3, 4, 5]
    assert resources.all_destroyed() == set(range(1, resources.created + 1))
    assert resources.created <= 7


def test_resource_is_destroyed_when_its_block_raises():
    resources = Resources()
    with ResourcePipeline(resources.create, resources.destroyed.put).run() as pipeline:
        with pytest.raises(KeyError), pipeline.get() as resource:
            raise KeyError
        assert resources.destroyed.get(timeout=TIMEOUT) == resource


def test_failure_to_create_is_raised_by_who_wants_a_resource():
    create = Mock(side_effect=[ValueError("broken"), 2, 3, 4, 5])
    with ResourcePipeline(create, Mock(), 1).run() as pipeline:
        with pytest.raises(ValueError, match="broken"), pipeline.get():
            pytest.fail("entered")
        with pipeline.get() as resource:
            assert resource == 2


def test_failure_to_destroy_is_raised_at_the_end():
    destroy = Mock(side_effect=ValueError("broken"))
    with pytest.raises(ValueError, match="broken"):
        with ResourcePipeline(Mock(), destroy, 2).run() as pipeline, pipeline.get():
            pass
    assert destroy.call_count >= 1


def test_resource_that_is_not_destroyed_in_time_is_an_error():
    release = threading.Event()
    pipeline = ResourcePipeline(Mock(), lambda _: release.wait(TIMEOUT), end_timeout=0.05)
    with pytest.raises(WaitTimeout, match="still being made or destroyed"):
        with pipeline.run(), pipeline.get():
            pass
    release.set()


def test_pipeline_of_no_size_is_refused():
    with pytest.raises(RuntimeError, match="at least 1"):
        ResourcePipeline(Mock(), Mock(), 0)
