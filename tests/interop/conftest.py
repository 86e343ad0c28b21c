"""Peers for the interoperability tests: real nameko and threadko, each in its own processes.

A service lives for one test module. Its durable queue is deleted at the end, or the broker would
keep it for ever.
"""

import os
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pika
import pytest

from tests.interop.peer import Peer
from tests.support.timing import TIMEOUT


@dataclass(frozen=True)
class RunningService:
    """A service of the contract that is up: its name and its process."""

    name: str
    peer: Peer


@pytest.fixture(scope="session")
def nameko_python() -> str:
    """The Python of an environment that holds nameko 3.0.0rc11."""
    python = os.environ.get("NAMEKO3_PYTHON")
    if not python:
        pytest.skip("NAMEKO3_PYTHON names no Python with nameko 3.0.0rc11: run `make test-all`")
    return python


@pytest.fixture(scope="module")
def nameko_service(nameko_python: str, broker_uri: str) -> Iterator[RunningService]:
    """The contract's service, run by nameko."""
    with running(nameko_python, "tests.interop.nameko_side.service", broker_uri) as service:
        yield service


@pytest.fixture(scope="module")
def threadko_service(broker_uri: str) -> Iterator[RunningService]:
    """The contract's service, run by threadko."""
    with running(sys.executable, "tests.interop.threadko_side.service", broker_uri) as service:
        yield service


@pytest.fixture(scope="module")
def nameko_client(nameko_python: str, broker_uri: str) -> Iterator[Peer]:
    """A process that makes the calls it is asked for with nameko's standalone clients."""
    module = "tests.interop.nameko_side.client"
    with Peer(nameko_python, module, broker_uri, str(TIMEOUT / 2)) as peer:
        yield peer


@contextmanager
def running(python: str, module: str, uri: str) -> Iterator[RunningService]:
    """Run ``module`` as a service with a name of its own; delete its queue when it has ended."""
    name = f"interop_{uuid.uuid4().hex}"
    try:
        with Peer(python, module, uri, name) as peer:
            yield RunningService(name, peer)
    finally:
        delete_queue(uri, f"rpc-{name}")


def delete_queue(uri: str, queue: str) -> None:
    """Delete a queue and whatever it holds."""
    connection = pika.BlockingConnection(pika.URLParameters(uri))
    try:
        connection.channel().queue_delete(queue)
    finally:
        connection.close()
