"""A signal stops a service in its work: what was begun ends, what was not goes back untouched."""

import signal

import pytest

from tests.stories.load import Load
from tests.support.amqp import open_channel, queue_depth
from tests.support.timing import TIMEOUT

SERVICE = """
from tests.stories.controlled import tell, wait_for
from tests.support.ledger import Ledger
from threadko.rpc import rpc

ledger = Ledger({ledger!r})


class Service:
    name = {name!r}

    @rpc
    def hold(self, number):
        ledger.enter(number)
        tell(f"begun {{number}}")
        wait_for("go on")
        return number * 2
"""

DOUBLE = """
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

CALLERS = 16
STOPS = 20

CALLER = """
from tests.stories.controlled import tell, wait_for
from tests.support.ledger import Ledger
from threadko.rpc import ServiceRpc, rpc

ledger = Ledger({ledger!r})


class Caller:
    name = {name!r}
    callee = ServiceRpc({callee!r})

    @rpc
    def ask(self, number):
        ledger.enter(f"caller {{number}}")
        return self.callee.hold(number) + 1

    @rpc
    def ask_late(self, number):
        ledger.enter(f"caller {{number}}")
        tell("begun")
        wait_for("go on")
        tell("calls")
        return self.callee.hold(number) + 1
"""


def take_all(uri, queue, count):
    """Look at what is in a queue, and leave it there."""
    found = []
    with open_channel(uri) as channel:
        for method, properties, body in channel.consume(queue, inactivity_timeout=TIMEOUT):
            assert method is not None, f"{len(found)} of {count} messages in {queue}"
            found.append((method, properties, body))
            if len(found) == count:
                break
        # Not cancel(): that gives back what comes too late, so that nobody would count it.
        channel.basic_cancel(method.consumer_tag)
        channel.basic_nack(method.delivery_tag, multiple=True, requeue=True)
    return found


def assert_no_traceback(process):
    assert not any("Traceback" in line for line in process.stderr), process


def test_ten_that_run_are_answered_and_twenty_prefetched_are_left_to_the_next_instance(
    run, name, broker_uri, raw_caller, ledger
):
    source = SERVICE.format(name=name, ledger=str(ledger.path))
    first = run(source, max_workers=10, PREFETCH_COUNT=30)
    first.wait_for("services ready", "stderr")
    bodies = [{"args": [number], "kwargs": {}} for number in range(30)]
    ids = [raw_caller.send(f"{name}.hold", body) for body in bodies]
    for _ in range(10):
        first.wait_for("begun")
    assert queue_depth(broker_uri, f"rpc-{name}") == 0  # all 30 have been delivered

    first.send_signal(signal.SIGTERM)
    left = take_all(broker_uri, f"rpc-{name}", 20)
    assert [properties.correlation_id for _, properties, _ in left] == ids[10:]
    assert all(method.redelivered for method, _, _ in left)
    assert {properties.reply_to for _, properties, _ in left} == {raw_caller.reply_to}
    assert raw_caller.left() is None  # and meanwhile the ten still run

    first.tell("go on")
    assert first.wait() == 0, first
    assert_no_traceback(first)
    answered = [raw_caller.take() for _ in range(10)]
    assert {reply.properties.correlation_id: body["result"] for reply, body in answered} == {
        ids[number]: number * 2 for number in range(10)
    }
    assert raw_caller.left() is None
    left = take_all(broker_uri, f"rpc-{name}", 20)
    assert [properties.correlation_id for _, properties, _ in left] == ids[10:]
    assert ledger.count() == {str(number): 1 for number in range(10)}

    second = run(source, max_workers=10, PREFETCH_COUNT=30)
    second.tell("go on")
    answered = [raw_caller.take() for _ in range(20)]
    assert {reply.properties.correlation_id: body["result"] for reply, body in answered} == {
        ids[number]: number * 2 for number in range(10, 30)
    }
    second.send_signal(signal.SIGTERM)
    assert second.wait() == 0, second
    assert raw_caller.left() is None
    assert queue_depth(broker_uri, f"rpc-{name}") == 0
    assert ledger.count() == {str(number): 1 for number in range(30)}


@pytest.mark.long
@pytest.mark.timeout(20 * TIMEOUT)
def test_no_call_fails_and_none_runs_twice_while_instances_take_turns_under_load(
    run, name, client, broker_uri, ledger, figure
):
    """As in a deployment: the next one is up, then the one before is stopped, in its work."""

    def start():
        process = run(DOUBLE.format(name=name, ledger=str(ledger.path)))
        process.wait_for("services ready", "stderr", 2 * TIMEOUT)
        return process

    instance = start()
    with Load(lambda number: client[name].double(number), CALLERS) as load:
        for _ in range(STOPS):
            following = start()
            load.wait_for_answers(100)
            instance.send_signal(signal.SIGTERM)
            assert instance.wait(2 * TIMEOUT) == 0, instance
            assert_no_traceback(instance)
            instance = following
        load.wait_for_answers(100)
    instance.send_signal(signal.SIGTERM)
    assert instance.wait() == 0, instance

    assert load.errors == {}
    assert load.answers == {number: number * 2 for number in range(len(load.answers))}
    assert ledger.count() == {str(number): 1 for number in load.answers}
    assert queue_depth(broker_uri, f"rpc-{name}") == 0
    seen = f"{STOPS} SIGTERM, {len(load.answers):,} calls: 0 lost, 0 run again, 0 failed"
    figure("service-terms", seen)


def test_worker_that_waits_for_a_reply_ends_its_work(run, names, client, ledger):
    callee, caller = names.service("callee"), names.service("caller")
    service = run(SERVICE.format(name=callee, ledger=str(ledger.path)))
    stopped = run(CALLER.format(name=caller, callee=callee, ledger=str(ledger.path)))
    service.wait_for("services ready", "stderr")
    stopped.wait_for("services ready", "stderr")
    calls = [client[caller].ask.call_async(number) for number in range(5)]
    for _ in calls:
        service.wait_for("begun")
    stopped.send_signal(signal.SIGTERM)
    stopped.wait_for("stopping", "stderr")
    assert not any(call.done() for call in calls)
    service.tell("go on")
    assert [call.result(TIMEOUT) for call in calls] == [number * 2 + 1 for number in range(5)]
    assert stopped.wait() == 0, stopped
    assert_no_traceback(stopped)
    assert set(ledger.count().values()) == {1}


def test_worker_that_waits_to_publish_ends_its_work(run, names, client, ledger, proxy, broker_uri):
    callee, caller = names.service("callee"), names.service("caller")
    service = run(SERVICE.format(name=callee, ledger=str(ledger.path)))
    stopped = run(
        CALLER.format(name=caller, callee=callee, ledger=str(ledger.path)),
        AMQP_URI=proxy.uri_for(broker_uri),
    )
    service.wait_for("services ready", "stderr")
    stopped.wait_for("services ready", "stderr")
    call = client[caller].ask_late.call_async(3)
    stopped.wait_for("begun")
    proxy.stall()  # neither its request nor a confirm comes through
    stopped.send_signal(signal.SIGTERM)
    stopped.wait_for("stopping", "stderr")
    stopped.tell("go on")
    stopped.wait_for("calls")
    proxy.flow()
    service.wait_for("begun")
    service.tell("go on")
    assert call.result(TIMEOUT) == 7
    assert stopped.wait() == 0, stopped
    assert_no_traceback(stopped)
    assert ledger.count() == {"caller 3": 1, "3": 1}


def test_worker_gets_its_reply_over_a_new_connection_when_one_is_lost_while_it_stops(
    run, names, client, ledger, proxy, broker_uri
):
    callee, caller = names.service("callee"), names.service("caller")
    source = CALLER.format(name=caller, callee=callee, ledger=str(ledger.path))
    service = run(SERVICE.format(name=callee, ledger=str(ledger.path)))
    stopped = run(source, AMQP_URI=proxy.uri_for(broker_uri))
    service.wait_for("services ready", "stderr")
    stopped.wait_for("services ready", "stderr")
    call = client[caller].ask.call_async(3)
    service.wait_for("begun")
    stopped.send_signal(signal.SIGTERM)
    stopped.wait_for("stopping", "stderr")
    proxy.cut()
    service.tell("go on")
    assert stopped.wait() == 0, stopped  # it would have been killed, had no reply come
    assert_no_traceback(stopped)
    # Its requests came over a connection that was lost as well, so the broker gives the one that
    # it had to the next instance, which the caller's answer may come from.
    next_one = run(source)
    assert call.result(TIMEOUT) == 7
    next_one.wait_for("services ready", "stderr")
    assert client[caller].ask(4) == 9
    assert ledger.count()["caller 3"] <= 2
