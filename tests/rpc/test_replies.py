import contextlib
import threading

import pytest
from pika.exceptions import UnroutableError

from tests.rpc.raw import RawService
from tests.support.amqp import delete_queue, has_queue, open_channel, publish, queue_depth
from tests.support.proxy import Proxy
from tests.support.timing import TIMEOUT, wait_until
from threadko.amqp.parameters import BrokerParameters
from threadko.concurrency.deadline import Deadline
from threadko.exceptions import (
    BrokerRefused,
    ContainerStopped,
    EncodeError,
    PublishFailed,
    RemoteError,
    ReplyQueueExpiredWithPendingReplies,
    RpcTimeout,
    UnknownService,
    WorkerKilled,
)
from threadko.rpc.caller import Caller
from threadko.rpc.replies import CallLink
from threadko.serialization import Serialization

pytestmark = pytest.mark.usefixtures("names")


def make_link(uri, exchange, cls=CallLink, **options):
    return cls(
        BrokerParameters.from_uri(uri, heartbeat=options.pop("heartbeat", 20)),
        name="threadko-test-replies-1",
        caller="test",
        exchange=exchange,
        **{"publish_timeout": TIMEOUT, "max_message_size": 1 << 20, **options},
    )


@pytest.fixture
def exchange(rpc_exchange, broker_uri):
    with open_channel(broker_uri) as channel:
        channel.exchange_declare(rpc_exchange, "topic", durable=True)
    return rpc_exchange


@pytest.fixture
def service(broker_uri, exchange, names):
    with RawService(broker_uri, exchange, "raw") as made:
        yield made


@pytest.fixture
def make(broker_uri, exchange):
    """Makes links that are up, and stops them at the end."""
    links = []

    def make(uri=broker_uri, **options):
        link = make_link(uri, exchange, **options)
        links.append(link)
        link.start()
        link.wait_up(Deadline(TIMEOUT))
        return link

    yield make
    for link in links:
        link.stop(TIMEOUT)
        delete_queue(broker_uri, reply_queue_of(link))


def reply_queue_of(link):
    return f"rpc.reply-test-{link.reply_key}"


def call(link, *args, service="raw", method="method", timeout=None, context=None, **kwargs):
    caller = Caller(link, Serialization.from_config({}))
    return caller.start(lambda: context or {}, service, method, args, kwargs, timeout)


def test_request_is_nameko_s_on_the_wire(make, service):
    link = make()
    sent = call(link, 1, two=2, context={"language": "en", "nothing": None}, timeout=12.5)
    request = service.take()
    assert request.method.routing_key == "raw.method"
    assert request.body == b'{"args": [1], "kwargs": {"two": 2}}'
    properties = request.properties
    assert properties.content_type == "application/json"
    assert properties.content_encoding == "utf-8"
    assert (properties.delivery_mode, properties.priority) == (2, 0)
    assert properties.headers == {"nameko.language": "en"}
    assert properties.reply_to == link.reply_key
    assert properties.correlation_id == properties.message_id == sent.correlation_id
    assert properties.expiration == "12500"
    sent.cancel()


def test_request_does_not_expire_when_the_call_has_no_timeout(make, service):
    sent = call(make())
    assert service.take().properties.expiration is None
    sent.cancel()


@pytest.mark.parametrize("timeout", [1e10, float("inf")])
def test_request_does_not_expire_when_the_timeout_is_longer_than_a_broker_counts(
    make, service, timeout
):
    sent = call(make(), timeout=timeout)
    assert service.take().properties.expiration is None
    sent.cancel()


def test_reply_ends_the_call_that_it_belongs_to(make, service):
    link = make()
    first, second = call(link, 1), call(link, 2)
    requests = [service.take(), service.take()]
    service.reply(requests[1], "two")
    assert second.result(TIMEOUT) == "two"
    assert not first.done()
    service.reply(requests[0], "one")
    assert first.result(TIMEOUT) == "one"
    assert link.pending == 0


