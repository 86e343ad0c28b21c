"""An integration test: the whole shop, save what costs money or takes all night."""

import pytest
from acme import Orders, Products

from threadko.exceptions import RemoteError
from threadko.standalone.rpc import ServiceRpcClient
from threadko.testing.services import (
    entrypoint_waiter,
    replace_dependencies,
    restrict_entrypoints,
)
from threadko.testing.utils import get_container


@pytest.fixture
def shop(runner_factory, rabbit_config, web_config):
    """Products and orders on a broker of their own; payments is a mock."""
    runner = runner_factory(Products, Orders)
    runner.products = get_container(runner, Products)
    runner.orders = get_container(runner, Orders)
    runner.payments = replace_dependencies(runner.orders, "payments")
    runner.payments.charge.return_value = "receipt 1"
    restrict_entrypoints(runner.products, "get", "ship")  # the timer stays out
    runner.start()
    return runner


@pytest.fixture
def orders(shop):
    with ServiceRpcClient("orders", context_data={"user_id": "coyote"}, timeout=10) as client:
        yield client


def test_order_is_paid_and_shipped(shop, orders):
    # `ship` runs after `place` has answered: leave the block when it is through.
    with entrypoint_waiter(shop.products, "ship"):
        order = orders.place("anvil", 2)
    assert order["total"] == 240
    shop.payments.charge.assert_called_once_with("coyote", 240)
    with pytest.raises(RemoteError, match="SoldOutError anvil"):
        orders.place("anvil", 1)


def test_order_over_http(shop, web_session):
    with entrypoint_waiter(shop.products, "ship"):
        response = web_session.post("/orders", json={"article": "rocket skates", "count": 1})
    assert response.status_code == 201
    assert response.json()["total"] == 75


def test_sold_out_over_http(shop, web_session):
    response = web_session.post("/orders", json={"article": "tornado seeds", "count": 1})
    assert (response.status_code, response.text) == (409, "tornado seeds is sold out")


def test_one_order_of_many_is_waited_for(shop, orders):
    def is_anvil(worker_ctx, result, exc_info):
        return worker_ctx.args[0]["article"] == "anvil"

    with entrypoint_waiter(shop.products, "ship", callback=is_anvil) as result:
        for article in ("rocket skates", "anvil", "rocket skates"):
            orders.place(article, 1)
    assert result.worker_ctx.context_data["user_id"] == "coyote"
