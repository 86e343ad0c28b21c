"""A container inside a program with threads of its own, which hears of its end."""

import os
import threading

from threadko.containers import Observer, ServiceContainer
from threadko.rpc import rpc
from threadko.standalone.rpc import ServiceRpcClient

CONFIG = {"AMQP_URI": os.environ.get("AMQP_URI", "amqp://guest:guest@localhost:5672/")}


class Service:
    name = "embedded_service"

    @rpc
    def greet(self, name):
        return f"Hello, {name}!"


def tell(container, error):
    print("ended well" if error is None else f"ended by {error!r}")


def visit(client, name, greetings):
    greetings.append(client.greet(name))


def main():
    container = ServiceContainer(Service, config=CONFIG)
    container.observers.add(Observer(on_death=tell))
    container.start()
    try:
        # One client serves all threads.
        with ServiceRpcClient("embedded_service", config=CONFIG, timeout=10) as client:
            greetings = []
            visitors = [
                threading.Thread(target=visit, args=(client, name, greetings))
                for name in ("Ada", "Ben")
            ]
            for visitor in visitors:
                visitor.start()
            for visitor in visitors:
                visitor.join()
        print(*sorted(greetings), sep="\n")
    finally:
        container.stop()


if __name__ == "__main__":
    main()
