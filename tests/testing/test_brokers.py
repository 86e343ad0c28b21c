"""Brokers for tests: the development broker, a RabbitMQ with its management API, and without."""

import http.server
import threading
from urllib.parse import unquote

import pika
import pytest
from pika.exceptions import AMQPConnectionError

from tests.containers.dummies import in_thread
from tests.support import amqp
from tests.support.proxy import Proxy
from tests.support.timing import TIMEOUT
from threadko.amqp.entities import Exchange, Queue
from threadko.amqp.errands import Errands
from threadko.amqp.parameters import BrokerParameters
from threadko.amqp.publish import Publisher
from threadko.devbroker import DevBroker
from threadko.exceptions import BrokerError, ConfigurationError
from threadko.rpc import rpc
from threadko.testing.brokers import (
    DevelopmentBroker,
    ManagedBroker,
    SharedBroker,
    make_broker,
)
from threadko.testing.rabbit import Client
from threadko.testing.waiting import WaitTimeout


def declare(uri, queue):
    with Errands(BrokerParameters.from_uri(uri), timeout=TIMEOUT) as errands:
        errands.declare(queue)


@pytest.fixture
def development():
    source = DevelopmentBroker()
    yield source
    source.close()


class TestDevelopment:
    def test_nothing_is_started_before_it_is_asked_for(self):
        before = set(threading.enumerate())
        source = DevelopmentBroker()
        assert set(threading.enumerate()) == before
        source.close()

    def test_each_test_has_a_vhost_of_its_own_and_one_broker_serves_all(self, development):
        with development.fresh() as first, development.fresh() as second:
            declare(first.uri, Queue("queue"))
            assert amqp.has_queue(first.uri, "queue")
            assert not amqp.has_queue(second.uri, "queue")
            ports = {pika.URLParameters(each.uri).port for each in (first, second)}
        assert len(ports) == 1

    def test_vhost_ends_with_its_test(self, development):
        with development.fresh() as fresh:
            connection = pika.BlockingConnection(pika.URLParameters(fresh.uri))
            assert len(fresh.list_connections()) == 1
        assert fresh.list_connections() == []
        with pytest.raises(AMQPConnectionError):
            connection.process_data_events(TIMEOUT)
        with pytest.raises(AMQPConnectionError):
            amqp.has_queue(fresh.uri, "queue")

    def test_broker_ends_when_it_is_closed_and_may_be_closed_again(self, development):
        with development.fresh() as fresh:
            pass
        development.close()
        development.close()
        with pytest.raises(AMQPConnectionError):
            amqp.has_queue(fresh.uri, "queue")

    def test_many_threads_may_ask(self, development):
        uris = []

        def ask():
            with development.fresh() as fresh:
                uris.append(fresh.uri)
                assert not amqp.has_queue(fresh.uri, "queue")

        calls = [in_thread(ask) for _ in range(8)]
        assert [call.finish() for call in calls] == [None] * 8
        assert len(set(uris)) == 8
        assert len({pika.URLParameters(uri).port for uri in uris}) == 1


@pytest.fixture
def shared_uri(broker_uri):
    """A vhost that may be cleared: of a development broker, or what AMQP_URI names."""
    return broker_uri


class TestShared:
    def test_what_the_test_declares_is_deleted_after_it(self, shared_uri, names, container_factory):
        class Service:
            name = names.service()

            @rpc
            def method(self):
                pass

        exchange = Exchange(f"{Service.name}-exchange")
        amqp.declare_queue(shared_uri, other := names.queue())
        with SharedBroker(shared_uri).fresh() as fresh:
            assert fresh.uri == shared_uri
            assert fresh.list_connections() == []
            config = {"AMQP_URI": fresh.uri, "rpc_exchange": f"rpc-{Service.name}"}
            container = container_factory(Service, config)
            container.start()
            queue = Queue(f"{Service.name}-queue", exchange, routing_key="key")
            Publisher(fresh.uri).publish(1, exchange=exchange, routing_key="key", declare=[queue])
            assert amqp.has_queue(shared_uri, f"rpc-{Service.name}")
            assert amqp.has_queue(shared_uri, queue.name)
            container.stop()
        assert not amqp.has_queue(shared_uri, f"rpc-{Service.name}")
        assert not amqp.has_queue(shared_uri, queue.name)
        for name in (exchange.name, config["rpc_exchange"]):
            with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="404"):
                with amqp.open_channel(shared_uri) as channel:
                    channel.exchange_declare(name, passive=True)
        assert amqp.has_queue(shared_uri, other)

    def test_queue_that_others_consume_from_is_left(self, shared_uri, names):
        name = names.queue()
        with amqp.open_channel(shared_uri) as channel:
            with SharedBroker(shared_uri, clear_timeout=0.05).fresh():
                declare(shared_uri, Queue(name))
                channel.basic_consume(name, lambda *_: None)
            assert amqp.has_queue(shared_uri, name)

    def test_queue_of_consumers_that_have_just_gone_is_deleted(self, shared_uri, names):
        name = names.queue()
        parameters = pika.URLParameters(shared_uri)
        with SharedBroker(shared_uri).fresh():
            declare(shared_uri, Queue(name))
            connection = pika.BlockingConnection(parameters)
            connection.channel().basic_consume(name, lambda *_: None)
            connection.close()
        assert not amqp.has_queue(shared_uri, name)

    @pytest.mark.parametrize("is_same", [True, False])
    def test_tests_take_turns(self, shared_uri, is_same):
        first = SharedBroker(shared_uri)
        second = first if is_same else SharedBroker(shared_uri)  # as in another process
        order = []

        def ask():
            with second.fresh():
                order.append("second")

        with first.fresh():
            call = in_thread(ask)
            if not is_same:
                # It asks the broker again and again.
                with pytest.raises(BrokerError, match="405"):
                    declare(shared_uri, Queue("threadko-test-lock", durable=False, exclusive=True))
            order.append("first")
        assert call.finish() is None
        assert order == ["first", "second"]
        first.close()

    @pytest.mark.parametrize("is_same", [True, False])
    def test_turn_that_never_comes_is_an_error(self, shared_uri, is_same):
        first = SharedBroker(shared_uri)  # which may have to wait for tests of other processes
        second = first if is_same else SharedBroker(shared_uri)
        with first.fresh():
            second._turn_timeout = 0.02
            with pytest.raises(WaitTimeout, match=r"had the (broker|vhost) for 0\.02 s"):
                with second.fresh():
                    pytest.fail("entered")

    def test_test_ends_though_the_broker_is_out_of_reach_by_then(self, shared_uri):
        with Proxy.for_uri(shared_uri) as proxy:
            through = proxy.uri_for(shared_uri)
            with SharedBroker(through, clear_timeout=0).fresh():
                proxy.cut()
                declare(shared_uri, Queue("threadko-test-unreachable", durable=False))
                proxy.refuse()
        amqp.delete_queue(shared_uri, "threadko-test-unreachable")

    def test_exchange_that_others_use_is_left(self, shared_uri, names, rpc_exchange):
        with SharedBroker(shared_uri).fresh():
            declare(shared_uri, Queue(own := names.queue(), Exchange(rpc_exchange)))
            amqp.declare_queue(shared_uri, other := names.queue(), exchange=rpc_exchange)
        assert not amqp.has_queue(shared_uri, own)
        assert amqp.has_queue(shared_uri, other)
        with amqp.open_channel(shared_uri) as channel:
            channel.exchange_declare(rpc_exchange, passive=True)


