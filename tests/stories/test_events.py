"""Events among instances in processes of their own, of which some are killed."""

import signal
import subprocess
import sys
import threading
from collections import Counter

import pika
import pytest

from tests.support import amqp
from tests.support.proxy import Proxy
from tests.support.timing import TIMEOUT, wait_until
from threadko.events import event_handler
from threadko.exceptions import PublishFailed
from threadko.messaging import Queue, consume
from threadko.standalone.events import event_dispatcher

LISTENER = """
from tests.stories.controlled import tell
from threadko.events import BROADCAST, SINGLETON, Retry, event_handler

class Listener:
    name = "{name}"

    @event_handler("{source}", "sold")
    def pool(self, data):
        tell(f"pool {{data}}")

    @event_handler("{source}", "sold", handler_type=SINGLETON)
    def single(self, data):
        tell(f"single {{data}}")

    @event_handler("{source}", "sold", handler_type=BROADCAST, reliable_delivery=False)
    def all(self, data):
        tell(f"all {{data}}")

    @event_handler(
        "{source}", "work", retry=Retry(max=4, delays=(0.05, 0.1)), dead_letter=True
    )
    def work(self, data):
        tell(f"work {{data}}")
        if data == "poison":
            raise LookupError("never")

tell("up")
"""


@pytest.fixture
def source(names):
    return names.service("source")


@pytest.fixture
def listeners(run, names, source, name):
    own = f"--{name}"
    names.queues += [
        f"evt-{source}-sold{own}.pool",
        f"evt-{source}-sold",
        f"evt-{source}-work{own}.work",
    ]
    names.queues.append(f"evt-{source}-work{own}.work.dead")

    def start():
        process = run(LISTENER.format(name=name, source=source))
        process.wait_for("services ready", "stderr")
        return process

    return start


def heard(processes, kind):
    """What the handlers of one kind told, in all processes."""
    return Counter(
        int(line.split()[1])
        for process in processes
        for line in list(process.stdout)
        if line.startswith(f"{kind} ")
    )


def test_at_least_once_though_an_instance_is_killed_in_the_middle(
    listeners, source, amqp_config, broker_uri
):
    instances = [listeners() for _ in range(3)]
    count = 600
    with event_dispatcher(config=amqp_config) as dispatch:
        for number in range(count):
            dispatch(source, "sold", number)
            if number == count // 2:
                instances[0].send_signal(signal.SIGKILL)
    everything = set(range(count))
    for kind in ("pool", "single"):
        wait_until(
            lambda kind=kind: set(heard(instances, kind)) == everything,
            lambda kind=kind: f"{kind} lost {sorted(everything - set(heard(instances, kind)))}",
        )
        # What the killed one had begun or fetched comes again, and nothing else.
        again = sum(heard(instances, kind).values()) - count
        assert again <= 2 * 20 + 10
    for survivor in instances[1:]:
        wait_until(
            lambda survivor=survivor: heard([survivor], "all") == Counter(everything),
            lambda survivor=survivor: f"broadcast: {len(heard([survivor], 'all'))} of {count}",
        )


@pytest.mark.long
def test_poison_dies_after_its_retries_while_instances_come_and_go(
    listeners, source, amqp_config, broker_uri, name
):
    instances = [listeners() for _ in range(3)]
    dead = f"evt-{source}-work--{name}.work.dead"
    amqp.declare_queue(broker_uri, dead, durable=True)  # to look at before anything is in it
    with event_dispatcher(config=amqp_config) as dispatch:
        dispatch(source, "work", "poison")
        for number in range(200):
            dispatch(source, "work", number)
            if number == 100:
                instances[0].send_signal(signal.SIGKILL)
                instances.append(listeners())
    message = amqp.expect_message(broker_uri, dead, TIMEOUT * 2)
    assert message.body == b'"poison"'
    headers = message.properties.headers
    assert headers["x-threadko-reason"] == "exhausted"
    assert headers["x-threadko-failures"] == 5
    assert headers["x-threadko-error"] == "LookupError: never"
    runs = sum(line == "work poison" for each in instances for line in list(each.stdout))
    # One run may have been cut off by the kill, and come again.
    assert 5 <= runs <= 6
    good = {f"work {number}" for number in range(200)}
    wait_until(
        lambda: good <= {line for each in instances for line in list(each.stdout)},
        lambda: "its neighbours were held up",
    )


def is_confirmed(dispatch, source, number):
    try:
        dispatch(source, "sold", number)
    except PublishFailed:
        return False
    return True


