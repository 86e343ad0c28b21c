"""A service goes and comes back while many threads call it through one client."""

import signal
import time

import pytest

from tests.stories.load import Load
from tests.support.amqp import queue_depth
from tests.support.timing import TIMEOUT
from threadko.exceptions import RpcTimeout
from threadko.standalone.rpc import ClusterRpcClient

CALLERS = 32
IMPATIENT_SECONDS = 0.2  # less than it takes a process to start

SERVICE = """
from tests.support.ledger import Ledger
from threadko.rpc import rpc

ledger = Ledger({ledger!r})


class Service:
    name = {name!r}

    @rpc
    def double(self, number):
        ledger.enter(number)
        return number * 2
"""


@pytest.mark.long
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_calls_through_one_client_outlast_a_restart_or_fail_clearly_in_time(
    run, name, amqp_config, broker_uri, ledger, how
):
    source = SERVICE.format(name=name, ledger=str(ledger.path))
    rpc_client = ClusterRpcClient(config=amqp_config, timeout=TIMEOUT)
    waited = []

    def call(number):
        method = client[name].double
        if number % 2:
            return method(number)
        begun = time.monotonic()
        try:
            return method.with_timeout(IMPATIENT_SECONDS)(number)
        finally:
            waited.append(time.monotonic() - begun)

    process = run(source)
    process.wait_for("services ready", "stderr")
    with rpc_client as client:
        with Load(call, CALLERS) as load:
            for _ in range(2):
                load.wait_for_answers(100)
                process.send_signal(how)
                assert process.wait() == (0 if how == signal.SIGTERM else -how), process
                process = run(source)
                process.wait_for("services ready", "stderr")
            load.wait_for_answers(100)
        assert rpc_client.pending == 0
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 0, process

    assert all(answer == number * 2 for number, answer in load.answers.items())
    assert {type(error) for error in load.errors.values()} <= {RpcTimeout}
    assert all(number % 2 == 0 for number in load.errors), "a patient call had no answer"
    assert max(waited) < IMPATIENT_SECONDS + TIMEOUT / 4
    runs = ledger.count()
    assert {str(number) for number in load.answers} <= set(runs)
    if how == signal.SIGTERM:
        assert set(runs.values()) == {1}
    assert queue_depth(broker_uri, f"rpc-{name}") == 0
