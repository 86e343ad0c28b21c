"""An instance is killed in mid-work, again and again: another one does what it had begun."""

import signal

import pytest

from tests.stories.load import Load
from tests.support.amqp import queue_depth
from tests.support.timing import TIMEOUT

CALLERS = 8
KILLS = 20
PREFETCH = 20

SERVICE = """
import itertools

from tests.stories.controlled import tell, wait_for
from tests.support.ledger import Ledger
from threadko.rpc import rpc

ledger = Ledger({ledger!r})
numbers = itertools.count(1)


class Service:
    name = {name!r}

    @rpc
    def double(self, number):
        ledger.enter(number)
        if {holds} and next(numbers) % 7 == 0:
            tell("holds one for ever")
            wait_for("never")
        return number * 2
"""


@pytest.mark.long
@pytest.mark.timeout(20 * TIMEOUT)
def test_every_call_is_answered_while_an_instance_is_killed_in_its_work(
    run, name, client, broker_uri, ledger, figure
):
    def start(holds):
        source = SERVICE.format(name=name, ledger=str(ledger.path), holds=holds)
        process = run(source, max_workers=10, PREFETCH_COUNT=PREFETCH)
        process.wait_for("services ready", "stderr", 2 * TIMEOUT)
        return process

    survivor = start(holds=False)
    with Load(lambda number: client[name].double(number), CALLERS) as load:
        for _ in range(KILLS):
            victim = start(holds=True)
            victim.wait_for("holds one for ever")
            victim.send_signal(signal.SIGKILL)
            assert victim.wait() == -signal.SIGKILL, victim
    survivor.send_signal(signal.SIGTERM)
    assert survivor.wait() == 0, survivor

    assert load.errors == {}
    assert load.answers == {number: number * 2 for number in range(len(load.answers))}
    runs = ledger.count()
    assert set(runs) == {str(number) for number in load.answers}, "lost, or made up"
    again = sum(runs.values()) - len(runs)
    assert KILLS <= again <= KILLS * PREFETCH
    assert queue_depth(broker_uri, f"rpc-{name}") == 0
    seen = f"{KILLS} SIGKILL, {len(runs):,} calls: 0 lost, {again} run again"
    print(seen)  # noqa: T201 - the figures
    figure("service-kills", f"{seen}, of {KILLS * PREFETCH} at most")
