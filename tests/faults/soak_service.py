"""The service of `python -m tests.faults.soak`; it finds its name and ledger in keys of its own."""

from tests.support.ledger import Ledger
from threadko import config
from threadko.rpc import rpc

__all__ = ["Service"]

_ledger = Ledger(config["soak_ledger"])


class Service:
    """Enters each call in the ledger before it answers."""

    name = config["soak_name"]

    @rpc
    def double(self, number: int) -> int:
        _ledger.enter(number)
        return number * 2