def test_replies_are_acknowledged_whoever_they_are_for(make, service, broker_uri):
    link = make()
    sent = call(link)
    request = service.take()
    service.reply(request, correlation_id="somebody-else-s")
    service.reply(request, correlation_id=None)
    service.reply_raw(request, b"", headers={"deep": {"deeper": [1, {"x": None}]}})
    service.reply(request, "second")
    with pytest.raises(RemoteError, match="MalformedReply"):
        sent.result(TIMEOUT)
    other = call(link)
    service.reply(service.take(), "other")
    assert other.result(TIMEOUT) == "other"
    link.stop(TIMEOUT)
    assert queue_depth(broker_uri, reply_queue_of(link)) == 0


@pytest.mark.parametrize(
    ("body", "properties"),
    [
        (b"not json", {}),
        (b"{}", {"content_type": "application/x-python-serialize"}),
        (b"{}", {"content_type": "application/unheard-of"}),
        (b"\xff", {"content_encoding": "unheard-of"}),
        (b"[1]", {}),
    ],
    ids=["body", "pickle", "content type", "encoding", "shape"],
)
def test_call_fails_when_its_reply_cannot_be_read(make, service, body, properties):
    sent = call(make())
    service.reply_raw(service.take(), body, **properties)
    with pytest.raises(RemoteError, match="MalformedReply"):
        sent.result(TIMEOUT)


def test_call_fails_at_once_when_no_queue_takes_its_requests(make, service):
    link = make()
    with pytest.raises(UnknownService, match="nobody"):
        call(link, service="nobody").result(TIMEOUT)
    assert link.pending == 0
    sent = call(link)
    service.reply(service.take(), 1)
    assert sent.result(TIMEOUT) == 1


def test_call_times_out_and_its_late_reply_is_ignored(make, service):
    link = make()
    late = call(link, timeout=0.05)
    with pytest.raises(RpcTimeout, match=r"raw\.method"):
        late.result(TIMEOUT)
    assert link.pending == 0
    # The request has expired in the queue by now, or was taken in time: both are right.
    sent = call(link, "in time")
    request = service.take()
    if b"in time" not in request.body:
        service.reply(request, "late")
        request = service.take()
    service.reply(request, "in time")
    assert sent.result(TIMEOUT) == "in time"
    assert isinstance(late.exception(), RpcTimeout)


def test_timeout_is_not_put_off_when_other_replies_come(make, service):
    link = make()
    other = call(link, "other")
    request = service.take()
    slow = call(link, "slow", timeout=0.3)
    answered = threading.Event()

    def answer_others():
        while not slow.done():
            service.reply(request, correlation_id="somebody-else-s")
        answered.set()

    thread = threading.Thread(target=answer_others)
    thread.start()
    assert answered.wait(TIMEOUT)
    thread.join()
    assert isinstance(slow.exception(), RpcTimeout)
    other.cancel()


def test_call_that_is_cancelled_leaves_nothing_behind(make, service):
    link = make()
    sent = call(link)
    request = service.take()
    assert sent.cancel()
    assert link.pending == 0
    service.reply(request)
    other = call(link)
    service.reply(service.take(), 1)
    assert other.result(TIMEOUT) == 1


@pytest.mark.parametrize(
    ("args", "context"),
    [
        (("x" * (1 << 20),), {}),
        ((), {"big": "x" * 200_000}),
        ((object(),), {}),
        ((), {"number": 1 << 70}),
    ],
    ids=["body too large", "headers too large", "argument", "context data"],
)
def test_call_is_refused_when_it_cannot_be_sent(make, service, args, context):
    link = make()
    with pytest.raises(EncodeError):
        call(link, *args, context=context)
    assert link.pending == 0
    sent = call(link)
    service.reply(service.take(), 1)
    assert sent.result(TIMEOUT) == 1


def test_call_is_refused_when_its_name_is_too_long(make):
    with pytest.raises(EncodeError):
        call(make(), service="s" * 256)


def test_call_is_refused_on_the_connection_s_own_thread(make):
    refused = []

    class Probe(CallLink):
        def turn(self):
            if not refused:
                try:
                    call(self)
                except RuntimeError as error:
                    refused.append(error)
            super().turn()

    make(cls=Probe)
    assert "own thread" in str(refused[0])


