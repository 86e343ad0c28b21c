import contextlib
import logging
import queue
import threading

import pytest
from pika.exceptions import ChannelClosedByBroker

from tests.rpc.raw import RawCaller
from tests.support.amqp import delete_queue, open_channel, queue_consumers, queue_depth
from tests.support.timing import TIMEOUT
from threadko.amqp.message import Properties, encode_properties
from threadko.amqp.parameters import BrokerParameters
from threadko.concurrency.deadline import Deadline
from threadko.exceptions import BrokerRefused, ContainerStopped
from threadko.rpc.protocol import request_queue, rpc_exchange
from threadko.rpc.requests import Reply, RequestLink


class Service:
    """A request link whose requests a test takes and settles itself."""

    def __init__(self, uri, exchange, name, prefetch=10, heartbeat=20):
        self.name = name
        self.exchange = exchange
        self.queue = f"rpc-{name}"
        self.requests = queue.SimpleQueue()
        self.refusing = False
        self.link = RequestLink(
            BrokerParameters.from_uri(uri, heartbeat=heartbeat),
            name="threadko-test-rpc-1",
            queue=request_queue(name, rpc_exchange(exchange)),
            prefetch=prefetch,
            on_request=self._on_request,
        )

    def _on_request(self, delivery):
        if self.refusing:
            self.refusing = False
            raise ContainerStopped("not now")
        self.requests.put(delivery)

    def start(self):
        self.link.start()
        self.link.wait_up(Deadline(TIMEOUT))
        self.link.open()
        return self

    def take(self):
        return self.requests.get(timeout=TIMEOUT)

    def reply(self, delivery, body=b'"done"', exchange=None, substitute=None):
        self.link.settle(
            delivery, self.make_reply(delivery, body, exchange=exchange, substitute=substitute)
        )

    def make_reply(self, delivery, body=b'"done"', exchange=None, substitute=None):
        properties = delivery.properties
        return Reply(
            exchange=exchange or self.exchange,
            routing_key=properties.reply_to,
            header=encode_properties(
                Properties(
                    content_type="application/json",
                    headers={},
                    correlation_id=properties.correlation_id,
                )
            ),
            body=body,
            substitute=substitute,
        )


@pytest.fixture
def name(names):
    return names.service("requests")


@pytest.fixture
def make(broker_uri, amqp_config, name):
    """Makes services that take requests, and stops them at the end."""
    made = []

    def make(uri=broker_uri, **options):
        made.append(Service(uri, amqp_config["rpc_exchange"], name, **options))
        return made[-1].start()

    yield make
    for service in made:
        service.link.stop(TIMEOUT)


@pytest.fixture
def caller(broker_uri, amqp_config):
    """Makes a caller, when the exchange is there."""
    with contextlib.ExitStack() as stack:
        yield lambda: stack.enter_context(RawCaller(broker_uri, amqp_config["rpc_exchange"]))


def test_reply_leaves_and_the_request_is_gone(make, caller, broker_uri):
    service, sender = make(), caller()
    sender.send(f"{service.name}.method")
    service.reply(service.take())
    assert sender.take()[1] == "done"
    service.link.stop(TIMEOUT)
    assert queue_depth(broker_uri, service.queue) == 0


def test_nothing_is_consumed_before_the_link_is_opened(broker_uri, amqp_config, name, caller):
    service = Service(broker_uri, amqp_config["rpc_exchange"], name)
    service.link.start()
    service.link.wait_up(Deadline(TIMEOUT))
    caller().send(f"{name}.method")
    assert service.link.is_up
    assert queue_consumers(broker_uri, service.queue) == 0
    service.link.open()
    service.link.settle(service.take(), None)
    service.link.stop(TIMEOUT)
    assert not service.link.is_up


def test_request_is_acknowledged_when_there_is_nothing_to_reply(make, caller, broker_uri):
    service = make()
    caller().send(f"{service.name}.method")
    service.link.settle(service.take(), None)
    service.link.stop(TIMEOUT)
    assert queue_depth(broker_uri, service.queue) == 0


