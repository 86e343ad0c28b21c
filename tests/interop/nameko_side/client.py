"""Calls services with nameko's standalone client: ``client.py AMQP_URI``, one call per line.

A request is ``{service, method, args, kwargs, context, bound}``. The answer is ``{"result": ...}``,
or ``{"raised": {...}}`` with the class, the arguments and the remote fields of the exception.
"""

import sys
from typing import Any

from nameko.standalone.rpc import ClusterRpcClient, ServiceRpcClient

from tests.interop.lines import serve, tell


def main(uri: str, timeout: str) -> None:
    """Answer one call per line until the input ends."""

    def handle(request: dict[str, Any]) -> dict[str, Any]:
        options = {"uri": uri, "timeout": float(timeout), "context_data": request["context"]}
        try:
            if request["bound"]:
                with ServiceRpcClient(request["service"], **options) as service:
                    return {"result": call(service, request)}
            with ClusterRpcClient(**options) as cluster:
                return {"result": call(cluster[request["service"]], request)}
        except Exception as error:
            return {"raised": describe(error)}

    tell({"ready": True})
    serve(handle)


def call(service: Any, request: dict[str, Any]) -> Any:
    """Call the method that the request names."""
    return getattr(service, request["method"])(*request["args"], **request["kwargs"])


def describe(error: Exception) -> dict[str, Any]:
    """Tell what an exception is, in values that JSON carries."""
    return {
        "class": f"{type(error).__module__}.{type(error).__name__}",
        "args": [str(argument) for argument in error.args],
        "exc_type": getattr(error, "exc_type", None),
        "value": getattr(error, "value", None),
    }


if __name__ == "__main__":
    main(*sys.argv[1:])
