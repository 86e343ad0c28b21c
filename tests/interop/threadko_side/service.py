"""Runs the contract's service under threadko: ``service.py AMQP_URI ORDER``."""

import sys

from tests.interop.hosting import Order, host
from threadko.containers import ServiceContainer
from threadko.rpc import ClusterRpc


def main(uri: str, text: str) -> None:
    """Host the service until the input ends."""
    order = Order.from_json(text)
    config = {"AMQP_URI": uri, **order.config}
    host(
        "threadko",
        order,
        ClusterRpc(**order.options),
        lambda service: ServiceContainer(service, config=config),
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
