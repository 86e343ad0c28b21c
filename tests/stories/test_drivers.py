"""Drivers in C, as their users use them: workers wait in them side by side, and the links live."""

import importlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
import trustme

from tests.stories.process import Process
from tests.support.proxy import Proxy
from tests.support.servers import find_mysql, find_postgres, find_redis
from tests.support.timing import TIMEOUT
from threadko.containers import ServiceContainer
from threadko.rpc import rpc

pytestmark = pytest.mark.drivers

CALLS = 50
SECONDS = 0.1
WORKERS = 10
ROUNDS = 5
HEARTBEAT_SECONDS = 1


# Not at the top: whoever runs the other tests needs no drivers.
def load(module: str) -> Any:
    """Import a driver, or skip the test."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        pytest.skip(f"{error}: pip install -r requirements/drivers.txt")


#: Waits so many seconds in the server.
Wait = Callable[[float], None]


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, int, Path]]:
    """The ports of a gRPC and an HTTPS server, and a certificate to check the second by."""
    load("grpc")
    folder = tmp_path_factory.mktemp("servers")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "authority.pem")
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(
        folder / "server.pem"
    )
    with Process("-m", "tests.stories.waiting", str(folder), cwd=folder) as process:
        _, grpc_port, https_port = process.wait_for("ports").split()
        yield int(grpc_port), int(https_port), folder / "authority.pem"


@pytest.fixture
def wait_in_mysqlclient() -> Wait:
    driver = load("MySQLdb")
    parts = urlsplit(find_mysql())

    def wait(seconds: float) -> None:
        with closing(
            driver.connect(
                host=parts.hostname,
                port=parts.port,
                user=parts.username,
                password=parts.password or "",
                database=parts.path.removeprefix("/"),
            )
        ) as connection:
            cursor = connection.cursor()
            cursor.execute("select sleep(%s)", (seconds,))
            assert cursor.fetchall() == ((0,),)

    return wait


@pytest.fixture
def wait_in_psycopg2() -> Wait:
    driver = load("psycopg2")
    url = find_postgres()

    def wait(seconds: float) -> None:
        with closing(driver.connect(url)) as connection:
            cursor = connection.cursor()
            cursor.execute("select pg_sleep(%s), 1", (seconds,))
            assert cursor.fetchall() == [("", 1)]

    return wait


@pytest.fixture
def wait_in_redis() -> Iterator[Wait]:
    load("hiredis")
    assert load("redis.utils").HIREDIS_AVAILABLE
    with load("redis").Redis.from_url(find_redis()) as client:

        def wait(seconds: float) -> None:
            assert client.blpop(["threadko-nothing-comes-here"], timeout=seconds) is None

        yield wait


@pytest.fixture
def wait_in_grpcio(servers: tuple[int, int, Path]) -> Iterator[Wait]:
    with load("grpc").insecure_channel(f"127.0.0.1:{servers[0]}") as channel:
        call = channel.unary_unary("/Waiting/wait")

        def wait(seconds: float) -> None:
            assert call(str(seconds).encode(), timeout=TIMEOUT) == b"waited"

        yield wait


@pytest.fixture
def wait_in_requests(servers: tuple[int, int, Path]) -> Wait:
    _, port, authority = servers

    def wait(seconds: float) -> None:
        url = f"https://localhost:{port}/{seconds}"
        response = requests.get(url, verify=authority, timeout=TIMEOUT)
        assert response.text == "waited"

    return wait


class Crowd:
    """Counts who is inside, and tells how many there were at the most."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards what follows
        self._inside = 0
        self.most = 0

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            self.most = max(self.most, self._inside)

    def __exit__(self, *exc_info: object) -> None:
        with self._lock:
            self._inside -= 1


@pytest.fixture(params=["mysqlclient", "psycopg2", "redis", "grpcio", "requests"])
def story(
    request: pytest.FixtureRequest,
    amqp_config: dict[str, Any],
    proxy: Proxy,
    name: str,
) -> Iterator[Crowd]:
    """A service that waits in a driver, its connections by way of the proxy."""
    wait = request.getfixturevalue(f"wait_in_{request.param}")
    crowd = Crowd()
    service_name = name

    class Waiting:
        name = service_name

        @rpc
        def wait(self, number: int, seconds: float) -> int:
            with crowd:
                wait(seconds)
            return number

    config = {
        **amqp_config,
        "AMQP_URI": proxy.uri_for(amqp_config["AMQP_URI"]),
        "HEARTBEAT": HEARTBEAT_SECONDS,
        "max_workers": WORKERS,
    }
    container = ServiceContainer(Waiting, config=config)
    container.start()
    yield crowd
    container.stop()


def test_workers_wait_side_by_side_in_a_driver(
    story: Crowd, client: Any, name: str, proxy: Proxy
) -> None:
    connections = proxy.accepted
    times = []
    for _ in range(ROUNDS):
        began = time.monotonic()
        calls = [client[name].wait.call_async(number, SECONDS) for number in range(CALLS)]
        assert [call.result(TIMEOUT) for call in calls] == list(range(CALLS))
        times.append(time.monotonic() - began)
    assert story.most == WORKERS
    # What they would take one after the other, as in a driver that keeps the others out.
    assert min(times) < CALLS * SECONDS
    assert proxy.accepted == connections
    print(f"best {min(times):.2f} s, worst {max(times):.2f} s for {CALLS} calls")  # noqa: T201


def test_heartbeats_flow_while_every_worker_waits_in_a_driver(
    story: Crowd, client: Any, name: str, proxy: Proxy
) -> None:
    connections, sent = proxy.accepted, proxy.forwarded["up"]
    seconds = 4.0 * HEARTBEAT_SECONDS  # a broker gives a silent connection up after half of that
    calls = [client[name].wait.call_async(number, seconds) for number in range(WORKERS)]
    proxy.wait_for(lambda: proxy.forwarded["up"] >= sent + 8 * proxy.connections)
    assert not any(call.done() for call in calls)
    assert [call.result(TIMEOUT) for call in calls] == list(range(WORKERS))
    assert story.most == WORKERS
    assert proxy.accepted == connections
