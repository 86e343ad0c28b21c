import logging

from threadko.rpc import ServiceRpc, rpc

log = logging.getLogger(__name__)


class OrderService:
    name = "orders"

    prices = ServiceRpc("prices")

    @rpc
    def place(self, item, count=1):
        total = count * self.prices.get(item)
        log.info("placed")
        return total
