"""A request that was answered comes again, since its acknowledgement was lost."""

from tests.support.amqp import queue_depth
from tests.support.timing import TIMEOUT
from threadko.runners import run_services
from threadko.standalone.rpc import ClusterRpcClient


def test_request_that_comes_again_after_its_reply_is_answered_once(
    service_cls, name, gate, amqp_config, proxy, broker_uri
):
    config = {**amqp_config, "AMQP_URI": proxy.uri_for(broker_uri), "max_workers": 1}
    with run_services(service_cls, config=config):
        client = ClusterRpcClient(config=amqp_config, timeout=TIMEOUT)
        with client as services:
            for number in range(5):
                accepted = proxy.accepted
                gate.open.clear()
                call = services[name].hold.call_async(number)
                gate.wait_for(1)
                # The reply leaves, and the service never hears of it: it may not acknowledge.
                proxy.hole(up=False, down=True)
                gate.open.set()
                assert call.result(TIMEOUT) == number
                proxy.cut()
                proxy.heal()
                proxy.wait_for(lambda before=accepted: proxy.accepted > before)
                assert services[name].echo(f"after {number}") == f"after {number}"
            assert client.pending == 0
    # It knew each again, whose reply it was still to see confirmed.
    assert set(gate.runs.values()) == {1}
    assert queue_depth(broker_uri, f"rpc-{name}") == 0
