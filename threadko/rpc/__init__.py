"""Remote procedure calls between services over the broker."""

from threadko.rpc.calls import RpcCall
from threadko.rpc.client import Client
from threadko.rpc.providers import ClusterRpc, ReplyListener, ServiceRpc
from threadko.rpc.server import Rpc, RpcConsumer, rpc

__all__ = [
    "Client",
    "ClusterRpc",
    "ReplyListener",
    "Rpc",
    "RpcCall",
    "RpcConsumer",
    "ServiceRpc",
    "rpc",
]
