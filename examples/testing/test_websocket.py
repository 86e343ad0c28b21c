"""A test with websockets, and one of an extension by itself."""

from threadko.extensions import DependencyProvider
from threadko.web.websocket import WebSocketHubProvider, rpc


class Ticker:
    name = "ticker"

    hub = WebSocketHubProvider()

    @rpc
    def listen(self, socket_id):
        self.hub.subscribe(socket_id, "prices")

    @rpc
    def announce(self, socket_id, article, price):
        self.hub.broadcast("prices", "price", {article: price})


def test_all_listeners_hear_of_a_price(container_factory, web_config, websocket):
    container_factory(Ticker).start()
    first, second = websocket(), websocket()
    for each in (first, second):
        each.rpc("listen")
    first.rpc("announce", article="anvil", price=99)
    for each in (first, second):
        assert each.wait_for_event("price") == ("price", {"anvil": 99})


class Discount(DependencyProvider):
    def setup(self):
        self.percent = self.container.config.get("discount", 0)

    def get_dependency(self, worker_ctx):
        return lambda price: price * (100 - self.percent) / 100


def test_extension_by_itself(mock_container):
    mock_container.config = {"discount": 10}
    discount = Discount().bind(mock_container, "discount")
    discount.setup()
    assert discount.get_dependency(None)(50) == 45
