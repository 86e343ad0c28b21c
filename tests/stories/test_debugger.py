"""A debugger in a worker: it stops that worker alone, and is driven as its users drive it."""

import sys
from collections.abc import Callable
from typing import Any

import pytest

from tests.stories.process import Process
from tests.support.proxy import Proxy
from tests.support.timing import TIMEOUT

SERVICE = """
import pdb
from threadko.rpc import rpc

class Service:
    name = {name!r}

    @rpc
    def halve(self, number):
        secret = number * 21
        {stop}
        return self.finish(secret)

    def finish(self, value):
        return value // 2

    @rpc
    def echo(self, value):
        return value
"""

HEARTBEAT_SECONDS = 1


def wait_stopped(process: Process, stop: str) -> None:
    """Wait until the debugger shows the line behind `stop`."""
    if sys.version_info >= (3, 13):  # which shows the line that stops itself
        process.wait_for(f"-> {stop}")
        process.tell("next")
    process.wait_for("return self.finish(secret)")


@pytest.mark.long
@pytest.mark.parametrize("stop", ["breakpoint()", "pdb.set_trace()"])
def test_worker_is_stopped_looked_at_changed_and_let_go(
    stop: str,
    run: Callable[..., Process],
    name: str,
    proxy: Proxy,
    broker_uri: str,
    client: Any,
) -> None:
    process = run(
        SERVICE.format(name=name, stop=stop),
        AMQP_URI=proxy.uri_for(broker_uri),
        HEARTBEAT=HEARTBEAT_SECONDS,
    )
    process.wait_for("runs", "stderr")
    call = client[name].halve.call_async(2)
    wait_stopped(process, stop)
    connections, sent = proxy.accepted, proxy.forwarded["up"]

    # All others go on, and the connection lives, for longer than a silent one is borne.
    assert [client[name].echo(number) for number in range(20)] == list(range(20))
    proxy.wait_for(lambda: proxy.forwarded["up"] > sent)
    calm = proxy.forwarded["up"]
    proxy.wait_for(lambda: proxy.forwarded["up"] >= calm + 8 * 6)  # six heartbeats of 8 bytes
    assert not call.done()

    process.tell("p secret, self.name")
    assert f"(42, '{name}')" in process.wait_for("(42")
    process.tell("import threading; print('in', threading.current_thread().name)")
    assert f"threadko-{name}-worker" in process.wait_for("in threadko-")
    process.tell("where")
    process.wait_for("halve()")
    process.tell("step")
    process.wait_for("--Call--")
    process.tell("value = 84")
    process.tell("next")
    process.tell("p value")
    process.wait_for("84")
    process.tell("continue")
    assert call.result(TIMEOUT) == 42
    assert proxy.accepted == connections

    # Whoever quits the debugger ends that call, with an error, and nothing else.
    failing = client[name].halve.call_async(2)
    wait_stopped(process, stop)
    process.tell("quit")
    with pytest.raises(Exception, match="BdbQuit"):
        failing.result(TIMEOUT)
    assert client[name].echo("still here") == "still here"


def test_caller_with_a_timeout_does_not_wait_for_a_debugger(
    run: Callable[..., Process], name: str, client: Any
) -> None:
    process = run(SERVICE.format(name=name, stop="breakpoint()"))
    process.wait_for("runs", "stderr")
    with pytest.raises(TimeoutError):
        client[name].halve.with_timeout(1.0)(2)
    wait_stopped(process, "breakpoint()")
    process.tell("continue")