@pytest.mark.timeout(20 * TIMEOUT)
@pytest.mark.parametrize(
    ("fault", "times", "count"),
    [
        ("cut", 5, 1_000),
        pytest.param("cut", 100, 20_000, marks=pytest.mark.long),
        pytest.param("hole", 10, 10_000, marks=pytest.mark.long),
    ],
)
def test_what_was_confirmed_is_handled_though_connections_are_lost(
    proxy, container_factory, names, source, broker_uri, amqp_config, fault, times, count, figure
):
    """Cut, or swallowed by a black hole: of the dispatcher and of the listener, in turns."""
    handled = Counter()
    lock = threading.Lock()

    class Listener:
        name = names.service("listener")

        @event_handler(source, "sold")
        def on_sold(self, data):
            with lock:
                handled[data] += 1

    confirmed = []
    failed = []
    barrier = threading.Barrier(9)
    quick = {"PUBLISH_TIMEOUT": 1, "HEARTBEAT": 1}  # what finds a hole
    values = {**amqp_config, **(quick if fault == "hole" else {"PUBLISH_TIMEOUT": 4 * TIMEOUT})}

    def strike(number, listening, dispatching):
        if fault == "cut":
            (listening if number % 2 else dispatching).cut()
            return
        struck = listening if number in (0, times - 1) else dispatching
        accepted = struck.accepted
        assert struck.arm("up", 1, "strand").wait(TIMEOUT)
        if struck is dispatching:
            struck.wait_for(lambda: struck.accepted > accepted)

    def dispatch_all(dispatch, numbers):
        barrier.wait(TIMEOUT)
        for number in numbers:
            # As a hole makes it fail: then it is for us to repeat it.
            while not is_confirmed(dispatch, source, number):
                failed.append(number)
            confirmed.append(number)

    with Proxy.for_uri(broker_uri) as listening:
        config = {**values, "AMQP_URI": listening.uri_for(broker_uri)}
        container = container_factory(Listener, config=config)
        names.queues.append(container.entrypoints[0].queue.name)
        container.start()
        config = {**values, "AMQP_URI": proxy.uri_for(broker_uri)}
        with event_dispatcher(config=config) as dispatch:
            numbers = [range(first, count, 8) for first in range(8)]
            threads = [threading.Thread(target=dispatch_all, args=(dispatch, n)) for n in numbers]
            for thread in threads:
                thread.start()
            barrier.wait(TIMEOUT)
            for number in range(times):
                wait_until(
                    lambda number=number: len(confirmed) > (number + 1) * count // (times + 2),
                    lambda: f"{len(confirmed)} confirmed",
                )
                strike(number, listening, proxy)
            for thread in threads:
                thread.join(TIMEOUT * 3)
        assert sorted(confirmed) == list(range(count))
        wait_until(
            lambda: set(handled) == set(range(count)),
            lambda: f"lost {sorted(set(range(count)) - set(handled))[:10]}",
        )
        container.stop()
    assert bool(failed) == (fault == "hole")
    again = sum(handled.values()) - count
    if count >= 10_000:
        seen = f"{times} {fault}s, {count:,} events confirmed, 0 lost, {again} handled again"
        figure(f"{fault}s", seen)


@pytest.mark.long
def test_nothing_is_lost_though_replays_are_killed_while_consumers_run(
    container_factory, names, amqp_config, broker_uri
):
    count = 2000
    alive = names.queue("alive")
    amqp.declare_queue(broker_uri, alive, durable=True)
    amqp.declare_queue(broker_uri, f"{alive}.dead", durable=True)
    with amqp.open_channel(broker_uri) as channel:
        properties = pika.BasicProperties(content_type="application/json")
        channel.confirm_delivery()
        for number in range(count):
            channel.basic_publish("", f"{alive}.dead", b"%d" % number, properties)
    handled = Counter()
    lock = threading.Lock()

    class Consuming:
        name = names.service("consuming")

        @consume(Queue(alive))
        def handle(self, body):
            with lock:
                handled[body] += 1

    container_factory(Consuming, config=amqp_config).start()
    command = [sys.executable, "-m", "threadko", "dead", "replay", alive, "--all"]
    command += ["--limit", "65535", "-d", f"AMQP_URI={broker_uri}"]
    kills = 0
    for enough in (300, 600, 900):
        while len(handled) < enough:
            # What the one before held may still be on its way back, so that this one finds less.
            process = subprocess.Popen(command)
            wait_until(
                lambda enough=enough, process=process: (
                    len(handled) >= enough or process.poll() is not None
                ),
                lambda: "nothing is put back",
            )
            process.kill()
            process.wait(TIMEOUT)
            kills += 1
    wait_until(
        lambda: (
            subprocess.run(command, check=True, timeout=TIMEOUT * 3) is not None
            and set(handled) == set(range(count))
        ),
        lambda: f"lost {sorted(set(range(count)) - set(handled))[:10]}",
    )
    # A kill between the copy and its acknowledgement lets a message come twice.
    assert sum(handled.values()) <= count + kills