class TestMake:
    def test_development_broker_is_the_default(self):
        assert isinstance(make_broker(), DevelopmentBroker)

    def test_rabbitmq_is_shared_unless_it_has_a_management_api(self):
        assert isinstance(make_broker("amqp://somewhere"), SharedBroker)
        made = make_broker("amqp://somewhere", "http://somewhere:15672")
        assert isinstance(made, ManagedBroker)

    def test_address_that_cannot_be_used_is_an_error(self):
        with pytest.raises(ConfigurationError, match="it must begin with amqp://"):
            make_broker("http://somewhere")

    def test_management_api_alone_is_an_error(self):
        with pytest.raises(ConfigurationError, match="give --amqp-uri too"):
            make_broker(None, "http://somewhere")


class ManagementApi(http.server.BaseHTTPRequestHandler):
    """As much of RabbitMQ's management API as is needed, for a development broker."""

    def answer(self):
        self.rfile.read(int(self.headers["Content-Length"] or 0))
        kind, _, name = self.path.removeprefix("/api/").partition("/")
        if kind == "vhosts" and self.command == "PUT":
            self.server.broker.add_vhost(unquote(name))
        elif kind == "vhosts" and self.command == "DELETE":
            self.server.broker.remove_vhost(unquote(name))
        self.server.asked.append((self.command, kind))
        self.send_response(204)
        self.end_headers()

    do_GET = do_PUT = do_DELETE = answer  # noqa: N815 (http.server's names)

    def log_message(self, *args):
        pass


@pytest.fixture
def managed():
    """A development broker that has a management API."""
    with DevBroker() as broker:
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), ManagementApi) as server:
            server.broker, server.asked = broker, []
            thread = threading.Thread(target=server.serve_forever, args=(0.01,))
            thread.start()
            yield server
            server.shutdown()
            thread.join(TIMEOUT)


class TestManaged:
    def test_vhosts_are_made_ahead_and_all_deleted(self, managed):
        source = ManagedBroker(managed.broker.uri, f"http://127.0.0.1:{managed.server_port}")
        assert managed.asked == []
        with source.fresh() as first, source.fresh() as second:
            declare(first.uri, Queue("queue"))
            assert amqp.has_queue(first.uri, "queue")
            assert not amqp.has_queue(second.uri, "queue")
            assert first.list_connections() == []
        source.close()
        source.close()
        assert list(managed.broker.vhosts) == ["/"]
        assert ("PUT", "permissions") in managed.asked
        with source.fresh() as third:  # begins anew
            assert not amqp.has_queue(third.uri, "queue")
        source.close()
        assert list(managed.broker.vhosts) == ["/"]

    def test_each_test_has_a_vhost_of_its_own_which_ends_with_the_source(self, node, api_uri):
        client = Client(api_uri)
        before = {each["name"] for each in client.get_all_vhosts()}
        source = ManagedBroker(node.uri, api_uri)
        try:
            with source.fresh() as first, source.fresh() as second:
                declare(first.uri, Queue("queue"))
                assert amqp.has_queue(first.uri, "queue")
                assert not amqp.has_queue(second.uri, "queue")
        finally:
            source.close()
        source.close()
        assert {each["name"] for each in client.get_all_vhosts()} == before

    def test_management_api_that_is_not_there_is_an_error(self):
        source = ManagedBroker("amqp://127.0.0.1:1/", "http://127.0.0.1:1")
        with pytest.raises(BrokerError, match="rabbitmq-plugins enable"), source.fresh():
            pytest.fail("entered")
        source.close()
