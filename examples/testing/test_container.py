"""One service in its container, with whatever it calls replaced: still without a broker."""

from types import SimpleNamespace

import pytest
from acme import Orders, SoldOutError

from threadko.testing.services import (
    dummy,
    entrypoint_hook,
    entrypoint_waiter,
    once,
    replace_dependencies,
    restrict_entrypoints,
)


@pytest.fixture
def mocks():
    return SimpleNamespace()


@pytest.fixture
def orders(container_factory, mocks):
    container = container_factory(Orders)
    # What only these were using goes with them, all connections among it.
    mocks.products, mocks.payments, mocks.dispatch = replace_dependencies(
        container, "products", "payments", "dispatch"
    )
    restrict_entrypoints(container, "post")  # calls are out; HTTP needs no broker
    mocks.products.get.return_value = {"price": 75, "stock": 10}
    mocks.payments.charge.return_value = "receipt 1"
    return container


def test_order_is_charged(web_config, web_session, orders, mocks):
    orders.start()
    response = web_session.post("/orders", json={"article": "rocket skates", "count": 2})
    assert response.json()["total"] == 150
    mocks.payments.charge.assert_called_once_with(None, 150)


class Till:
    """A service that only its tests fire."""

    name = "till"

    @dummy
    def add(self, *prices):
        if not prices:
            raise SoldOutError("everything")
        return sum(prices)

    @once("Ada")
    def greet(self, name):
        return f"Hello, {name}!"


def test_method_is_fired_by_hand(container_factory):
    container = container_factory(Till)
    container.start()
    with entrypoint_hook(container, "add") as add:
        assert add(120, 75) == 195
        with pytest.raises(SoldOutError):  # what the method raises, as it is
            add()


def test_what_fires_by_itself_is_waited_for(container_factory):
    container = container_factory(Till)
    with entrypoint_waiter(container, "greet") as result:
        container.start()
    assert result.get() == "Hello, Ada!"