def test_request_comes_again_when_it_is_given_back(make, caller):
    service = make()
    caller().send(f"{service.name}.method")
    first = service.take()
    service.link.requeue(first)
    second = service.take()
    assert (first.redelivered, second.redelivered) == (False, True)
    service.link.settle(second, None)


def test_request_comes_again_when_nobody_would_take_it(make, caller):
    service = make()
    service.refusing = True
    caller().send(f"{service.name}.method")
    again = service.take()
    assert again.redelivered
    service.link.settle(again, None)


def test_request_is_dropped_when_it_is_rejected(make, caller, broker_uri):
    service = make()
    caller().send(f"{service.name}.method")
    service.link.reject(service.take())
    service.link.stop(TIMEOUT)
    assert queue_depth(broker_uri, service.queue) == 0


def test_only_the_refused_reply_is_replaced(make, caller, broker_uri, caplog):
    service, sender = make(), caller()
    ids = [sender.send(f"{service.name}.method", number) for number in range(9)]
    deliveries = [service.take() for _ in ids]
    for number, delivery in enumerate(deliveries):
        bad = number in (2, 6)
        service.reply(
            delivery,
            b"%d" % number,
            exchange="rpc-nowhere" if bad else None,
            substitute=lambda error, d=delivery: service.make_reply(d, b'"refused"'),
        )
    replies = {}
    while len(replies) < len(ids):
        reply, body = sender.take()
        # Which one was refused the broker does not say, so its neighbours may be sent twice.
        assert replies.setdefault(reply.properties.correlation_id, body) == body
    wanted = ["refused" if n in (2, 6) else n for n in range(9)]
    assert [replies[correlation_id] for correlation_id in ids] == wanted
    assert sum("refused a reply" in record.getMessage() for record in caplog.records) == 2
    service.link.stop(TIMEOUT)
    assert queue_depth(broker_uri, service.queue) == 0
    assert service.requests.empty()


@pytest.mark.parametrize("substitute", ["refused too", "raises", None])
def test_refused_reply_is_dropped_when_there_is_none_in_its_place(
    make, caller, broker_uri, caplog, substitute
):
    service, sender = make(), caller()
    dropped = threading.Event()

    class Handler(logging.Handler):
        def emit(self, record):
            if "twice" in record.getMessage() or "no reply could be made" in record.getMessage():
                dropped.set()

    handler = Handler()
    logging.getLogger("threadko.rpc.requests").addHandler(handler)
    try:
        sender.send(f"{service.name}.method")
        delivery = service.take()

        def make_substitute(error):
            if substitute == "raises":
                raise RuntimeError("no substitute")
            return service.make_reply(delivery, exchange="rpc-nowhere")

        service.reply(delivery, exchange="rpc-nowhere", substitute=substitute and make_substitute)
        assert dropped.wait(TIMEOUT)
    finally:
        logging.getLogger("threadko.rpc.requests").removeHandler(handler)
    sender.send(f"{service.name}.method")
    service.reply(service.take(), b'"next"')
    assert sender.take()[1] == "next"
    service.link.stop(TIMEOUT)
    assert queue_depth(broker_uri, service.queue) == 0


def test_reply_leaves_over_the_next_connection_when_the_first_is_lost(
    make, caller, proxy, broker_uri
):
    service, sender = make(proxy.uri_for(broker_uri)), caller()
    sender.send(f"{service.name}.method")
    first = service.take()
    proxy.cut()
    again = service.take()
    assert again.redelivered
    service.reply(first, b'"first"')
    assert sender.take()[1] == "first"
    # The acknowledgement was for a tag of the lost connection: this one still has to be settled.
    service.reply(again, b'"second"')
    assert sender.take()[1] == "second"
    service.link.stop(TIMEOUT)
    assert queue_depth(broker_uri, service.queue) == 0


def test_late_acknowledgement_does_not_settle_somebody_else_s_request(
    make, caller, proxy, broker_uri
):
    service, sender = make(proxy.uri_for(broker_uri)), caller()
    sender.send(f"{service.name}.method", "first")
    old = service.take()
    proxy.cut()
    new = service.take()
    assert (old.tag, new.tag) == (1, 1)
    service.link.settle(old, None)
    service.link.reject(old)
    service.link.requeue(old)
    service.link.kill()
    # `new` was never settled, so it is back; an ack with its tag would have taken it away.
    assert not wait_depth_is(broker_uri, service.queue, 0)


