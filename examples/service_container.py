"""Hosts a service in a program of its own, which starts and stops it."""

import os

from threadko.containers import ServiceContainer
from threadko.rpc import rpc
from threadko.standalone.rpc import ServiceRpcClient

URI = os.environ.get("AMQP_URI", "amqp://guest:guest@localhost:5672/")


class Service:
    name = "contained_service"

    @rpc
    def double(self, number):
        return 2 * number


def main():
    container = ServiceContainer(Service, config={"AMQP_URI": URI})
    container.start()
    try:
        with ServiceRpcClient("contained_service", uri=URI, timeout=10) as client:
            print(client.double(21))
    finally:
        # Calls that run are finished first.
        container.stop()


if __name__ == "__main__":
    main()
