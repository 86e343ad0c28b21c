"""Runs the listener under threadko: ``listener.py AMQP_URI NAME SOURCE``."""

import sys
from typing import Any

from tests.interop.listening import host, make_listener
from threadko.containers import ServiceContainer
from threadko.standalone.events import event_dispatcher


def main(uri: str, name: str, source: str) -> None:
    """Host the service until the input ends."""
    handled: list[Any] = []
    config = {"AMQP_URI": uri}
    container = ServiceContainer(make_listener("threadko", name, source, handled), config=config)
    dispatch = event_dispatcher(config=config, headers={"nameko.language": "de"})
    host("threadko", uri, container, handled, dispatch)


if __name__ == "__main__":
    main(*sys.argv[1:])
