"""An instance is killed in mid-work, again and again: another one does what it had begun."""

import signal

import pytest

from tests.stories.load import Load
from tests.support.amqp import queue_depth
from tests.support.timing import TIMEOUT

CALLERS = 8
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


@pytest.mark.timeout(20 * TIMEOUT)
@pytest.mark.parametrize("kills", [5, pytest.param(20, marks=pytest.mark.long)])
def test_every_call_is_answered_while_an_instance_is_killed_in_its_work(
    run, name, client, broker_uri, ledger, kills, figure
):
    def start(holds):
        source = SERVICE.format(name=name, ledger=str(ledger.path), holds=holds)
        process = run(source, max_workers=10, PREFETCH_COUNT=PREFETCH)
        process.wait_for("services ready", "stderr", 2 * TIMEOUT)
        return process

    survivor = start(holds=False)
    with Load(lambda number: client[name].double(number), CALLERS) as load:
        for _ in range(kills):
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
    assert kills <= again <= kills * PREFETCH
    assert queue_depth(broker_uri, f"rpc-{name}") == 0
    seen = f"{kills} SIGKILL, {len(runs):,} calls: 0 lost, {again} run again"
    print(seen)  # noqa: T201 - the figures
    if kills == 20:
        figure("service-kills", f"{seen}, of {kills * PREFETCH} at most")
