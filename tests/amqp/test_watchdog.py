"""A consumer that hears nothing is found out, and nobody else is disturbed."""

import itertools
import queue
import threading

import pytest
from pika import frame, spec

from tests.support.fake_broker import FakeBroker, deliver
from tests.support.timing import TIMEOUT, wait_until
from threadko.amqp.entities import Queue
from threadko.amqp.intake import IntakeLink, Settling
from threadko.amqp.message import Properties, encode_properties
from threadko.amqp.parameters import BrokerParameters
from threadko.concurrency.deadline import Deadline

INTERVAL = 0.1
HEADER = encode_properties(Properties())
WAITING = (5, 1)  # messages, and nobody else to take them
SERVED = (0, 1)


class Broker(FakeBroker):
    """Answers each question about a queue with what the test has put there; the last one stays."""

    def __init__(self, **options):
        self.answers = {}
        self.after_question = lambda: None  # called behind each answer, by the broker's thread
        super().__init__(count=self._next, **options)

    def note_asked(self, method):
        super().note_asked(method)
        if isinstance(method, spec.Queue.Declare):
            self.after_question()

    def _next(self, connection, name):
        answers = self.answers.get(name, [SERVED])
        return answers.pop(0) if len(answers) > 1 else answers[0]

    def questions(self, name):
        return [m.queue for m in self.asked if isinstance(m, spec.Queue.Declare)].count(name)

    def wait_questions(self, name, number):
        self.wait_for(lambda: self.questions(name) >= number)


@pytest.fixture
def broker():
    with Broker() as made:
        yield made


@pytest.fixture
def make(broker):
    """Makes links that consume, and stops them."""
    made = []

    def make(name="watched", interval=INTERVAL, on_delivery=None, at=broker, **options):
        deliveries = queue.SimpleQueue()
        link = IntakeLink(
            BrokerParameters.from_uri(at.uri),
            name=f"threadko-test-{name}-{len(made)}",
            queue=Queue(name, **options),
            prefetch=10,
            on_delivery=on_delivery or deliveries.put,
            watchdog=interval,
        )
        link.deliveries = deliveries
        made.append(link)
        link.start()
        link.wait_up(Deadline(TIMEOUT))
        link.open()
        return link

    yield make
    for link in made:
        link.kill()
        link.stop(TIMEOUT)


@pytest.fixture
def clock(make):
    """Waits for as many checks of a link that has nothing to do with the others."""
    with Broker() as other:
        make("clock", at=other)

        def wait(checks):
            other.wait_questions("clock", other.questions("clock") + checks)

        yield wait


def found(caplog):
    """What was said of messages that wait. On a busy machine an answer may be late: that is told
    apart."""
    lines = [record.getMessage() for record in caplog.records]
    return [line for line in lines if "no message comes, and 5 wait in" in line]


def test_idle_consumer_is_connected_anew_when_messages_wait_for_it_at_three_checks(
    broker, make, caplog
):
    broker.answers["watched"] = [WAITING]
    link = make()
    wait_until(lambda: found(caplog))
    broker.answers["watched"] = [SERVED]
    broker.wait_consumer(2)
    assert link.watchdog_resets >= 1
    broker.wait_questions("watched", broker.questions("watched") + 2)  # of the new connection
    line = found(caplog)[0]
    assert "no message comes, and 5 wait in queue watched; connecting anew, for the" in line
    assert "no message comes from queue watched; trying again" in caplog.text


def test_two_checks_do_not_suffice(broker, make, caplog):
    broker.answers["watched"] = [WAITING, WAITING, SERVED] * 3
    make()
    broker.wait_questions("watched", 9)
    assert found(caplog) == []


@pytest.mark.parametrize("counts", [(0, 1), (0, 0), (5, 2), (5, 3)], ids=str)
def test_consumer_is_left_alone_when_nothing_waits_or_others_could_take_it(
    broker, make, caplog, counts
):
    broker.answers["watched"] = [counts]
    make()
    broker.wait_questions("watched", 6)
    assert found(caplog) == []


def test_consumer_of_which_the_broker_does_not_know_is_connected_anew(broker, make):
    broker.answers["watched"] = [(5, 0)] * 3 + [SERVED]
    make()
    broker.wait_consumer(2)


@pytest.mark.parametrize(
    "options",
    [
        {"interval": 0.0},
        {"name": ""},
        {"arguments": {"x-single-active-consumer": True}},
        {"consumer_arguments": {"x-priority": 0}},
    ],
    ids=["off", "named by the broker", "single active consumer", "priority"],
)
def test_broker_is_not_asked(broker, make, clock, options):
    broker.answers["watched"] = [WAITING]
    make(**options)
    broker.wait_consumer()
    clock(6)
    assert broker.asked == []
    assert broker.accepted == 1