def wait_depth_is(uri, name, count):
    """Whether a queue has so many messages once its last consumer is gone."""
    deadline = Deadline(TIMEOUT)
    while queue_consumers(uri, name) and not deadline.expired:
        pass
    return queue_depth(uri, name) == count


def test_unconfirmed_reply_is_sent_again_when_the_connection_is_lost(
    make, caller, proxy, broker_uri
):
    service, sender = make(proxy.uri_for(broker_uri)), caller()
    sender.send(f"{service.name}.method")
    delivery = service.take()
    proxy.hole(up=False, down=True)
    service.reply(delivery)
    first, _ = sender.take()
    proxy.cut()
    proxy.heal()
    second, _ = sender.take()
    assert first.properties.correlation_id == second.properties.correlation_id
    service.link.stop(TIMEOUT)
    assert queue_depth(broker_uri, service.queue) == 0
    assert service.requests.empty()


def test_request_is_not_acknowledged_before_its_reply_is_confirmed(make, caller, proxy, broker_uri):
    service, sender = make(proxy.uri_for(broker_uri)), caller()
    sender.send(f"{service.name}.method")
    delivery = service.take()
    proxy.hole(up=False, down=True)
    service.reply(delivery)
    assert sender.take()[1] == "done"
    service.link.kill()
    # Whoever sees the request next answers it, whatever the broker has made of the reply.
    assert wait_depth_is(broker_uri, service.queue, 1)


def test_answered_requests_are_acknowledged_when_no_other_reply_follows(make, caller):
    service, sender = make(prefetch=8), caller()
    for number in range(16):
        sender.send(f"{service.name}.method", number)
    # Of a fourth of the prefetch the acknowledgements wait for company; these come one by one.
    for number in range(16):
        delivery = service.take()
        service.reply(delivery, b"%d" % number)
        assert sender.take()[1] == number
    assert service.requests.empty()


def test_request_that_comes_again_is_not_run_when_its_reply_is_on_its_way(
    make, caller, proxy, broker_uri
):
    service, sender = make(proxy.uri_for(broker_uri), prefetch=2), caller()
    for number in range(3):
        sender.send(f"{service.name}.method", number)
    answered, begun = service.take(), service.take()
    proxy.hole(up=True, down=True)
    service.reply(answered, b'"once"')
    proxy.cut()
    proxy.heal()
    again = service.take()  # the other one, which nobody has answered
    assert again.redelivered
    assert again.body == begun.body
    assert sender.take()[1] == "once"
    service.reply(again, b'"twice"')
    assert sender.take()[1] == "twice"
    service.reply(service.take(), b'"third"')
    assert sender.take()[1] == "third"
    service.link.stop(TIMEOUT)
    assert service.requests.empty()
    assert queue_depth(broker_uri, service.queue) == 0


def test_copies_of_a_request_that_come_again_are_settled_by_its_one_reply(
    make, caller, proxy, broker_uri
):
    service, sender = make(proxy.uri_for(broker_uri), prefetch=3), caller()
    for _ in range(3):  # as a caller does that lost its connection before the confirm
        sender.send(f"{service.name}.method", correlation_id="same")
    answered, *_ = [service.take() for _ in range(3)]
    proxy.hole(up=True, down=True)
    service.reply(answered, b'"once"')
    proxy.cut()
    proxy.heal()
    assert sender.take()[1] == "once"
    for number in range(3):  # the places of the copies are free again
        sender.send(f"{service.name}.method", number)
    assert [service.take().body for _ in range(3)] == [b"0", b"1", b"2"]
    assert sender.left() is None
    service.link.kill()
    assert wait_depth_is(broker_uri, service.queue, 3)


def test_what_was_begun_is_settled_after_cancelling(make, caller, broker_uri):
    service, sender = make(prefetch=2), caller()
    for number in range(5):
        sender.send(f"{service.name}.method", number)
    begun = [service.take(), service.take()]
    service.link.cancel()
    for delivery in begun:
        service.reply(delivery, delivery.body)
    assert [sender.take()[1], sender.take()[1]] == [0, 1]
    assert service.link.is_up
    service.link.stop(TIMEOUT)
    assert service.requests.empty()
    assert queue_depth(broker_uri, service.queue) == 3


