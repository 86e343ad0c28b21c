"""Calls services with threadko's standalone clients: ``client.py AMQP_URI``."""

import sys
from contextlib import AbstractContextManager
from typing import Any

from tests.interop.calling import answer_calls
from tests.interop.contract import AwkwardError, OutOfStockError
from tests.interop.lines import unpack
from threadko.exceptions import deserialize, deserialize_to_instance
from threadko.standalone.rpc import ClusterRpcClient, ServiceRpcClient


def main(uri: str) -> None:
    """Make calls until the input ends."""
    for error in (OutOfStockError, AwkwardError):
        deserialize_to_instance(error)

    def open_client(request: dict[str, Any]) -> AbstractContextManager[Any]:
        options: dict[str, Any] = {
            "context_data": unpack(request["context"]),
            "timeout": request["timeout"],
            "config": {"AMQP_URI": uri, **request["config"]},
        }
        if request["bound"]:
            return ServiceRpcClient(request["service"], **options)
        return ClusterRpcClient(**options)

    answer_calls(open_client, deserialize)


if __name__ == "__main__":
    main(*sys.argv[1:])
