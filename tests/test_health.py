"""Live and ready: what is found in containers, and how it is served."""

import contextlib
import threading
import time

import pytest
import requests

from tests.conftest import pika_channel
from tests.support.proxy import Proxy
from tests.support.timing import TIMEOUT, wait_until
from threadko.events import EventDispatcher, event_handler
from threadko.exceptions import ConfigurationError
from threadko.extensions import DependencyProvider
from threadko.health import HealthServer, find_hangs, find_troubles
from threadko.rpc import ServiceRpc, rpc
from threadko.standalone.rpc import ServiceRpcClient

NEVER_HUNG = 3600.0


class Stubborn(DependencyProvider):
    """Its thread has gone away."""

    def answer_ping(self, answer):
        pass


class Faulty(DependencyProvider):
    """Cannot be asked."""

    def find_trouble(self):
        raise ValueError("no")

    def answer_ping(self, answer):
        raise ValueError("no")


@pytest.fixture
def make_service(names):
    def make(**members):
        held = threading.Event()

        class Service:
            name = names.service("healthy")
            other = ServiceRpc("other")
            dispatch = EventDispatcher()
            began = threading.Semaphore(0)
            hold_on = held

            @rpc
            def hold(self):
                self.began.release()
                assert held.wait(TIMEOUT)

            @event_handler("shop", "sold", reliable_delivery=False)
            def note(self, payload):
                pass

        for key, value in members.items():
            setattr(Service, key, value)
        return Service

    return make


def test_container_is_ready_while_it_runs_and_says_what_else_it_does(
    make_service, container_factory, amqp_config
):
    container = container_factory(make_service(), config=amqp_config)
    name = container.service_name
    assert find_troubles([container]) == [f"service {name} is new"]
    container.start()
    wait_until(lambda: not find_troubles([container]), "ready")
    assert find_hangs([container], hung_timeout=NEVER_HUNG) == []
    container.stop()
    assert find_troubles([container]) == [f"service {name} is stopped"]
    assert find_hangs([container], hung_timeout=NEVER_HUNG) == []


def test_lost_connection_is_a_trouble_and_no_hang_until_it_is_back(
    make_service, container_factory, amqp_config, broker_uri
):
    with Proxy.for_uri(broker_uri) as proxy:
        config = {**amqp_config, "AMQP_URI": proxy.uri_for(broker_uri)}
        container = container_factory(make_service(), config=config)
        container.start()
        wait_until(lambda: not find_troubles([container]), "ready")
        proxy.refuse()
        proxy.cut()
        begun = time.monotonic()
        # The end of a channel may be known a moment before that of its connection.
        wait_until(
            lambda: str(find_troubles([container])).count("no connection to amqp://") == 4,
            "all four connections are missed",
        )
        assert time.monotonic() - begun < TIMEOUT / 4, "within five seconds"
        assert "guest:guest" not in str(find_troubles([container]))
        assert find_hangs([container], hung_timeout=NEVER_HUNG) == []
        proxy.accept()
        wait_until(lambda: not find_troubles([container]), "ready again")
        container.stop()


def test_lost_consumer_is_a_trouble_until_it_is_back(
    make_service, container_factory, amqp_config, broker_uri
):
    with Proxy.for_uri(broker_uri) as proxy:
        config = {**amqp_config, "AMQP_URI": proxy.uri_for(broker_uri)}
        container = container_factory(make_service(), config=config)
        container.start()
        wait_until(lambda: not find_troubles([container]), "ready")
        queue = f"rpc-{container.service_name}"
        proxy.stall(up=True, down=False)  # or it would be declared again at once
        begun = time.monotonic()
        with pika_channel(broker_uri) as channel:
            channel.queue_delete(queue)
        trouble = f"service {container.service_name}: no consumer of {queue}"
        wait_until(lambda: find_troubles([container]) == [trouble], "it is missed")
        assert time.monotonic() - begun < TIMEOUT / 4, "within five seconds"
        assert find_hangs([container], hung_timeout=NEVER_HUNG) == []
        proxy.flow()
        wait_until(lambda: not find_troubles([container]), "ready again")
        container.stop()


