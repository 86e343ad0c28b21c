"""Websockets of services, with the client of the `websockets` library."""

import contextlib
import json
import ssl
import threading

import pytest
import requests
import trustme
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect, unix_connect

from tests.containers.dummies import Gate, in_thread
from tests.support.timing import TIMEOUT, wait_until
from tests.web.client import RawClient, TlsWebSocket
from tests.web.conftest import find_server
from threadko.exceptions import ConnectionNotFound
from threadko.web.handlers import http
from threadko.web.websocket import WebSocketHubProvider, WebSocketRpc, WebSocketServer, rpc


class Chat:
    name = "chat"
    hub = WebSocketHubProvider()
    gate = Gate()

    @rpc
    def join(self, socket_id, channel):
        self.hub.subscribe(socket_id, channel)
        return self.hub.get_subscriptions(socket_id)

    @rpc
    def leave(self, socket_id, channel):
        self.hub.unsubscribe(socket_id, channel)
        return self.hub.get_subscriptions(socket_id)

    @rpc
    def say(self, socket_id, channel, text):
        self.hub.broadcast(channel, "said", {"text": text})

    @rpc
    def whisper(self, socket_id, to):
        return self.hub.unicast(to, "whispered", socket_id)

    @rpc
    def haunt(self, socket_id):
        self.hub.subscribe("nobody", "a")

    @rpc
    def fail(self, socket_id):
        raise ValueError("broken")

    @rpc
    def no_json(self, socket_id):
        return {1, 2}

    @rpc
    def held(self, socket_id):
        self.gate.hold()
        return "held"

    @http("GET", "/count")
    def count(self, request):
        return str(len(self.hub.connections))


def connect_websocket(url, **options):
    """Return an open websocket and what closes it; newer versions insist on `with`."""
    stack = contextlib.ExitStack()
    return stack.enter_context(connect(url, **options)), stack.close


class Client:
    """A websocket of a test."""

    def __init__(self, address, **options):
        self.socket, self.close = connect_websocket(f"ws://{address}/ws", **options)
        self.id = self.receive()["data"]["socket_id"]

    def receive(self):
        return json.loads(self.socket.recv(timeout=TIMEOUT))

    def send(self, method, correlation_id=None, **data):
        message = {"method": method, "data": data, "correlation_id": correlation_id}
        self.socket.send(json.dumps(message))

    def call(self, method, **data):
        """Return the result, and the events that came before it."""
        self.send(method, "me", **data)
        events = []
        while (message := self.receive())["type"] != "result":
            events.append(message)
        assert message["correlation_id"] == "me"
        return message.get("data", message.get("error")), events


@pytest.fixture
def chat(serve):
    Chat.gate = Gate()
    container, address = serve(Chat, max_workers=4)
    clients = []

    def join(**options):
        clients.append(Client(address, **options))
        return clients[-1]

    join.container, join.address = container, address
    yield join
    Chat.gate.released.set()
    for client in clients:
        client.close()


def test_protocol_to_the_letter(chat):
    client, close = connect_websocket(f"ws://{chat.address}/ws")
    greeting = json.loads(client.recv(timeout=TIMEOUT))
    socket_id = greeting["data"].pop("socket_id")
    assert len(socket_id) == 36
    assert greeting == {"type": "event", "event": "connected", "data": {}}
    error = {"type": "result", "success": False, "correlation_id": None}
    for sent, answer in [
        (
            {"method": "join", "data": {"channel": "a"}, "correlation_id": [1]},
            {"type": "result", "success": True, "data": ["a"], "correlation_id": [1]},
        ),
        (
            {"method": "fail", "correlation_id": 5},
            {
                **error,
                "correlation_id": 5,
                "error": {
                    "exc_type": "ValueError",
                    "exc_path": "builtins.ValueError",
                    "exc_args": ["broken"],
                    "value": "broken",
                },
            },
        ),
    ]:
        client.send(json.dumps(sent))
        assert json.loads(client.recv(timeout=TIMEOUT)) == answer
    client.send(json.dumps({"method": "say", "data": {"channel": "a", "text": "x"}}).encode())
    assert json.loads(client.recv(timeout=TIMEOUT)) == {
        "type": "event",
        "event": "said",
        "data": {"text": "x"},
    }
    assert json.loads(client.recv(timeout=TIMEOUT))["success"] is True
    close()


def test_message_that_a_worker_has_found_already_is_served_once(chat, caplog):
    client = chat()
    assert client.call("join", channel="a") == (["a"], [])
    server = next(
        each for each in chat.container.subextensions if type(each).__name__ == "WebSocketServer"
    )
    [websocket] = server._loop._sockets.values()
    wait_until(lambda: not websocket.serving)
    server._on_message(websocket)  # as the loop does behind a worker's back
    assert not websocket.serving
    assert client.call("join", channel="b") == (["a", "b"], [])
    assert "Traceback" not in caplog.text


