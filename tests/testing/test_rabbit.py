"""The management API, of a RabbitMQ of our own and of a server that answers what it likes."""

import http.server
import json
import threading
import uuid

import pytest
from pika.exceptions import AMQPError

from tests.support import amqp
from tests.support.timing import TIMEOUT
from threadko.exceptions import BrokerError, ConfigurationError
from threadko.testing.brokers import ManagedBroker
from threadko.testing.rabbit import Client, HTTPError
from threadko.testing.utils import (
    assert_stops_raising,
    get_rabbit_connections,
    reset_rabbit_connections,
)


@pytest.fixture
def client(node, api_uri):
    return Client(api_uri)


@pytest.fixture
def vhost(client):
    name = f"a/vhost {uuid.uuid4().hex[:8]}"
    client.create_vhost(name)
    client.set_vhost_permissions(name, "guest", ".*", ".*", ".*")
    yield name
    client.delete_vhost(name)


def test_vhosts_are_made_listed_and_deleted(client):
    client.create_vhost("made")
    assert "made" in [each["name"] for each in client.get_all_vhosts()]
    client.delete_vhost("made")
    assert "made" not in [each["name"] for each in client.get_all_vhosts()]


def test_messages_go_through_queues(client, vhost):
    client.create_queue(vhost, "queue", durable=True)
    client.create_queue_binding(vhost, "amq.direct", "queue", "key")
    assert [each["name"] for each in client.get_queues(vhost)] == ["queue"]
    assert client.get_queue(vhost, "queue")["durable"]
    keys = [each["routing_key"] for each in client.get_queue_bindings(vhost, "queue")]
    assert sorted(keys) == ["key", "queue"]
    assert "amq.direct" in [each["name"] for each in client.get_exchanges(vhost)]
    properties = {"correlation_id": "an id"}
    assert client.publish(vhost, "amq.direct", "key", "text", properties) == {"routed": True}
    (looked,) = client.get_messages(vhost, "queue", requeue=True)
    assert (looked["payload"], looked["properties"]["correlation_id"]) == ("text", "an id")
    assert len(client.get_messages(vhost, "queue", count=5)) == 1
    assert client.get_messages(vhost, "queue") == []


def test_what_is_not_there_is_an_http_error(client, vhost):
    with pytest.raises(HTTPError) as raised:
        client.get_queue(vhost, "missing")
    assert raised.value.code == 404
    assert b"Not Found" in raised.value.read()


def test_connections_are_found_and_closed(client, node, api_uri):
    source = ManagedBroker(node.uri, api_uri)
    try:
        with source.fresh() as fresh:
            vhost = fresh.uri.rpartition("/")[2]
            with amqp.open_channel(fresh.uri) as channel:

                def find():
                    found = get_rabbit_connections(vhost, client)
                    assert found
                    return found

                # The API tells of a connection when it has gathered its figures.
                assert_stops_raising(find, AssertionError, TIMEOUT)
                reset_rabbit_connections(vhost, client)
                with pytest.raises(AMQPError):
                    channel.connection.process_data_events(TIMEOUT)
    finally:
        source.close()


def test_wrong_password_is_an_error_that_does_not_show_it(node, api_port):
    with pytest.raises(ConfigurationError, match="refuses us \\(401") as raised:
        Client(f"http://guest:secret@127.0.0.1:{api_port}")
    assert "secret" not in str(raised.value)


def test_nobody_there_is_an_error_that_says_what_to_do():
    with pytest.raises(BrokerError, match="rabbitmq-plugins enable rabbitmq_management"):
        Client("http://guest:guest@127.0.0.1:1")


@pytest.mark.parametrize("uri", ["amqp://guest@localhost:15672", "localhost:15672", "http://"])
def test_address_that_is_none_is_an_error(uri):
    with pytest.raises(ConfigurationError, match="must be like http://guest"):
        Client(uri)


