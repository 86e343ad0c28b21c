"""The same with unittest: `python -m unittest`. pytest need not be installed."""

from acme import Orders, Products

from threadko.standalone.rpc import ServiceRpcClient
from threadko.testing.cases import ServiceTestCase


class OrdersAlone(ServiceTestCase):
    def test_order_is_paid_and_told_to_all(self):
        orders = self.worker_factory(Orders, user="coyote")
        orders.products.get.return_value = {"price": 120, "stock": 2}
        orders.payments.charge.return_value = "receipt 1"
        order = orders.place("anvil", 2)
        orders.dispatch.assert_called_once_with("placed", order)


class Shop(ServiceTestCase):
    def setUp(self):
        self.use_broker()
        self.use_web()
        self.runner = self.make_runner(Products, Orders)
        self.products = self.get_container(self.runner, Products)
        self.orders = self.get_container(self.runner, Orders)
        self.payments = self.replace_dependencies(self.orders, "payments")
        self.payments.charge.return_value = "receipt 1"
        self.restrict_entrypoints(self.products, "get", "ship")
        self.runner.start()  # all that is made here is ended when the test is over

    def test_order_is_paid_and_shipped(self):
        with ServiceRpcClient("orders", context_data={"user_id": "coyote"}, timeout=10) as orders:
            with self.entrypoint_waiter(self.products, "ship"):
                self.assertEqual(orders.place("anvil", 2)["total"], 240)
        self.payments.charge.assert_called_once_with("coyote", 240)
        self.assertEqual(self.fire(self.products, "get", "anvil")["stock"], 0)