BAD_MESSAGES = [
    ("nonsense", "MalformedRequest", ["Invalid JSON data"]),
    ("[]", "MalformedRequest", ["Invalid JSON data"]),
    ("{}", "MalformedRequest", ["Invalid JSON data"]),
    ('{"method": 5}', "MalformedRequest", ["Invalid JSON data"]),
    ('{"method": "join", "data": [1]}', "MalformedRequest", ["Invalid JSON data"]),
    ("[" * 100_000, "MalformedRequest", ["Invalid JSON data"]),
    (b"\xff", "MalformedRequest", ["Invalid JSON data"]),
    (b"\x00" * 5, "MalformedRequest", ["Invalid JSON data"]),
    (b'{"method": 5}', "MalformedRequest", ["Invalid JSON data"]),
    ('{"method": "nothing"}', "MethodNotFound", []),
    ('{"method": "count"}', "MethodNotFound", []),
    ('{"method": "join"}', "IncorrectSignature", None),
    ('{"method": "join", "data": {"x": 1}}', "IncorrectSignature", None),
    ('{"method": "no_json"}', "TypeError", None),
    ('{"method": "haunt"}', "ConnectionNotFound", ["nobody"]),
]


@pytest.mark.parametrize(("payload", "kind", "args"), BAD_MESSAGES)
def test_bad_messages_are_answered_and_the_socket_lives(chat, payload, kind, args):
    client = chat()
    client.socket.send(payload)
    answer = client.receive()
    assert answer["success"] is False
    assert answer["error"]["exc_type"] == kind
    assert args is None or answer["error"]["exc_args"] == args
    assert client.call("join", channel="a") == (["a"], [])


def test_answer_to_bad_data_knows_its_call(chat):
    client = chat()
    client.socket.send('{"method": "join", "data": [1], "correlation_id": 7}')
    answer = client.receive()
    assert (answer["error"]["exc_type"], answer["correlation_id"]) == ("MalformedRequest", 7)


class WordServer(WebSocketServer):
    """Reads bytes that are no UTF-8, with a hook of nameko's shape."""

    def deserialize_ws_frame(self, payload):
        if isinstance(payload, str):
            return super().deserialize_ws_frame(payload)
        mark, method, word = payload.split(b" ")
        data = {"word": word.decode()} if word != b"-" else None
        return method.decode(), {b"d": data, b"l": [1], b"\xff": data}[mark], mark.hex()


class WordRpc(WebSocketRpc):
    server = WordServer()


class Words:
    name = "words"

    @WordRpc.decorator
    def say(self, socket_id, word="nothing"):
        return word


def test_hook_written_for_nameko_reads_messages_of_its_own(serve):
    _, address = serve(Words)
    client = Client(address)
    assert client.call("say", word="text") == ("text", [])
    for sent, answer, correlation_id in [
        (b"\xff say hello", "hello", "ff"),
        (b"d say -", "nothing", "64"),
        (b"l say x", "MalformedRequest", "6c"),
        (b"d count x", "MethodNotFound", "64"),
        (b"nonsense", "ValueError", None),
    ]:
        client.socket.send(sent)
        got = client.receive()
        assert got.get("data") == answer or got["error"]["exc_type"] == answer
        assert got["correlation_id"] == correlation_id
    client.close()


def test_events_reach_those_who_joined(chat):
    first, second, third = chat(), chat(), chat()
    for client in (first, second):
        client.call("join", channel="news")
    third.call("say", channel="news", text="hello")
    for client in (first, second):
        assert client.receive()["data"] == {"text": "hello"}
    assert second.call("leave", channel="news") == ([], [])
    third.call("say", channel="news", text="again")
    assert first.receive()["data"] == {"text": "again"}
    assert second.call("whisper", to=first.id) == (True, [])
    assert first.receive()["event"] == "whispered"
    assert second.call("whisper", to="nobody") == (False, [])


def test_requests_of_one_socket_are_answered_in_order(chat):
    client = chat()
    for number in range(50):
        client.send("join", number, channel=str(number))
    assert [client.receive()["correlation_id"] for _ in range(50)] == list(range(50))


def test_socket_that_is_gone_is_forgotten(chat):
    client = chat()
    client.call("join", channel="a")
    client.socket.close()
    while requests.get(f"http://{chat.address}/count", timeout=TIMEOUT).text != "0":
        pass
    hub = chat.container.dependencies[0].hub
    wait_until(lambda: hub.subscriptions == {})
    with pytest.raises(ConnectionNotFound):
        hub.subscribe(client.id, "a")


