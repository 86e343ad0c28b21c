"""Runs the contract's service under nameko, 2.14 or 3: ``service.py AMQP_URI ORDER``."""

# ruff: noqa: E402 - eventlet must patch before anything else is imported

import eventlet

eventlet.monkey_patch()

import sys
from typing import Any

import nameko
import nameko.rpc
from eventlet import tpool
from nameko.containers import ServiceContainer

from tests.interop.hosting import Order, host


def make_cluster(options: dict[str, Any]) -> Any:
    """Return a dependency that injects a client of all services."""
    if hasattr(nameko.rpc, "ClusterRpc"):
        return nameko.rpc.ClusterRpc(**options)

    class Cluster(nameko.rpc.RpcProxy):
        """What 2.14 lacks: its proxy of one service, for whichever service is asked for."""

        def __init__(self, **options: Any) -> None:
            super().__init__(None, **options)

        def get_dependency(self, worker_ctx: Any) -> Any:
            return Services(self, worker_ctx)

    class Services:
        def __init__(self, cluster: Any, worker_ctx: Any) -> None:
            self.cluster = cluster
            self.worker_ctx = worker_ctx

        def __getitem__(self, name: str) -> Any:
            listener = self.cluster.rpc_reply_listener
            return nameko.rpc.ServiceProxy(self.worker_ctx, name, listener, **self.cluster.options)

    return Cluster(**options)


def main(uri: str, text: str) -> None:
    """Host the service until the input ends."""
    order = Order.from_json(text)
    config = {"AMQP_URI": uri, **order.config}
    if hasattr(nameko, "config"):
        nameko.config.setup(config)

    def make_container(service: type) -> Any:
        if hasattr(nameko, "config"):
            return ServiceContainer(service)
        return ServiceContainer(service, config)

    lines = iter(lambda: tpool.execute(sys.stdin.readline), "")
    host("nameko", order, make_cluster(order.options), make_container, lines)


if __name__ == "__main__":
    main(*sys.argv[1:])
