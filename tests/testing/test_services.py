"""Services without their container, without some dependencies, without some doors."""

from unittest.mock import MagicMock

import pytest

from tests.containers.dummies import in_thread
from threadko.containers import ServiceContainer
from threadko.events import EventDispatcher, event_handler
from threadko.exceptions import ExtensionNotFound
from threadko.extensions import DependencyProvider, SharedExtension
from threadko.rpc import ServiceRpc, rpc
from threadko.rpc.server import RpcConsumer
from threadko.runners import ServiceRunner
from threadko.testing import services
from threadko.testing.services import (
    MockDependencyProvider,
    dummy,
    entrypoint_hook,
    replace_dependencies,
    restrict_entrypoints,
    worker_factory,
)
from threadko.testing.utils import get_extension
from threadko.web.handlers import http

# Nobody listens there: whatever connects fails.
NOWHERE = {"AMQP_URI": "amqp://127.0.0.1:1/", "BROKER_START_TIMEOUT": 0.1}


class Base:
    inherited = ServiceRpc("inherited")


class Shop(Base):
    name = "shop"
    prices = ServiceRpc("prices")
    stock = ServiceRpc("stock")
    dispatch = EventDispatcher()

    @dummy
    def sell(self, article):
        self.dispatch("sold", article)
        return self.prices.get(article), self.stock.take(article), self.inherited.call()

    @rpc
    def count(self):
        return 1

    @event_handler("other", "happened")
    def handle(self, data):
        pass

    @http("GET", "/")
    def get(self, request):
        return "page"


@pytest.fixture
def container(container_factory):
    return container_factory(Shop, NOWHERE)


class TestWorkerFactory:
    def test_dependencies_are_mocks_or_what_is_given(self):
        shop = worker_factory(Shop, prices=(given := MagicMock()), stock=None)
        assert isinstance(shop, Shop)
        assert shop.prices is given
        assert shop.stock is None
        shop = worker_factory(Shop)
        shop.prices.get.return_value = 3
        assert shop.sell("hat") == (3, shop.stock.take(), shop.inherited.call())
        shop.dispatch.assert_called_once_with("sold", "hat")

    def test_two_instances_share_nothing(self):
        assert worker_factory(Shop).prices is not worker_factory(Shop).prices

    def test_unknown_dependency_is_an_error_that_lists_those_there_are(self):
        there_are = "there are: dispatch, inherited, prices, stock"
        with pytest.raises(ExtensionNotFound, match=f"no dependency named 'price'; {there_are}"):
            worker_factory(Shop, price=1)


class TestReplace:
    def test_one_name_gives_its_mock(self, container):
        prices = replace_dependencies(container, "prices")
        assert isinstance(prices, MagicMock)

    def test_several_names_give_their_mocks_in_order(self, container):
        prices, stock = replace_dependencies(container, "prices", "stock")
        by_name = {each.attr_name: each for each in container.dependencies}
        assert by_name["prices"].get_dependency(None) is prices
        assert by_name["stock"].get_dependency(None) is stock

    def test_own_objects_give_no_mocks(self, container):
        assert list(replace_dependencies(container, prices=1, stock=None)) == []
        by_name = {each.attr_name: each for each in container.dependencies}
        assert by_name["prices"].get_dependency(None) == 1
        assert by_name["stock"].get_dependency(None) is None

    def test_mocks_and_own_objects_go_together(self, container):
        assert isinstance(replace_dependencies(container, "prices", stock=1), MagicMock)

    def test_order_of_declaration_is_kept(self, container):
        before = [each.attr_name for each in container.dependencies]
        replace_dependencies(container, "stock", "prices")
        assert [each.attr_name for each in container.dependencies] == before

    def test_unknown_dependency_is_an_error(self, container):
        with pytest.raises(ExtensionNotFound, match="shop has no dependency named 'price'"):
            replace_dependencies(container, "price")

    @pytest.mark.parametrize(
        ("names", "given"), [(("prices", "prices"), {}), (("prices",), {"prices": 1})]
    )
    def test_name_that_is_given_twice_is_an_error(self, container, names, given):
        with pytest.raises(RuntimeError, match="twice is: prices"):
            replace_dependencies(container, *names, **given)

    def test_container_that_was_started_is_an_error(self, container_factory):
        class Service:
            name = "service"
            mock = MockDependencyProvider("mock", 1)

        container = container_factory(Service, {})
        container.start()
        with pytest.raises(RuntimeError, match="was started already"):
            replace_dependencies(container, "mock")

    def test_service_with_all_mocked_needs_no_broker(self, container):
        mocks = replace_dependencies(container, "prices", "stock", "dispatch", "inherited")
        restrict_entrypoints(container, "sell")
        prices, _, dispatch, _ = mocks
        prices.get.return_value = 3
        container.start()
        assert container.shared_extensions == {}
        with entrypoint_hook(container, "sell") as sell:
            assert sell("hat")[0] == 3
        dispatch.assert_called_once_with("sold", "hat")

    def test_shared_extension_stays_as_long_as_someone_uses_it(self, container):
        listener = container.dependencies[0].reply_listener
        replace_dependencies(container, "prices", "stock")
        assert listener in container.extensions
        assert listener in container.shared_extensions.values()
        replace_dependencies(container, "inherited")
        assert listener not in container.extensions
        assert listener not in container.shared_extensions.values()
        assert listener not in container.subextensions

    def test_shared_extension_that_nobody_declares_is_left_alone(self, container):
        class Own(SharedExtension):
            pass

        own = Own().bind(container)
        replace_dependencies(container, "prices")
        assert own in container.shared_extensions.values()

    def test_threads_that_replace_different_ones_lose_none(self, container):
        names = ["prices", "stock", "dispatch", "inherited"]
        calls = [
            in_thread(lambda name=name: replace_dependencies(container, name)) for name in names
        ]
        assert [call.finish() for call in calls] == [None] * 4
        assert all(type(each) is MockDependencyProvider for each in container.dependencies)