@pytest.mark.parametrize(
    ("origin", "setting", "welcome"),
    [
        (None, None, True),
        ("http://{address}", None, True),
        ("http://evil.example", None, False),
        ("https://page.example", ["https://page.example"], True),
        ("http://{address}", ["https://page.example"], False),
        ("http://evil.example", "*", True),
        ("null", None, False),
    ],
)
def test_origins(serve, origin, setting, welcome):
    _, address = serve(Chat, WEBSOCKET_ORIGINS=setting)
    url = f"ws://{address}/ws"
    origin = origin and origin.format(address=address)
    if welcome:
        connect_websocket(url, origin=origin)[1]()
    else:
        with pytest.raises(InvalidStatus, match="HTTP 403"):
            connect_websocket(url, origin=origin)


def test_request_that_is_no_handshake_is_told_so(chat):
    response = requests.get(f"http://{chat.address}/ws", timeout=TIMEOUT)
    assert response.status_code == 426
    assert response.headers["Upgrade"] == "websocket"


def test_no_more_sockets_than_connections(serve):
    _, address = serve(Chat, HTTP_MAX_CONNECTIONS=2)
    kept = [Client(address) for _ in range(2)]
    with pytest.raises(InvalidStatus, match="HTTP 503"):
        connect_websocket(f"ws://{address}/ws")
    for client in kept:
        client.close()


def test_stop_lets_workers_answer_then_closes_with_1001(chat):
    client, idle = chat(), chat()
    client.send("held", 1)
    Chat.gate.wait_reached()
    client.send("join", 2, channel="never")  # dropped: no worker has begun it
    stopping = in_thread(chat.container.stop)
    line = chat.container.dependencies[0].server._line
    while not line._closed:
        threading.Event().wait(0.001)
    Chat.gate.released.set()
    assert client.receive()["data"] == "held"
    for each in (client, idle):
        with pytest.raises(ConnectionClosed) as caught:
            each.receive()
        assert caught.value.rcvd.code == 1001
    assert stopping.finish() is None


def test_kill_cuts_all_off(chat):
    client = chat()
    client.send("held", 1)
    Chat.gate.wait_reached()
    chat.container.kill()
    with pytest.raises(ConnectionClosed):
        client.receive()


def test_context_data_is_a_copy_for_each_call(chat):
    client = chat()
    for _ in range(3):
        client.call("join", channel="a")
    server = chat.container.dependencies[0].server
    assert server.sockets[client.id].data == {}


@pytest.mark.long
@pytest.mark.timeout(600)
def test_five_hundred_sockets_and_fifty_that_never_read(serve, caplog):
    _, address = serve(Chat, max_workers=4, WEBSOCKET_QUEUE=64, WEBSOCKET_PING=3600)
    # No pings, for on a slow machine they would end first who does not read, and not the full line.
    readers = [Client(address, max_queue=None, ping_interval=None) for _ in range(450)]
    deaf = [Client(address, max_queue=1, ping_interval=None, close_timeout=0.1) for _ in range(50)]
    for client in (*readers, *deaf):
        client.call("join", channel="all")
    before = threading.active_count()
    text = "x" * 50_000
    count = 250  # 12.5 MB each: far more than sockets and queues hold
    for _ in range(count):
        readers[0].send("say", None, channel="all", text=text)
        while readers[0].receive()["type"] != "result":
            pass
        for client in readers[1:]:  # now, or they would hold gigabytes
            assert client.receive()["data"]["text"] == text
    assert threading.active_count() <= before + 20
    assert caplog.text.count("does not keep up") == len(deaf)
    assert requests.get(f"http://{address}/count", timeout=TIMEOUT).text == str(len(readers))
    for client in (*readers, *deaf):
        client.close()


def test_service_with_websockets_has_one_thread_for_them(chat):
    for _ in range(10):
        chat()
    names = [thread.name for thread in threading.enumerate()]
    assert len([name for name in names if "-websockets-" in name]) == 1
    assert find_server(chat.container).bind_addr == chat.address


HANDSHAKE = (
    b"%s /ws HTTP/%s\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n%s\r\n"
)


BAD_HANDSHAKES = [
    (b"GET", b"1.0", b"", 426),
    (b"HEAD", b"1.1", b"", 426),
    (b"POST", b"1.1", b"", 405),
    (b"GET", b"1.1", b"Origin: http://[a\r\n", 403),
    (b"GET", b"1.1", b"Origin: http://a\r\nOrigin: http://b\r\n", 403),
    (b"GET", b"1.1", b"Origin: http://b@a\r\n", 403),
]


