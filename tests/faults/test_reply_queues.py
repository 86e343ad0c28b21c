"""The reply queue of a caller that was cut off: it expires, or the dead connection holds it."""

import threading

import pika.exceptions
import pytest

from tests.rpc.raw import RawService
from tests.support import amqp
from tests.support.proxy import Proxy
from tests.support.timing import TIMEOUT, wait_until
from threadko.exceptions import PublishFailed, ReplyQueueExpiredWithPendingReplies
from threadko.rpc import ServiceRpc, protocol, rpc
from threadko.rpc.providers import ReplyListener
from threadko.runners import run_services
from threadko.standalone.rpc import ClusterRpcClient
from threadko.testing.services import entrypoint_hook


def wait_gone(uri, queue):
    """Wait until a queue is no more; to ask for it would count as use, so it is sent messages."""
    never = threading.Event()
    for _ in range(int(TIMEOUT / 0.02)):
        try:
            amqp.publish(uri, b"is it there?", routing_key=queue)
        except pika.exceptions.UnroutableError:
            return
        never.wait(0.02)
    raise AssertionError(f"{queue} does not expire")


def test_call_fails_when_its_reply_queue_expired_and_the_next_has_a_new_one(
    names, amqp_config, proxy, broker_uri, rpc_exchange, monkeypatch
):
    monkeypatch.setattr(protocol, "RPC_REPLY_QUEUE_TTL", 100)
    front, back = names.service("front"), names.service("back")
    outcomes = []

    class Front:
        name = front
        back_rpc = ServiceRpc(back)

        @rpc
        def ask(self):
            return self.back_rpc.answer()

    def ask(container):
        try:
            with entrypoint_hook(container, "ask") as hooked:
                outcomes.append(hooked())
        except ReplyQueueExpiredWithPendingReplies as error:
            outcomes.append(error)

    config = {**amqp_config, "AMQP_URI": proxy.uri_for(broker_uri)}
    with (
        run_services(Front, config=config) as runner,
        RawService(broker_uri, rpc_exchange, back) as far,
    ):
        (container,) = runner.containers
        (listener,) = [each for each in container.subextensions if isinstance(each, ReplyListener)]
        for _ in range(2):
            asking = threading.Thread(target=ask, args=(container,))
            asking.start()
            request = far.take()
            # One that is not confirmed yet would be sent again, and not fail.
            wait_until(lambda: not listener.link._unconfirmed)
            proxy.refuse()
            proxy.cut()
            wait_gone(broker_uri, f"rpc.reply-{front}-{request.properties.reply_to}")
            proxy.accept()
            asking.join(TIMEOUT)
            assert not asking.is_alive()
            assert isinstance(outcomes.pop(), ReplyQueueExpiredWithPendingReplies)
            assert not container.being_killed
            asking = threading.Thread(target=ask, args=(container,))
            asking.start()
            far.reply(far.take(), "answered")
            asking.join(TIMEOUT)
            assert outcomes.pop() == "answered"


@pytest.mark.long
def test_reply_queue_is_consumed_again_while_the_broker_holds_the_dead_connection(
    service_cls, name, amqp_config, broker_uri, caplog
):
    with Proxy.for_uri(broker_uri) as first, Proxy.for_uri(broker_uri) as second:
        config = {
            **amqp_config,
            "AMQP_URI": [first.uri_for(broker_uri), second.uri_for(broker_uri)],
            "PUBLISH_TIMEOUT": TIMEOUT / 8,
            "HEARTBEAT": 2,
        }
        with run_services(service_cls, config=amqp_config):
            with ClusterRpcClient(config=config, timeout=TIMEOUT * 2) as client:
                assert client[name].echo("before") == "before"
                first.hole()  # the broker sees no end of this connection, only silence
                with pytest.raises(PublishFailed, match="unknown"):
                    client[name].echo("lost")
                second.wait_for(lambda: second.accepted == 1)
                assert first.connections == 1, "the broker was told"
                # Some replies go to the dead consumer, until the broker misses its heartbeats.
                calls = [client[name].echo.call_async(number) for number in range(10)]
                assert [call.result(TIMEOUT * 2) for call in calls] == list(range(10))
                assert second.accepted == 1
    assert "(405)" not in caplog.text  # not in a port
    assert "RESOURCE_LOCKED" not in caplog.text
