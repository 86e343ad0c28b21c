"""Runs the contract's service under nameko: ``service.py AMQP_URI NAME``, until input ends."""

# ruff: noqa: E402 - eventlet must patch before anything else is imported

import eventlet

eventlet.monkey_patch()

import sys

import nameko
from eventlet import tpool
from nameko.containers import ServiceContainer

from tests.interop.contract import make_service
from tests.interop.lines import tell


def main(uri: str, name: str) -> None:
    """Start the service, tell that it is ready, and stop it when the input ends."""
    nameko.config.setup({"AMQP_URI": uri})
    container = ServiceContainer(make_service("nameko", name))
    container.start()
    tell({"ready": True})
    tpool.execute(sys.stdin.read)
    container.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