@pytest.mark.parametrize(
    ("method", "version", "header", "status"), [(b"GET", b"1.1", b"", 101), *BAD_HANDSHAKES]
)
def test_handshakes_that_are_none(chat, caplog, method, version, header, status):
    with RawClient(chat.address) as client:
        client.send(HANDSHAKE % (method, version, header))
        assert client.receive().startswith(b"HTTP/1.1 %d " % status)
    assert "Traceback" not in caplog.text


def test_message_of_a_client_that_leaves_at_once_is_served(serve):
    Chat.gate = Gate()
    container, address = serve(Chat, max_workers=1)
    first, second = Client(address), Client(address)
    first.call("join", channel="news")
    first.send("held")
    Chat.gate.wait_reached()
    second.send("say", channel="news", text="last words")
    second.close()
    sockets = container.dependencies[0].server.sockets
    while second.id in sockets:
        threading.Event().wait(0.001)
    Chat.gate.released.set()
    assert first.receive()["data"] == "held"
    assert first.receive()["data"] == {"text": "last words"}
    first.close()


def test_hub_after_stop_reaches_nobody_and_says_so(chat):
    client = chat()
    client.call("join", channel="a")
    hub = chat.container.dependencies[0].hub
    chat.container.stop()
    hub.broadcast("a", "said", 1)
    assert hub.unicast(client.id, "said", 1) is False
    assert (hub.connections, hub.subscriptions, hub.get_subscriptions(client.id)) == ({}, {}, [])
    hub.unsubscribe(client.id, "a")
    with pytest.raises(ConnectionNotFound):
        hub.subscribe(client.id, "a")


def test_subscribing_while_others_broadcast_and_leave(chat):
    done = threading.Event()

    def come_and_go():
        while not done.is_set():
            client = chat()
            client.call("join", channel="a")
            client.call("say", channel="a", text="x")
            client.call("leave", channel="a")
            client.close()

    players = [in_thread(come_and_go) for _ in range(3)]
    steady = chat()
    steady.call("join", channel="a")
    for number in range(50):
        result, events = steady.call("say", channel="a", text=f"mine {number}")
        assert result is None
        assert [each["data"]["text"] for each in events].count(f"mine {number}") == 1
    done.set()
    assert [each.finish() for each in players] == [None] * 3
    hub = chat.container.dependencies[0].hub
    while len(hub.connections) > 1:
        threading.Event().wait(0.001)
    assert hub.subscriptions == {"a": {steady.id}}


@pytest.fixture
def connect_safely(serve, tmp_path):
    """Serve over TLS, and return what opens a websocket."""
    authority = trustme.CA()
    certificate, trusted = tmp_path / "server.pem", tmp_path / "ca.pem"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(certificate)
    authority.cert_pem.write_to_path(trusted)
    _, address = serve(Chat, HTTP_TLS={"certfile": str(certificate)})
    context = ssl.create_default_context(cafile=trusted)
    with contextlib.ExitStack() as stack:

        def connect_safely():
            websocket = TlsWebSocket(address, "/ws", context)
            stack.callback(websocket.sock.close)
            return websocket

        yield connect_safely


def test_websockets_over_tls(connect_safely):
    socket = connect_safely()
    assert json.loads(socket.receive())["event"] == "connected"
    for size in (1, 20_000, 500_000):  # less than a record of TLS, more, and many
        message = {"method": "join", "data": {"channel": "x" * size}}
        socket.send(json.dumps(message))
        answer = json.loads(socket.receive())
        assert max(map(len, answer["data"])) == size
    for number in range(50):
        socket.send(json.dumps({"method": "leave", "data": {"channel": "x" * number}}))
    for _ in range(50):
        assert json.loads(socket.receive())["success"] is True
    assert socket.close() == 1000


def test_closing_over_tls_waits_for_nobody(connect_safely, monkeypatch):
    # Nor for the moment at which those who do not close are broken off.
    monkeypatch.setattr("threadko.web.sockets._CLOSE_SECONDS", 1000.0)
    socket = connect_safely()
    socket.receive()
    assert socket.close() == 1000


def test_websockets_over_a_unix_socket(serve, tmp_path):
    path = tmp_path / "web.sock"
    container, _ = serve(Chat, WEB_SERVER_ADDRESS=f"unix:{path}")
    with unix_connect(str(path), "ws://localhost/ws") as socket:
        assert json.loads(socket.recv(timeout=TIMEOUT))["event"] == "connected"
        socket.send(json.dumps({"method": "join", "data": {"channel": "a"}}))
        assert json.loads(socket.recv(timeout=TIMEOUT))["data"] == ["a"]
        container.stop()
        with pytest.raises(ConnectionClosed) as caught:
            socket.recv(timeout=TIMEOUT)
        assert caught.value.rcvd.code == 1001
