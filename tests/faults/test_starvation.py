"""Connection threads that get little of the interpreter, or none for a while."""

import threading

import pytest

from tests.stories.process import Process
from tests.support.ledger import Ledger
from tests.support.timing import TIMEOUT
from threadko.containers import ServiceContainer
from threadko.rpc import rpc
from threadko.standalone.rpc import ClusterRpcClient

pytestmark = [pytest.mark.long, pytest.mark.timeout(8 * TIMEOUT)]

HEARTBEAT = 3
SPINNERS = 16


def test_heartbeats_flow_while_every_worker_computes(name, amqp_config, broker_uri, proxy):
    enough = threading.Event()
    begun = threading.Semaphore(0)

    class Service:
        @rpc
        def spin(self):
            begun.release()
            turns = 0
            while not enough.is_set():
                turns += 1
            return turns

    Service.name = name
    config = {**amqp_config, "AMQP_URI": proxy.uri_for(broker_uri), "HEARTBEAT": HEARTBEAT}
    container = ServiceContainer(Service, config={**config, "max_workers": SPINNERS})
    container.start()
    try:
        with ClusterRpcClient(config=amqp_config, timeout=4 * TIMEOUT) as client:
            calls = [client[name].spin.call_async() for _ in range(SPINNERS)]
            try:
                for _ in range(SPINNERS):
                    assert begun.acquire(timeout=TIMEOUT)
                # The broker gives a client up after two heartbeats that it has missed.
                with pytest.raises(TimeoutError):
                    proxy.wait_for(lambda: proxy.connections == 0, 5 * HEARTBEAT)
            finally:
                enough.set()
            assert all(call.result(TIMEOUT) > 0 for call in calls)
        assert proxy.accepted == 1
    finally:
        container.stop()


SERVICE = """
import ctypes

from tests.support.ledger import Ledger
from threadko.rpc import rpc

ledger = Ledger({ledger!r})


class Service:
    name = {name!r}

    @rpc
    def work(self, value):
        ledger.enter(value)
        if value == "held" and ledger.count()[value] == 1:
            ctypes.PyDLL(None).sleep(5)  # and keeps the interpreter's lock
        return value
"""


def test_service_connects_anew_when_c_code_keeps_the_interpreter_for_longer_than_the_broker_waits(
    name, amqp_config, tmp_path, proxy, broker_uri
):
    ledger = Ledger(tmp_path / "ledger")
    (tmp_path / "keeping.py").write_text(SERVICE.format(ledger=str(ledger.path), name=name))
    config = {**amqp_config, "AMQP_URI": proxy.uri_for(broker_uri), "HEARTBEAT": 1}
    defines = [part for key, value in config.items() for part in ("-d", f"{key}={value}")]
    with Process("-m", "threadko", "run", "keeping", *defines, cwd=tmp_path) as process:
        process.wait_for("services ready", "stderr")
        with ClusterRpcClient(config=amqp_config, timeout=4 * TIMEOUT) as client:
            assert client[name].work("held") == "held"
            assert client[name].work("next") == "next"
        process.wait_for("lost the connection to", "stderr")
    assert proxy.accepted == 2
    runs = ledger.count()
    # It came again, and was run again unless its answer was on its way by then.
    assert 1 <= runs["held"] <= 2
    assert runs["next"] == 1