class TestRestrict:
    def test_other_entrypoints_go_with_what_they_used(self, container):
        restrict_entrypoints(container, "sell", "get")
        assert [each.method_name for each in container.entrypoints] == ["sell", "get"]
        assert get_extension(container, RpcConsumer) is None

    def test_all_entrypoints_of_a_method_stay(self, container_factory):
        class Service:
            name = "service"

            @dummy
            @rpc
            def method(self):
                pass

            @dummy
            def other(self):
                pass

        container = container_factory(Service, {})
        restrict_entrypoints(container, "method")
        assert [each.method_name for each in container.entrypoints] == ["method", "method"]
        assert get_extension(container, RpcConsumer) is not None

    def test_no_names_leave_no_entrypoints(self, container):
        restrict_entrypoints(container)
        assert container.entrypoints == ()

    def test_unknown_entrypoint_is_an_error(self, container):
        with pytest.raises(ExtensionNotFound, match="shop has no entrypoint named 'buy'"):
            restrict_entrypoints(container, "buy")

    def test_container_that_was_started_is_an_error(self, container_factory):
        class Service:
            name = "service"

            @dummy
            def method(self):
                pass

        container = container_factory(Service, {})
        container.start()
        with pytest.raises(RuntimeError, match="was started already"):
            restrict_entrypoints(container)


def test_mock_provider_injects_what_it_was_given(container_factory):
    class Service:
        name = "service"
        given = MockDependencyProvider("given", 1)
        other = MockDependencyProvider("other")

        @dummy
        def method(self):
            return self.given, self.other

    container = container_factory(Service, {})
    container.start()
    with entrypoint_hook(container, "method") as method:
        given, other = method()
    assert given == 1
    assert isinstance(other, MagicMock)


def test_extension_of_another_container_cannot_be_replaced(container_factory):
    class Service:
        name = "service"
        own = DependencyProvider()

    container, other = ServiceContainer(Service, config={}), ServiceContainer(Service, config={})
    with pytest.raises(ExtensionNotFound, match="is not in"):
        container.replace_extensions([(other.dependencies[0], None)])
    container.replace_extensions([(container.dependencies[0], None)])
    assert container.extensions == ()


def test_all_names_come_from_one_module():
    assert sorted(services.__all__) == services.__all__
    assert {"entrypoint_hook", "entrypoint_waiter", "once", "dummy"} < set(services.__all__)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (Base, r"not the class Base: container_factory\(Base\) makes one"),
        (ServiceRunner(), r"not a runner: get_container\(\) finds one"),
        (Base(), "not Base objects"),
        (None, "not NoneType objects"),
    ],
)
@pytest.mark.parametrize(
    "use",
    [
        lambda given: entrypoint_hook(given, "method").__enter__(),
        lambda given: services.entrypoint_waiter(given, "method"),
        lambda given: get_extension(given, DependencyProvider),
        lambda given: replace_dependencies(given, "dependency"),
        lambda given: restrict_entrypoints(given, "method"),
    ],
)
def test_whatever_is_no_container_is_refused_with_what_to_do(use, given, text):
    with pytest.raises(TypeError, match=f"a container is needed here, {text}"):
        use(given)
