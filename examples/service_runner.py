"""Hosts several services side by side."""

import os

from threadko.rpc import ServiceRpc, rpc
from threadko.runners import ServiceRunner, run_services
from threadko.standalone.rpc import ServiceRpcClient

CONFIG = {"AMQP_URI": os.environ.get("AMQP_URI", "amqp://guest:guest@localhost:5672/")}


class Prices:
    name = "prices"

    @rpc
    def get(self, article):
        return {"tea": 3, "cake": 4}[article]


class Baskets:
    name = "baskets"

    prices = ServiceRpc("prices")

    @rpc
    def total(self, articles):
        return sum(self.prices.get(article) for article in articles)


def ask():
    with ServiceRpcClient("baskets", uri=CONFIG["AMQP_URI"], timeout=10) as baskets:
        print(baskets.total(["tea", "cake", "cake"]))


def main():
    runner = ServiceRunner(config=CONFIG)
    runner.add_service(Prices)
    runner.add_service(Baskets)
    runner.start()
    try:
        ask()
    finally:
        runner.stop()

    # The same, in short.
    with run_services(Prices, Baskets, config=CONFIG):
        ask()


if __name__ == "__main__":
    main()