class Answering(http.server.BaseHTTPRequestHandler):
    """Answers every request, and writes down how it was asked."""

    body = b'{"a": 1}'
    status = 200

    def do_GET(self):
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        self.server.bodies.append(json.loads(body) if body else None)
        self.server.asked.append((self.command, self.path, self.headers["Authorization"]))
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    do_DELETE = do_PUT = do_POST = do_GET  # noqa: N815 (http.server's names)

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answering) as made:
        made.asked, made.bodies = [], []
        made.daemon_threads = True
        thread = threading.Thread(target=made.serve_forever, args=(0.01,))
        thread.start()
        yield made
        made.shutdown()
        thread.join(TIMEOUT)


def test_login_and_names_are_sent_as_they_are_meant(server):
    client = Client(f"http://a%40b:c%3Ad@127.0.0.1:{server.server_port}/prefix/")
    assert client.get_queue("/", "a/b c") == {"a": 1}
    client.delete_connection("127.0.0.1:1 -> 127.0.0.1:2")
    login = "Basic YUBiOmM6ZA=="
    assert server.asked == [
        ("GET", "/prefix/api/overview", login),
        ("GET", "/prefix/api/queues/%2F/a%2Fb%20c", login),
        ("DELETE", "/prefix/api/connections/127.0.0.1%3A1%20-%3E%20127.0.0.1%3A2", login),
    ]


@pytest.mark.parametrize(
    ("call", "command", "path", "body"),
    [
        (lambda c: c.get_connections(), "GET", "connections", None),
        (lambda c: c.get_exchanges("v"), "GET", "exchanges/v", None),
        (lambda c: c.get_all_vhosts(), "GET", "vhosts", None),
        (lambda c: c.create_vhost("v"), "PUT", "vhosts/v", None),
        (lambda c: c.delete_vhost("v"), "DELETE", "vhosts/v", None),
        (
            lambda c: c.set_vhost_permissions("v", "u", "a", "b", "c"),
            "PUT",
            "permissions/v/u",
            {"configure": "a", "read": "b", "write": "c"},
        ),
        (lambda c: c.get_queue("v", "q"), "GET", "queues/v/q", None),
        (lambda c: c.create_queue("v", "q", durable=True), "PUT", "queues/v/q", {"durable": True}),
        (lambda c: c.get_queues("v"), "GET", "queues/v", None),
        (lambda c: c.get_queue_bindings("v", "q"), "GET", "queues/v/q/bindings", None),
        (
            lambda c: c.create_queue_binding("v", "e", "q", "k"),
            "POST",
            "bindings/v/e/e/q/q",
            {"routing_key": "k"},
        ),
        (
            lambda c: c.publish("v", "e", "k", "text", {"priority": 1}),
            "POST",
            "exchanges/v/e/publish",
            {
                "routing_key": "k",
                "payload": "text",
                "properties": {"priority": 1},
                "payload_encoding": "string",
            },
        ),
        (
            lambda c: c.get_messages("v", "q", 2, requeue=True),
            "POST",
            "queues/v/q/get",
            {"count": 2, "ackmode": "ack_requeue_true", "encoding": "auto"},
        ),
    ],
)
def test_each_call_asks_as_the_api_wants_it(server, call, command, path, body):
    call(Client(f"http://127.0.0.1:{server.server_port}"))
    assert server.asked[-1][:2] == (command, f"/api/{path}")
    assert server.bodies[-1] == body


@pytest.mark.parametrize(
    ("status", "error"), [(401, ConfigurationError), (404, ConfigurationError)]
)
def test_refusal_is_an_error_that_says_what_to_give(server, monkeypatch, status, error):
    monkeypatch.setattr(Answering, "status", status)
    with pytest.raises(error, match=f"refuses us \\({status} .*give a user with the tag"):
        Client(f"http://127.0.0.1:{server.server_port}")


def test_answer_that_is_no_json_is_an_error(server, monkeypatch):
    monkeypatch.setattr(Answering, "body", b"<html>")
    with pytest.raises(BrokerError, match="no management API at"):
        Client(f"http://127.0.0.1:{server.server_port}")


def test_server_that_fails_is_an_error_that_may_pass(server, monkeypatch):
    monkeypatch.setattr(Answering, "status", 503)
    with pytest.raises(BrokerError, match="fails: HTTP Error 503"):
        Client(f"http://127.0.0.1:{server.server_port}")
