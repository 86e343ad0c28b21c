"""The wall clock jumps: somebody has set it, or it was set right."""

import http.client
import queue
import threading
import time

import pytest

from tests.rpc.raw import RawService
from tests.support.timing import TIMEOUT
from threadko.exceptions import RpcTimeout
from threadko.rpc import rpc
from threadko.runners import run_services
from threadko.standalone.rpc import ClusterRpcClient
from threadko.timer import timer
from threadko.web.handlers import http as http_entrypoint

HOUR = 3600.0


@pytest.fixture
def jump(monkeypatch):
    """`jump(seconds)` sets the wall clock of this process forward, or back."""
    right = time.time
    offsets = [0.0]
    monkeypatch.setattr(time, "time", lambda: right() + sum(offsets))
    return offsets.append


def test_jumps_of_the_wall_clock_move_neither_timers_nor_deadlines(
    name, amqp_config, broker_uri, rpc_exchange, jump
):
    ticks = queue.SimpleQueue()
    service_name = name

    class Service:
        name = service_name

        @timer(0.02)
        def tick(self):
            ticks.put(time.monotonic())

        @timer(HOUR / 2)
        def never(self):
            raise AssertionError("half an hour has not passed")

        @rpc
        def echo(self, value):
            return value

    with (
        run_services(Service, config=amqp_config),
        ClusterRpcClient(config=amqp_config, timeout=TIMEOUT) as client,
        RawService(broker_uri, rpc_exchange, f"{name}-far") as far,
    ):
        for seconds in (HOUR, -2 * HOUR, HOUR):
            slow = client[f"{name}-far"].answer.call_async()
            request = far.take()
            jump(seconds)
            while not ticks.empty():
                ticks.get()
            for _ in range(3):
                ticks.get(timeout=TIMEOUT)
            assert client[name].echo(seconds) == seconds
            assert not slow.done(), "its time is not up"
            begun = time.monotonic()
            with pytest.raises(RpcTimeout):
                slow.result(0.2)
            assert 0.2 <= time.monotonic() - begun < TIMEOUT
            far.reply(request, "in time")
            assert slow.result(TIMEOUT) == "in time"


def test_jumps_of_the_wall_clock_close_no_idle_http_connection(container_factory, jump):
    served = threading.Event()

    class Service:
        name = "clocked"

        @http_entrypoint("GET", "/")
        def index(self, request):
            served.set()
            return "here"

    container = container_factory(Service, config={"WEB_SERVER_ADDRESS": "127.0.0.1:0"})
    container.start()
    (entrypoint,) = container.entrypoints
    connection = http.client.HTTPConnection(
        "127.0.0.1", entrypoint.server.bind_addr.port, timeout=TIMEOUT
    )
    connection.connect()
    sock = connection.sock
    for seconds in (0, HOUR, -2 * HOUR, HOUR):
        jump(seconds)
        connection.request("GET", "/")
        assert connection.getresponse().read() == b"here"
        assert connection.sock is sock, "it was closed"
    connection.close()
    assert served.is_set()