def test_watchdog_is_off_by_default(broker, clock):
    link = IntakeLink(
        BrokerParameters.from_uri(broker.uri),
        name="threadko-test-default-1",
        queue=Queue("watched"),
        prefetch=1,
        on_delivery=lambda _: None,
    )
    link.start()
    link.open()
    broker.wait_consumer()
    clock(6)
    assert broker.asked == []
    link.stop(TIMEOUT)


def test_consumer_is_left_alone_while_a_worker_has_a_message(broker, make, clock):
    link = make()
    broker.wait_consumer().send(deliver(1, 1, HEADER, b"x"))
    delivery = link.deliveries.get(timeout=TIMEOUT)
    broker.answers["watched"] = [WAITING]
    before = broker.questions("watched")
    clock(6)
    assert broker.questions("watched") <= before + 1  # one may have been on its way
    assert broker.settled == []
    link.ack(delivery)
    broker.wait_consumer(2)


def test_consumer_is_left_alone_while_it_is_served_between_the_checks(broker, make, caplog):
    tags = itertools.count(1)
    link = make(on_delivery=lambda delivery: link.ack(delivery))
    peer = broker.wait_consumer()
    broker.after_question = lambda: peer.send(deliver(1, next(tags), HEADER, b"x"))
    broker.answers["watched"] = [WAITING]
    broker.wait_questions("watched", broker.questions("watched") + 6)
    assert found(caplog) == []


class Answer(Settling):
    """Is sent for a delivery, which its confirm would settle."""

    __slots__ = ()

    def __init__(self, delivery):
        super().__init__(exchange="", routing_key="somewhere", header=HEADER, body=b"done")
        self.settles = delivery


def test_message_that_waits_for_a_confirm_alone_keeps_no_worker_busy(broker, make):
    broker.confirms = False  # or they have vanished
    link = make()
    broker.wait_consumer().send(deliver(1, 1, HEADER, b"x"))
    link.send(Answer(link.deliveries.get(timeout=TIMEOUT)))
    broker.answers["watched"] = [WAITING]
    broker.wait_consumer(2)
    broker.wait_for(lambda: len(broker.publishes) >= 2)  # and it is sent again


def test_question_without_an_answer_counts_as_much(broker, make, caplog):
    broker.is_mute = lambda _, method: isinstance(method, spec.Queue.Declare) and method.passive
    make()
    broker.wait_consumer(2)
    assert "no message comes, and the broker does not say how many messages wait in" in caplog.text


def test_blocked_connection_is_left_alone(broker, make, clock, caplog):
    make()
    peer = broker.wait_consumer()
    peer.send(frame.Method(0, spec.Connection.Blocked("low on memory")).marshal())
    for _ in range(10):
        before = broker.questions("watched")
        clock(3)
        if before == broker.questions("watched"):
            break  # it knows
    else:
        pytest.fail("it goes on asking")
    broker.answers["watched"] = [WAITING]
    clock(5)
    assert found(caplog) == []
    peer.send(frame.Method(0, spec.Connection.Unblocked()).marshal())
    wait_until(lambda: found(caplog))


def test_refused_question_is_asked_again(broker, make, caplog):
    broker.is_mute = lambda _, method: isinstance(method, spec.Queue.Declare) and method.passive
    make(interval=0.5)  # so that the answers come before the link gives up
    peer = broker.wait_consumer()
    for number in range(1, 6):
        broker.wait_questions("watched", number)
        peer.send(frame.Method(3, spec.Channel.Close(404, "NOT_FOUND", 50, 10)).marshal())
    assert found(caplog) == []


@pytest.mark.parametrize("method", [spec.Channel.Open, spec.Queue.Declare])
def test_stop_does_not_wait_for_an_answer(broker, make, caplog, method):
    broker.is_mute = lambda number, asked: number == 3 and isinstance(asked, method)
    link = make(interval=0.5)  # so that the stop comes before the answer is given up
    broker.wait_for(lambda: len(broker.asked) == 1)
    stopped = threading.Event()

    def stop():
        link.stop(2 * TIMEOUT)
        stopped.set()

    threading.Thread(target=stop, daemon=True).start()
    assert stopped.wait(TIMEOUT)
    assert "before the broker had confirmed everything" not in caplog.text


def test_nothing_is_checked_while_a_stop_waits(broker, make):
    broker.confirms = False
    link = make(interval=0.2)
    broker.wait_consumer().send(deliver(1, 1, HEADER, b"x"))
    link.send(Answer(link.deliveries.get(timeout=TIMEOUT)))
    broker.wait_for(lambda: len(broker.publishes) == 1)
    broker.wait_questions("watched", 1)
    before = broker.questions("watched")
    link.stop(3)  # in vain
    # Some may have been asked before the stop was heard of; in all that time there were many more.
    assert broker.questions("watched") <= before + 5
