"""The wall clock jumps: somebody has set it, or it was set right."""

import subprocess
import sys

import pytest

from tests.support.timing import TIMEOUT

#: Replaces the clock before anything that might have kept it is imported.
JUMPING = """
import sys
import time

HOUR = 3600.0
right = time.time
offsets = []
time.time = lambda: right() + sum(offsets)

import http.client
import queue

from tests.rpc.raw import RawService
from tests.support.timing import TIMEOUT
from threadko.exceptions import RpcTimeout
from threadko.rpc import rpc
from threadko.runners import run_services
from threadko.standalone.rpc import ClusterRpcClient
from threadko.timer import timer
from threadko.web.handlers import http as http_entrypoint

"""

DEADLINES = """
uri, exchange, name = sys.argv[1:]
config = {"AMQP_URI": uri, "rpc_exchange": exchange}
ticks = queue.SimpleQueue()


class Service:
    @timer(0.02)
    def tick(self):
        ticks.put(1)

    @timer(HOUR / 2)
    def never(self):
        print("half an hour has not passed")

    @rpc
    def echo(self, value):
        return value


Service.name = name
with (
    run_services(Service, config=config),
    ClusterRpcClient(config=config, timeout=TIMEOUT) as client,
    RawService(uri, exchange, f"{name}-far") as far,
):
    for seconds in (HOUR, -2 * HOUR, HOUR):
        slow = client[f"{name}-far"].answer.call_async()
        request = far.take()
        offsets.append(seconds)
        while not ticks.empty():
            ticks.get()
        for _ in range(3):
            ticks.get(timeout=TIMEOUT)
        assert client[name].echo(seconds) == seconds
        assert not slow.done(), "its time is not up"
        begun = time.monotonic()
        try:
            slow.result(0.2)
        except RpcTimeout:
            assert 0.2 <= time.monotonic() - begun < TIMEOUT
        else:
            raise AssertionError("nobody had answered")
        far.reply(request, "in time")
        assert slow.result(TIMEOUT) == "in time"
print("moved nothing")
"""

IDLE = """
class Service:
    name = "clocked"

    @http_entrypoint("GET", "/")
    def index(self, request):
        return "here"


with run_services(Service, config={"WEB_SERVER_ADDRESS": "127.0.0.1:0"}) as runner:
    (container,) = runner.containers
    (entrypoint,) = container.entrypoints
    connection = http.client.HTTPConnection(
        "127.0.0.1", entrypoint.server.bind_addr.port, timeout=TIMEOUT
    )
    connection.connect()
    sock = connection.sock
    for seconds in (0, HOUR, -2 * HOUR, HOUR):
        offsets.append(seconds)
        connection.request("GET", "/")
        assert connection.getresponse().read() == b"here"
        assert connection.sock is sock, "it was closed"
    connection.close()
print("moved nothing")
"""


def run(source, *arguments):
    """Run it in a process of its own, and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", JUMPING + source, *arguments],
        capture_output=True,
        text=True,
        timeout=TIMEOUT * 4,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.timeout(TIMEOUT * 5)
def test_jumps_of_the_wall_clock_move_neither_timers_nor_deadlines(
    name, broker_uri, rpc_exchange, names
):
    names.queues.append(f"rpc-{name}-far")
    assert run(DEADLINES, broker_uri, rpc_exchange, name) == "moved nothing"


@pytest.mark.timeout(TIMEOUT * 5)
def test_jumps_of_the_wall_clock_close_no_idle_http_connection():
    assert run(IDLE) == "moved nothing"