def test_workers_that_all_hang_past_the_limit_are_told_of(
    make_service, container_factory, amqp_config
):
    service = make_service()
    container = container_factory(service, config={**amqp_config, "max_workers": 2})
    container.start()
    with ServiceRpcClient(service.name, config=amqp_config, timeout=TIMEOUT) as client:
        calls = [client.hold.call_async()]
        assert service.began.acquire(timeout=TIMEOUT)
        assert find_hangs([container], hung_timeout=0.001) == []  # the other is free
        calls.append(client.hold.call_async())
        assert service.began.acquire(timeout=TIMEOUT)
        assert find_hangs([container], hung_timeout=NEVER_HUNG) == []
        wait_until(lambda: find_hangs([container], hung_timeout=0.2), "they hang")
        [hang] = find_hangs([container], hung_timeout=0.2)
        assert "all 2 workers have been busy" in hang
        service.hold_on.set()
        for call in calls:
            call.result(TIMEOUT)
    wait_until(lambda: not find_hangs([container], hung_timeout=0.001), "they are free again")
    container.stop()


def test_extension_whose_thread_does_not_answer_hangs(make_service, container_factory, amqp_config):
    container = container_factory(make_service(stubborn=Stubborn()), config=amqp_config)
    container.start()
    [hang] = find_hangs([container], hung_timeout=NEVER_HUNG, answer_timeout=TIMEOUT / 10)
    assert hang == f"service {container.service_name}: Stubborn does not answer"
    container.stop()


def test_extension_that_cannot_be_asked_is_a_trouble_and_no_hang(
    make_service, container_factory, amqp_config, caplog
):
    container = container_factory(make_service(faulty=Faulty()), config=amqp_config)
    container.start()
    name = container.service_name
    wait_until(
        lambda: find_troubles([container]) == [f"service {name}: Faulty cannot be asked"],
        "it alone is in trouble",
    )
    assert find_hangs([container], hung_timeout=NEVER_HUNG) == []
    assert "ValueError: no" in caplog.text
    container.stop()


# How it is served


@pytest.fixture
def serve():
    servers = []

    def serve(address="127.0.0.1:0", *, live=list, ready=list):
        server = HealthServer(address, live=live, ready=ready)
        servers.append(server)
        server.start()
        return f"http://{server.address}"

    yield serve
    for server in servers:
        server.close()


def test_yes_is_200_and_no_is_503_with_reasons(serve):
    url = serve(ready=lambda: ["one", "two"])
    live, ready = (requests.get(f"{url}/{path}", timeout=TIMEOUT) for path in ("live", "ready"))
    assert (live.status_code, live.text) == (200, "ok\n")
    assert (ready.status_code, ready.text) == (503, "one\ntwo\n")
    assert live.headers["Cache-Control"] == "no-store"
    head = requests.head(f"{url}/live", timeout=TIMEOUT)
    assert (head.status_code, head.text) == (200, "")


def test_other_paths_and_methods_are_refused(serve):
    url = serve()
    assert requests.get(f"{url}/", timeout=TIMEOUT).status_code == 404
    assert requests.delete(f"{url}/live", timeout=TIMEOUT).status_code == 405


def test_answer_that_fails_is_500_and_logged(serve, caplog):
    url = serve(live=lambda: 1 / 0)
    assert requests.get(f"{url}/live", timeout=TIMEOUT).status_code == 500
    assert "ZeroDivisionError" in caplog.text


def test_probes_are_not_in_the_access_log(caplog):
    caplog.set_level("DEBUG")
    server = HealthServer("127.0.0.1:0", live=list, ready=list)
    server.start()
    requests.get(f"http://{server.address}/live", timeout=TIMEOUT)
    server.close()  # and what there is to tell has been told
    assert not [record for record in caplog.records if record.name == "threadko.access"]


def test_slow_client_holds_up_nobody(serve):
    released = threading.Event()

    def live():
        assert released.wait(TIMEOUT)
        return []

    url = serve(live=live)
    slow = threading.Thread(target=lambda: requests.get(f"{url}/live", timeout=TIMEOUT))
    slow.start()
    try:
        assert requests.get(f"{url}/ready", timeout=TIMEOUT).status_code == 200
    finally:
        released.set()
        slow.join(TIMEOUT)


def test_address_that_is_taken_is_a_configuration_error(serve):
    url = serve()
    with pytest.raises(ConfigurationError, match=r"cannot listen.* another HEALTH_ADDRESS"):
        serve(url.removeprefix("http://"))


def test_address_that_is_none_is_a_configuration_error():
    with pytest.raises(ConfigurationError, match="HEALTH_ADDRESS must be"):
        HealthServer("nope", live=list, ready=list)


def test_server_that_was_never_started_is_closed():
    server = HealthServer("127.0.0.1:8001", live=list, ready=list)
    assert str(server.address) == "127.0.0.1:8001"
    with contextlib.closing(server):
        pass
