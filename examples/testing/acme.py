"""The shop of the ACME Corporation: products, orders and payments, each a service of its own.

Small enough to read, with everything that makes testing interesting: HTTP outside, calls and events
inside, a dependency that keeps things, and a service that costs real money.
"""

import json
import threading

from threadko.contextdata import UserId
from threadko.events import EventDispatcher, event_handler
from threadko.extensions import DependencyProvider
from threadko.rpc import ServiceRpc, rpc
from threadko.timer import timer
from threadko.web.handlers import http


class SoldOutError(Exception):
    pass


class Shelves(DependencyProvider):
    """What is in the warehouse. Workers run side by side, so a lock guards the numbers."""

    def __init__(self):
        self._lock = threading.Lock()
        self._articles = {
            "anvil": {"price": 120, "stock": 2},
            "rocket skates": {"price": 75, "stock": 10},
            "tornado seeds": {"price": 5, "stock": 0},
        }

    def get_dependency(self, worker_ctx):
        return self

    def look(self, article):
        with self._lock:
            return dict(self._articles[article])

    def take(self, article, count):
        with self._lock:
            self._articles[article]["stock"] -= count


class Products:
    name = "products"

    shelves = Shelves()
    dispatch = EventDispatcher()

    @rpc
    def get(self, article):
        return self.shelves.look(article)

    @event_handler("orders", "placed")
    def ship(self, order):
        self.shelves.take(order["article"], order["count"])
        self.dispatch("shipped", order)

    @timer(interval=3600, eager=True)
    def count_everything(self):
        raise NotImplementedError("takes all night, and no test wants it")


class Orders:
    name = "orders"

    user = UserId()
    products = ServiceRpc("products")
    payments = ServiceRpc("payments")
    dispatch = EventDispatcher()

    @rpc(expected_exceptions=SoldOutError)
    def place(self, article, count):
        product = self.products.get(article)
        if product["stock"] < count:
            raise SoldOutError(article)
        total = count * product["price"]
        receipt = self.payments.charge(self.user, total)
        order = {"article": article, "count": count, "total": total, "receipt": receipt}
        self.dispatch("placed", order)
        return order

    @http("POST", "/orders")
    def post(self, request):
        wanted = request.get_json()
        try:
            order = self.place(wanted["article"], wanted["count"])
        except SoldOutError as error:
            return 409, f"{error} is sold out"
        return 201, json.dumps(order)


class Payments:
    name = "payments"

    @rpc
    def charge(self, user, amount):
        raise NotImplementedError("this is real money")
