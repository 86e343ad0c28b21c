"""Many calls leave nothing behind: no memory, no thread, no descriptor."""

import signal
from pathlib import Path

import pytest

from tests.stories.process import Process
from tests.support.held import Held
from tests.support.timing import TIMEOUT

WARM_UP = 20_000
CALLS = 100_000
IN_FLIGHT = 50

# Guessed: an allocator moves by some hundred KiB; 100 bytes lost with each call would be 8 MiB.
GROWTH_KIB = 3 * 1024

SERVICE = """
from threadko.rpc import rpc


class Service:
    name = {name!r}

    @rpc
    def echo(self, value):
        return value
"""

CLIENT = """
from collections import deque

from tests.stories.controlled import tell, wait_for
from threadko.standalone.rpc import ClusterRpcClient


def work(echo, count):
    calls = deque()
    for number in range(count):
        calls.append((number, echo.call_async([number, "some text"])))
        if len(calls) == {in_flight}:
            take(*calls.popleft())
    while calls:
        take(*calls.popleft())


def take(number, call):
    assert call.result() == [number, "some text"]


with ClusterRpcClient(config={config!r}, timeout={timeout}) as client:
    for part in {parts!r}:
        work(client[{name!r}].echo, part)
        tell("done")
        wait_for("go on " + str(part))
"""


@pytest.mark.long
@pytest.mark.timeout(60 * TIMEOUT)
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_memory_threads_and_descriptors_do_not_grow_with_the_calls(
    run, name, amqp_config, tmp_path
):
    service = run(SERVICE.format(name=name))
    service.wait_for("services ready", "stderr")
    parts = (WARM_UP, CALLS - WARM_UP)
    script = CLIENT.format(
        config=amqp_config, in_flight=IN_FLIGHT, name=name, parts=parts, timeout=TIMEOUT
    )
    (tmp_path / "client.py").write_text(script)
    with Process("client.py", cwd=tmp_path) as client:
        held = []
        for part in parts:
            client.wait_for("done", timeout=20 * TIMEOUT)
            held.append((Held.by(service.pid), Held.by(client.pid)))
            client.tell(f"go on {part}")
        assert client.wait() == 0, client
    service.send_signal(signal.SIGTERM)
    assert service.wait() == 0, service

    for who, before, after in zip(("service", "client"), *held, strict=True):
        print(f"{who}: {before} after {WARM_UP} calls, {after} after {CALLS}")  # noqa: T201
        # The one that watches for stuck workers comes and goes.
        assert abs(after.threads - before.threads) <= 1
        assert after.descriptors == before.descriptors
        assert after.kib - before.kib < GROWTH_KIB