def test_call_is_answered_when_the_connection_is_lost_meanwhile(make, service, proxy, broker_uri):
    link = make(proxy.uri_for(broker_uri))
    sent = call(link)
    request = service.take()
    proxy.refuse()
    proxy.cut()
    service.reply(request, "meanwhile")
    proxy.accept()
    assert sent.result(TIMEOUT) == "meanwhile"


def test_call_is_sent_when_the_connection_is_back(make, service, proxy, broker_uri):
    link = make(proxy.uri_for(broker_uri))
    proxy.refuse()
    proxy.cut()
    sent = call(link)
    proxy.accept()
    service.reply(service.take(), "at last")
    assert sent.result(TIMEOUT) == "at last"


def test_request_is_sent_again_when_the_connection_is_lost_before_its_confirm(
    make, service, proxy, broker_uri
):
    link = make(proxy.uri_for(broker_uri))
    proxy.hole(up=False, down=True)
    sent = call(link)
    first = service.take()
    proxy.cut()
    proxy.heal()
    second = service.take()
    assert first.properties.message_id == second.properties.message_id == sent.correlation_id
    service.reply(first, "first")
    service.reply(second, "second")
    assert sent.result(TIMEOUT) == "first"
    assert link.pending == 0


def test_cancelled_request_is_not_sent_again(make, service, proxy, broker_uri):
    link = make(proxy.uri_for(broker_uri))
    proxy.hole(up=False, down=True)
    sent = call(link, "cancelled")
    service.take()
    sent.cancel()
    proxy.cut()
    proxy.heal()
    other = call(link, "other")
    request = service.take()
    assert b"other" in request.body
    service.reply(request)
    other.result(TIMEOUT)


def test_call_fails_and_the_link_is_made_anew_when_no_confirm_comes(
    make, service, proxy, broker_uri
):
    link = make(proxy.uri_for(broker_uri), publish_timeout=0.2)
    proxy.hole()
    with pytest.raises(PublishFailed, match="unknown"):
        call(link).result(TIMEOUT)
    assert link.pending == 0
    proxy.heal()
    proxy.wait_for(lambda: proxy.accepted == 2)
    answered = False
    while not answered:  # the reconnect may take longer than a call may wait for its confirm
        sent = call(link, "after", timeout=TIMEOUT)
        with contextlib.suppress(TimeoutError, PublishFailed):
            while (request := service.take(1)).properties.correlation_id != sent.correlation_id:
                pass
            service.reply(request, "back")
            answered = sent.result(TIMEOUT) == "back"
        sent.cancel()


def test_call_fails_when_it_cannot_be_sent_in_time(make, proxy, broker_uri):
    link = make(proxy.uri_for(broker_uri), publish_timeout=0.2)
    proxy.refuse()
    proxy.cut()
    with pytest.raises(PublishFailed):
        call(link).result(TIMEOUT)
    proxy.accept()


def test_calls_that_wait_fail_when_the_reply_queue_is_deleted(make, service, broker_uri):
    link = make()
    sent = call(link)
    service.take()
    delete_queue(broker_uri, reply_queue_of(link))
    with pytest.raises(ReplyQueueExpiredWithPendingReplies, match=sent.correlation_id):
        sent.result(TIMEOUT)
    other = call(link)
    service.reply(service.take(), "on a new queue")
    assert other.result(TIMEOUT) == "on a new queue"


def test_calls_that_wait_fail_when_the_reply_queue_is_gone_after_a_reconnect(
    make, service, proxy, broker_uri
):
    link = make(proxy.uri_for(broker_uri))
    sent = call(link)
    service.take()
    wait_until(lambda: not link._unconfirmed)  # or it would be sent again, and not fail
    proxy.refuse()
    proxy.cut()
    unsent = call(link, "unsent")
    delete_queue(broker_uri, reply_queue_of(link))
    proxy.accept()
    with pytest.raises(ReplyQueueExpiredWithPendingReplies):
        sent.result(TIMEOUT)
    request = service.take()
    assert b"unsent" in request.body
    service.reply(request, 1)
    assert unsent.result(TIMEOUT) == 1


