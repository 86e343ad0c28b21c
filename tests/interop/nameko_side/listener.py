"""Runs the listener under nameko, 2.14 or 3: ``listener.py AMQP_URI NAME SOURCE``."""

# ruff: noqa: E402 - eventlet must patch before anything else is imported

import eventlet

eventlet.monkey_patch()

import sys
from typing import Any

import nameko
from eventlet import tpool
from nameko.containers import ServiceContainer
from nameko.standalone.events import event_dispatcher

from tests.interop.listening import host, make_listener


def main(uri: str, name: str, source: str) -> None:
    """Host the service until the input ends."""
    handled: list[Any] = []
    config = {"AMQP_URI": uri}
    service = make_listener("nameko", name, source, handled)
    headers = {"nameko.language": "de"}
    if hasattr(nameko, "config"):
        nameko.config.setup(config)
        container = ServiceContainer(service)
        dispatch = event_dispatcher(headers=headers)
    else:
        container = ServiceContainer(service, config)
        dispatch = event_dispatcher(config, headers=headers)
    lines = iter(lambda: tpool.execute(sys.stdin.readline), "")
    host("nameko", uri, container, handled, dispatch, lines)


if __name__ == "__main__":
    main(*sys.argv[1:])
