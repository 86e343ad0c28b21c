"""One client in a web application, shared by all its requests, while its connections are cut."""

import http.client
import json
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import pika_channel
from tests.stories.process import Process
from tests.support.broker import alone, find_free_ports
from tests.support.proxy import Proxy
from tests.support.timing import TIMEOUT
from threadko.containers import ServiceContainer
from threadko.rpc import rpc

EXAMPLES = Path(__file__).parents[2] / "examples"
HOSTS = "tests.stories.hosts"

AT_ONCE = 32

#: How each host is started, and in how many processes it serves.
COMMANDS = {
    "flask": (f"flask --app {HOSTS}.flask_app run --port {{port}}", 1),
    "gunicorn": (f"gunicorn -b 127.0.0.1:{{port}} -w 2 --threads 16 {HOSTS}.flask_app:app", 2),
    "gunicorn preloaded": (
        f"gunicorn -b 127.0.0.1:{{port}} -w 2 --threads 16 --preload {HOSTS}.flask_app:app",
        2,
    ),
    "django": (f"gunicorn -b 127.0.0.1:{{port}} --threads 32 {HOSTS}.django_app:application", 1),
    "fastapi": (f"uvicorn --port {{port}} --log-level warning {HOSTS}.fastapi_app:app", 1),
}


class Host:
    """A web application in a process of its own, and what it answers."""

    def __init__(self, process: Process, port: int, processes: int) -> None:
        self.process = process
        self._port = port
        self._processes = processes

    def get(self, path: str) -> tuple[int, Any]:
        """Return the status and the value that came."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=2 * TIMEOUT)
        try:
            connection.request("GET", path, headers={"Connection": "close"})
            response = connection.getresponse()
            body = response.read()
            return response.status, json.loads(body) if response.status == 200 else body
        finally:
            connection.close()

    def wait_up(self) -> None:
        """Wait until it answers."""
        end = time.monotonic() + 2 * TIMEOUT
        while True:
            try:
                if self.get("/state")[0] == 200:
                    return
            except OSError:
                assert self.process.poll() is None, self.process
                assert time.monotonic() < end, self.process
                threading.Event().wait(0.05)

    def states(self) -> dict[int, Any]:
        """Return what each of its processes tells, when no call waits in it."""
        found: dict[int, Any] = {}
        end = time.monotonic() + TIMEOUT
        while len(found) < self._processes:
            assert time.monotonic() < end, f"{found} {self.process}"
            with ThreadPoolExecutor(AT_ONCE) as pool:  # or one process would answer all
                for _, state in pool.map(self.get, ["/state"] * AT_ONCE):
                    if state["pending"] == 0:
                        found[state["pid"]] = state
        return found


@pytest.fixture
def broker_uri(broker_uri: str) -> Iterator[str]:
    """A broker that no other test of this run uses, for the names of examples are fixed."""
    with alone(broker_uri) as uri:
        yield uri


@pytest.fixture
def quotes(broker_uri: str, proxy: Proxy) -> Iterator[ServiceContainer]:
    """The service that the examples call."""

    class Quotes:
        name = "quotes"

        @rpc
        def price(self, number: int) -> int:
            return 3 * number

    container = ServiceContainer(Quotes, config={"AMQP_URI": proxy.uri_for(broker_uri)})
    container.start()
    yield container
    container.stop()
    with pika_channel(broker_uri) as channel:
        channel.queue_delete("rpc-quotes")


@pytest.fixture(params=list(COMMANDS))
def host(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    broker_uri: str,
    proxy: Proxy,
    quotes: ServiceContainer,
) -> Iterator[Host]:
    command, processes = COMMANDS[request.param]
    [port] = find_free_ports(1)
    monkeypatch.setenv("AMQP_URI", proxy.uri_for(broker_uri))
    arguments = command.format(port=port).split()
    with Process("-m", *arguments, cwd=EXAMPLES) as process:
        host = Host(process, port, processes)
        host.wait_up()
        host.states()  # all of its processes are up, so that each gets some of the first requests
        yield host
        process.send_signal(signal.SIGTERM if request.param != "flask" else signal.SIGINT)
        assert process.wait() in (0, -signal.SIGTERM, -signal.SIGINT, 130), process


def load(host: Host, proxy: Proxy, requests: int) -> None:
    """Make requests, cut the connections in the middle, and look at the answers and for leaks."""
    wrong: list[Any] = []
    done = threading.Semaphore(0)

    def ask(number: int) -> None:
        answer = host.get(f"/prices/{number}")
        if answer != (200, {"price": 3 * number}):
            wrong.append((number, answer))
        done.release()

    # Each process has a client that is connected.
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(ask, range(4 * AT_ONCE)))
    assert not wrong, (wrong[:3], str(host.process))
    before, connections, accepted = host.states(), proxy.connections, proxy.accepted
    for _ in range(4 * AT_ONCE):
        done.acquire()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = pool.map(ask, range(requests))
        for _ in range(requests // 2):
            assert done.acquire(timeout=2 * TIMEOUT)
        proxy.cut()
        list(answers)
    assert not wrong, (len(wrong), wrong[:3], str(host.process))
    proxy.wait_for(
        lambda: proxy.accepted >= accepted + connections and proxy.connections == connections
    )
    after = host.states()
    assert after.keys() == before.keys()
    for pid, state in after.items():
        assert len(state["threads"]) <= len(before[pid]["threads"]) + 1  # for done-callbacks
        # AT_ONCE pages of state are open while they tell of themselves.
        assert state["descriptors"] <= before[pid]["descriptors"] + AT_ONCE


def test_requests_share_a_client(host: Host, proxy: Proxy) -> None:
    load(host, proxy, 300)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_many_requests_share_a_client(host: Host, proxy: Proxy) -> None:
    load(host, proxy, 5_000)
