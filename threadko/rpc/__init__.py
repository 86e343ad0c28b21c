"""Remote procedure calls between services over the broker."""

from threadko.rpc.calls import RpcCall
from threadko.rpc.client import Client, Proxy
from threadko.rpc.options import RESTRICTED_PUBLISHER_OPTIONS
from threadko.rpc.protocol import (
    RPC_QUEUE_TEMPLATE,
    RPC_REPLY_QUEUE_TEMPLATE,
    RPC_REPLY_QUEUE_TTL,
)
from threadko.rpc.providers import (
    ClusterRpc,
    ReplyListener,
    RpcProxy,
    ServiceRpc,
    get_rpc_exchange,
)
from threadko.rpc.server import Rpc, RpcConsumer, rpc

__all__ = [
    "Client",
    "ClusterRpc",
    "Proxy",
    "RESTRICTED_PUBLISHER_OPTIONS",
    "RPC_QUEUE_TEMPLATE",
    "RPC_REPLY_QUEUE_TEMPLATE",
    "RPC_REPLY_QUEUE_TTL",
    "ReplyListener",
    "Rpc",
    "RpcCall",
    "RpcConsumer",
    "RpcProxy",
    "ServiceRpc",
    "get_rpc_exchange",
    "rpc",
]
