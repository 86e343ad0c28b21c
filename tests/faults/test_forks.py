"""A child that a worker forked keeps a copy of every socket of its parent."""

import os
import signal

import pytest

from tests.stories.process import Process
from tests.support.amqp import queue_consumers
from tests.support.timing import TIMEOUT
from threadko.runners import run_services
from threadko.standalone.rpc import ClusterRpcClient

FORKING = """
import os
import signal

from tests.stories.controlled import tell, wait_for
from threadko.rpc import rpc


class Service:
    name = {name!r}

    @rpc
    def hold(self, value):
        child = os.fork()
        if child == 0:
            signal.pause()
        tell(f"forked {{child}}")
        wait_for("never")
"""


@pytest.mark.long
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system that forks")
def test_consumer_is_freed_when_its_process_is_killed_and_a_forked_child_lives_on(
    tmp_path, service_cls, name, gate, amqp_config, broker_uri
):
    (tmp_path / "forking.py").write_text(FORKING.format(name=name))
    config = {**amqp_config, "HEARTBEAT": 1}
    defines = [part for key in config for part in ("-d", f"{key}={config[key]}")]
    gate.open.set()
    with Process("-m", "threadko", "run", "forking", *defines, cwd=tmp_path) as process:
        process.wait_for("services ready", "stderr")
        with ClusterRpcClient(config=amqp_config, timeout=TIMEOUT * 2) as client:
            call = client[name].hold.call_async("again")
            child = int(process.wait_for("forked").split()[1])
            try:
                process.send_signal(signal.SIGKILL)
                with run_services(service_cls, config=amqp_config):
                    assert call.result(TIMEOUT * 2) == "again"
                    os.kill(child, 0)  # it is still there, and its sockets with it
                    assert queue_consumers(broker_uri, f"rpc-{name}") == 1
            finally:
                os.kill(child, signal.SIGKILL)
    assert gate.runs == {"again": 1}
