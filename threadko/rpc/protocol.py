"""What RPC says over the wire: names, bodies, and the check of what comes in. No I/O, no state."""

from collections.abc import Mapping
from typing import Any

from threadko.amqp.entities import Exchange, Queue
from threadko.exceptions import MalformedRequest, deserialize, serialize

__all__ = [
    "RPC_QUEUE_TEMPLATE",
    "RPC_REPLY_QUEUE_TEMPLATE",
    "RPC_REPLY_QUEUE_TTL",
    "parse_reply",
    "parse_request",
    "reply_body",
    "reply_queue",
    "request_body",
    "request_queue",
    "rpc_exchange",
]

RPC_QUEUE_TEMPLATE = "rpc-{}"
RPC_REPLY_QUEUE_TEMPLATE = "rpc.reply-{}-{}"
RPC_REPLY_QUEUE_TTL = 300_000  # ms that a reply queue outlives its last consumer


def rpc_exchange(name: str) -> Exchange:
    """Return the exchange that all requests and replies go through."""
    return Exchange(name, type="topic", durable=True)


def request_queue(
    service_name: str, exchange: Exchange, arguments: Mapping[str, Any] | None = None
) -> Queue:
    """Return the queue that all instances of a service take their requests from."""
    return Queue(
        RPC_QUEUE_TEMPLATE.format(service_name),
        exchange=exchange,
        routing_key=f"{service_name}.*",
        durable=True,
        arguments=dict(arguments or {}),
    )


def reply_queue(caller: str, reply_key: str, exchange: Exchange) -> Queue:
    """Return the queue of one caller's replies, bound to its ``reply_key``.

    It is not exclusive: after a half-open connection the broker would refuse the caller its own
    queue until it has noticed that the old connection is dead.
    """
    return Queue(
        RPC_REPLY_QUEUE_TEMPLATE.format(caller, reply_key),
        exchange=exchange,
        routing_key=reply_key,
        durable=True,
        arguments={"x-expires": RPC_REPLY_QUEUE_TTL},
    )


def request_body(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the body of a request."""
    return {"args": args, "kwargs": kwargs}


def parse_request(body: Any) -> tuple[list[Any], dict[str, Any]]:
    """Return the positional and the keyword arguments in the body of a request.

    Raises:
        MalformedRequest: it is not a mapping with a list ``args`` and a mapping ``kwargs``.
    """
    try:
        args = body["args"]
        kwargs = body["kwargs"]
    except (KeyError, TypeError, IndexError):
        raise MalformedRequest("Message missing `args` or `kwargs`") from None
    if not isinstance(args, list | tuple):
        raise MalformedRequest(f"`args` must be a list, not {type(args).__name__}")
    if not isinstance(kwargs, dict) or not all(isinstance(key, str) for key in kwargs):
        raise MalformedRequest("`kwargs` must be a mapping with names as keys")
    return list(args), kwargs


def reply_body(result: Any, error: BaseException | None) -> dict[str, Any]:
    """Return the body of a reply."""
    return {"result": result, "error": None if error is None else serialize(error)}


def parse_reply(body: Any) -> Any:
    """Return the result in the body of a reply, or raise the error in it."""
    if not isinstance(body, dict):
        raise deserialize({"exc_type": "MalformedReply", "value": repr(body)[:200]})
    error = body.get("error")
    if error:
        raise deserialize(error)
    return body.get("result")