def test_requests_go_back_when_the_link_is_killed(make, caller, broker_uri):
    service, sender = make(), caller()
    sender.send(f"{service.name}.method")
    delivery = service.take()
    service.link.kill()
    service.link.stop(TIMEOUT)
    service.reply(delivery)
    assert wait_depth_is(broker_uri, service.queue, 1)
    assert sender.left() is None


def test_stop_gives_up_when_the_broker_is_silent(make, caller, proxy, broker_uri, caplog):
    service, sender = make(proxy.uri_for(broker_uri)), caller()
    sender.send(f"{service.name}.method")
    delivery = service.take()
    proxy.hole()
    service.reply(delivery)
    service.link.stop(0.1)
    assert "closed before the broker had confirmed everything" in caplog.text
    assert not service.link.is_up


def test_stop_does_not_wait_for_a_broker_that_is_gone(make, proxy, broker_uri):
    service = make(proxy.uri_for(broker_uri))
    proxy.refuse()
    proxy.cut()
    proxy.wait_for(lambda: proxy.connections == 0)
    service.link.stop(TIMEOUT)
    assert not service.link.is_up


def test_stop_ends_when_the_connection_is_lost_in_its_middle(make, caller, proxy, broker_uri):
    service, sender = make(proxy.uri_for(broker_uri)), caller()
    sender.send(f"{service.name}.method")
    delivery = service.take()
    proxy.hole()
    service.reply(delivery)
    stopping = threading.Thread(target=service.link.stop, args=(TIMEOUT * 10,))
    stopping.start()
    proxy.cut()
    stopping.join(TIMEOUT)
    assert not stopping.is_alive()


def test_wait_is_over_when_it_is_interrupted(amqp_config, proxy, broker_uri, name):
    proxy.refuse()
    service = Service(proxy.uri_for(broker_uri), amqp_config["rpc_exchange"], name)
    service.link.start()
    service.link.interrupt()
    with pytest.raises(ContainerStopped):
        service.link.wait_up(Deadline(TIMEOUT))
    service.link.stop(TIMEOUT)


def declare_otherwise(uri, name):
    """Delete a queue and declare it with other arguments, before its consumer does."""
    while True:
        with open_channel(uri) as channel:
            channel.queue_delete(name)
            with contextlib.suppress(ChannelClosedByBroker):
                channel.queue_declare(name, durable=True, arguments={"x-max-length": 5})
                return


def test_start_fails_when_the_queue_was_declared_otherwise(broker_uri, amqp_config, name):
    declare_otherwise(broker_uri, f"rpc-{name}")
    service = Service(broker_uri, amqp_config["rpc_exchange"], name)
    with pytest.raises(BrokerRefused, match=f"rpc-{name}"):
        service.start()
    service.link.stop(TIMEOUT)


def test_link_pauses_between_attempts_when_its_queue_has_become_another(
    make, caller, proxy, broker_uri, caplog
):
    service, sender = make(proxy.uri_for(broker_uri)), caller()
    declare_otherwise(broker_uri, service.queue)
    proxy.wait_for(lambda: proxy.accepted >= 3)
    closed = [r for r in caplog.records if "closed the consumer's channel" in r.getMessage()]
    assert len(closed) <= 2
    delete_queue(broker_uri, service.queue)
    proxy.cut()
    deadline = Deadline(TIMEOUT)
    while not service.link.is_up and not deadline.expired:
        with contextlib.suppress(Exception):
            service.link.wait_up(Deadline(1))
    sender.send(f"{service.name}.method")
    service.reply(service.take())
    assert sender.take()[1] == "done"


def test_requests_come_again_when_the_broker_closes_their_channel(make, caller, broker_uri):
    service, sender = make(), caller()
    sender.send(f"{service.name}.method")
    first = service.take()
    service.link.settle(first, None)
    service.link.settle(first, None)  # the second of these is refused, with the channel
    sender.send(f"{service.name}.method")
    service.reply(service.take())
    assert sender.take()[1] == "done"
