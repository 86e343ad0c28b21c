"""Runs the contract's service under threadko: ``service.py AMQP_URI NAME``, until input ends."""

import sys

from tests.interop.contract import make_service
from tests.interop.lines import tell
from threadko.containers import ServiceContainer


def main(uri: str, name: str) -> None:
    """Start the service, tell that it is ready, and stop it when the input ends."""
    container = ServiceContainer(make_service("threadko", name), config={"AMQP_URI": uri})
    container.start()
    tell({"ready": True})
    sys.stdin.read()
    container.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