def test_reply_queue_is_made_anew_when_it_is_deleted_while_nobody_waits(make, broker_uri, service):
    link = make()
    delete_queue(broker_uri, reply_queue_of(link))
    sent = call(link)
    request = service.take()
    # Until it is there again the broker would have nowhere to put the reply.
    for _ in range(1000):
        if has_queue(broker_uri, reply_queue_of(link)):
            break
    with contextlib.suppress(UnroutableError):  # the outcome below says which order it was
        service.reply(request, 1)
    error = sent.exception(TIMEOUT)
    assert error is None or isinstance(error, ReplyQueueExpiredWithPendingReplies)
    assert link.pending == 0


def test_calls_that_wait_fail_when_the_link_stops(make, service):
    link = make()
    sent = call(link)
    link.stop(TIMEOUT)
    service.take()  # flushed
    with pytest.raises(ContainerStopped):
        sent.result(0)
    with pytest.raises(ContainerStopped):
        call(link)


def test_stop_waits_for_the_confirm_of_what_was_sent(make, service, proxy, broker_uri):
    link = make(proxy.uri_for(broker_uri))
    proxy.refuse()
    proxy.cut()
    call(link, "just before")
    stopping = threading.Thread(target=link.stop, args=(TIMEOUT,))
    stopping.start()
    proxy.accept()
    assert b"just before" in service.take().body
    stopping.join(TIMEOUT)
    assert not stopping.is_alive()


def test_whoever_waits_is_killed_when_the_link_is_killed(make, service):
    for _ in range(20):
        link = make()
        sent = call(link)
        waiting = threading.Barrier(2, timeout=TIMEOUT)
        caught = []

        def wait(sent=sent, waiting=waiting, caught=caught):
            waiting.wait()
            try:
                sent.result(TIMEOUT)
            except BaseException as error:
                caught.append(type(error))

        thread = threading.Thread(target=wait)
        thread.start()
        waiting.wait()
        link.kill()
        thread.join(TIMEOUT)
        assert caught == [WorkerKilled]
        with pytest.raises(WorkerKilled):
            call(link)


def test_kill_overtakes_a_stop_that_waits(make, proxy, broker_uri):
    link = make(proxy.uri_for(broker_uri))
    proxy.hole()
    sent = call(link)
    stopping = threading.Thread(target=link.stop, args=(TIMEOUT,))
    stopping.start()
    link.kill()
    stopping.join(TIMEOUT)
    assert not stopping.is_alive()
    with pytest.raises(WorkerKilled):
        sent.exception(0)


def test_calls_are_refused_when_the_broker_refuses_us(broker_uri, exchange):
    bad = broker_uri.replace("guest:guest@", "guest:wrong@")
    link = make_link(bad, exchange)
    link.start()
    with pytest.raises(BrokerRefused):
        link.wait_up(Deadline(TIMEOUT))
    with pytest.raises(BrokerRefused):
        call(link)
    assert not link.is_up
    link.stop(TIMEOUT)


def test_call_is_refused_when_the_link_was_never_started(broker_uri, exchange):
    link = make_link(broker_uri, exchange)
    with pytest.raises(ContainerStopped):
        call(link)
    assert link.pending == 0


def test_reply_comes_through_while_junk_floods_the_reply_queue(make, service, broker_uri, exchange):
    link = make()
    sent = call(link)
    request = service.take()
    with open_channel(broker_uri) as channel:
        for number in range(1000):
            channel.basic_publish(exchange, link.reply_key, b"junk %d" % number)
    service.reply(request, "found")
    assert sent.result(TIMEOUT) == "found"
    assert link.pending == 0


def test_proxy_is_the_only_way(proxy: Proxy, make, broker_uri):
    make(proxy.uri_for(broker_uri))
    assert proxy.accepted == 1
    publish(broker_uri, b"", mandatory=False)
    assert proxy.accepted == 1
