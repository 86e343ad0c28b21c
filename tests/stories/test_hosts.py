"""Web applications with a service inside, as the examples have it, and how they end together."""

import contextlib
import http.client
import json
import signal
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import pika_channel
from tests.stories.process import Process
from tests.support.amqp import queue_consumers
from tests.support.broker import alone
from tests.support.proxy import Proxy
from tests.support.timing import TIMEOUT, wait_until
from threadko.standalone.rpc import ClusterRpcClient

EXAMPLES = Path(__file__).parents[2] / "examples"

CALLS = 100


@pytest.fixture
def broker_uri(broker_uri: str) -> Iterator[str]:
    """A broker that no other test of this run uses, for the names of examples are fixed."""
    with alone(broker_uri) as uri:
        yield uri


@pytest.fixture
def cluster(broker_uri: str) -> Iterator[Any]:
    with ClusterRpcClient(uri=broker_uri, timeout=TIMEOUT) as made:
        yield made
    with pika_channel(broker_uri) as channel:
        for name in ("stock", "visits"):
            channel.queue_delete(f"rpc-{name}")


@pytest.fixture
def start(
    monkeypatch: pytest.MonkeyPatch, proxy: Proxy, broker_uri: str
) -> Iterator[Callable[..., tuple[Process, int]]]:
    """Start an example, its connections by way of the proxy; returns its process and port."""
    monkeypatch.setenv("AMQP_URI", proxy.uri_for(broker_uri))
    started = []

    def start(*arguments: str) -> tuple[Process, int]:
        process = Process(*arguments, cwd=EXAMPLES)
        started.append(process)
        process.__enter__()
        return process, int(process.wait_for("serving on port", timeout=2 * TIMEOUT).split()[-1])

    yield start
    for process in started:
        process.__exit__(None, None, None)


def get(port: int, path: str) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        assert response.status == 200
        return json.loads(response.read())
    finally:
        connection.close()


def test_flask_shows_what_its_service_is_told(start: Any, cluster: Any) -> None:
    process, port = start("flask_host.py", "0")
    with ThreadPoolExecutor(8) as pool:
        pages = pool.map(lambda _: get(port, "/stock/tea"), range(CALLS))
        for call in [cluster.stock.put.call_async("tea", 2) for _ in range(CALLS)]:
            call.result()
        amounts = [page["amount"] for page in pages]
    assert all(0 <= amount <= 2 * CALLS for amount in amounts)
    assert get(port, "/stock/tea") == {"amount": 2 * CALLS}
    process.send_signal(signal.SIGINT)
    process.wait_for("ended well")
    process.wait()


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="no /proc: use Linux")
def test_service_inside_django_leaves_no_connection_open(
    start: Any, cluster: Any, tmp_path: Path
) -> None:
    process, port = start("django_host.py", str(tmp_path), "0")
    for number in range(20):
        cluster.visits.add(f"visitor {number}")
    assert get(port, "/visits") == {"visits": 20}
    assert cluster.visits.count() == 20
    # Whoever has the file open, has a connection: none but a worker that is just being torn down.
    wait_until(lambda: tmp_path / "visits" not in read_links(process.pid))
    with sqlite3.connect(tmp_path / "visits") as connection:
        assert connection.execute("select count(*) from visits").fetchone() == (20,)
    connection.close()
    process.send_signal(signal.SIGINT)
    process.wait()


def read_links(pid: int) -> list[Path]:
    """Return the files that a process has open."""
    found = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):  # closed meanwhile
            found.append(link.readlink())
    return found


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_application_that_dies_takes_its_service_along(
    number: signal.Signals, start: Any, cluster: Any, proxy: Proxy, broker_uri: str
) -> None:
    process, _ = start("flask_host.py", "0")
    cluster.stock.put("tea", 1)
    assert proxy.connections
    process.send_signal(number)
    assert process.wait() == -number
    proxy.wait_for(lambda: proxy.connections == 0)
    wait_until(lambda: queue_consumers(broker_uri, "rpc-stock") == 0)


DYING = """
import threading
import flask_host

from threadko.extensions import DependencyProvider

class Fragile(DependencyProvider):
    def start(self):
        self.container.spawn_managed_thread(self.run)

    def run(self):
        dying.wait()
        raise ValueError("no more")

dying = threading.Event()
flask_host.Stock.fragile = Fragile()
flask_host.app.add_url_rule("/die", view_func=lambda: dying.set() or {})
flask_host.main(0)
"""


def test_application_ends_with_its_service(start: Any, cluster: Any, proxy: Proxy) -> None:
    process, port = start("-c", DYING)
    cluster.stock.put("tea", 1)
    get(port, "/die")
    process.wait_for("ended by ValueError('no more')")
    assert process.wait() == 0
    proxy.wait_for(lambda: proxy.connections == 0)
