"""Calls services with nameko's standalone clients, of 2.14 or 3: ``client.py AMQP_URI``."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import nameko
from nameko.exceptions import deserialize, deserialize_to_instance
from nameko.standalone import rpc

from tests.interop.calling import answer_calls
from tests.interop.contract import AwkwardError, OutOfStockError
from tests.interop.lines import unpack


def main(uri: str) -> None:
    """Make calls until the input ends."""
    for error in (OutOfStockError, AwkwardError):
        deserialize_to_instance(error)
    if hasattr(nameko, "config"):
        nameko.config.setup({"AMQP_URI": uri})

    @contextmanager
    def open_client(request: dict[str, Any]) -> Iterator[Any]:
        target = [request["service"]] if request["bound"] else []
        options = {"context_data": unpack(request["context"]), "timeout": request["timeout"]}
        if not hasattr(nameko, "config"):  # 2.14: no global configuration, clients are proxies
            proxy = rpc.ServiceRpcProxy if request["bound"] else rpc.ClusterRpcProxy
            with proxy(*target, {"AMQP_URI": uri, **request["config"]}, **options) as client:
                yield client
            return
        with nameko.config.patch(request["config"]):
            opened = rpc.ServiceRpcClient if request["bound"] else rpc.ClusterRpcClient
            with opened(*target, **options) as client:
                yield client

    answer_calls(open_client, deserialize)


if __name__ == "__main__":
    main(*sys.argv[1:])
