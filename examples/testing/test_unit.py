"""Unit tests: one service, nothing around it."""

import pytest
from acme import Orders, Products, Shelves, SoldOutError

from threadko.testing.services import worker_factory


def test_order_is_paid_and_told_to_all():
    # No container, no broker, no thread: the dependencies are mocks.
    orders = worker_factory(Orders, user="coyote")
    orders.products.get.return_value = {"price": 120, "stock": 2}
    orders.payments.charge.return_value = "receipt 1"

    order = orders.place("anvil", 2)

    assert order == {"article": "anvil", "count": 2, "total": 240, "receipt": "receipt 1"}
    orders.payments.charge.assert_called_once_with("coyote", 240)
    orders.dispatch.assert_called_once_with("placed", order)


def test_nobody_pays_for_what_is_sold_out():
    orders = worker_factory(Orders)
    orders.products.get.return_value = {"price": 5, "stock": 0}
    with pytest.raises(SoldOutError):
        orders.place("tornado seeds", 1)
    orders.payments.charge.assert_not_called()


def test_shipping_empties_the_shelves():
    # A dependency that is cheap enough may be the real one.
    shelves = Shelves()
    products = worker_factory(Products, shelves=shelves)
    products.ship({"article": "anvil", "count": 2})
    assert shelves.look("anvil")["stock"] == 0
