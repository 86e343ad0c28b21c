import contextlib
import socket
import threading

import pytest

from tests.support.broker import find_free_ports
from tests.support.proxy import Proxy
from tests.support.timing import TIMEOUT


class Target:
    """Accepts connections; each is handed to the test as a plain socket."""

    def __init__(self):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(TIMEOUT)
        self.port = self._listener.getsockname()[1]
        self._accepted = []

    def accept(self):
        accepted, _ = self._listener.accept()
        accepted.settimeout(TIMEOUT)
        self._accepted.append(accepted)
        return accepted

    def close(self):
        for sock in (self._listener, *self._accepted):
            sock.close()


@pytest.fixture
def target():
    with contextlib.closing(Target()) as target:
        yield target


@pytest.fixture
def proxy(target):
    with Proxy("127.0.0.1", target.port) as proxy:
        yield proxy


@pytest.fixture
def connect(proxy, target):
    """Makes connections through the proxy, as pairs of client and server."""
    clients = []

    def connect():
        client = socket.create_connection((proxy.host, proxy.port), TIMEOUT)
        clients.append(client)
        return client, target.accept()

    yield connect
    for client in clients:
        client.close()


def receive(sock, size):
    data = b""
    while len(data) < size:
        chunk = sock.recv(size - len(data))
        assert chunk, f"closed after {len(data)} of {size} bytes"
        data += chunk
    return data


def test_bytes_go_both_ways_and_are_counted(proxy, connect):
    client, server = connect()
    client.sendall(b"question")
    assert receive(server, 8) == b"question"
    server.sendall(b"answer")
    assert receive(client, 6) == b"answer"
    proxy.wait_for(lambda: proxy.forwarded == {"up": 8, "down": 6})
    assert proxy.swallowed == {"up": 0, "down": 0}


def test_connections_are_kept_apart(proxy, connect):
    first, second = connect(), connect()
    proxy.wait_for(lambda: proxy.connections == 2)
    first[0].sendall(b"1")
    second[0].sendall(b"2")
    assert (receive(second[1], 1), receive(first[1], 1)) == (b"2", b"1")


def test_closing_is_passed_on_and_the_connection_forgotten(proxy, connect):
    client, server = connect()
    client.sendall(b"last words")
    client.shutdown(socket.SHUT_WR)
    assert receive(server, 10) == b"last words"
    assert server.recv(1) == b""
    server.sendall(b"heard")
    server.close()
    assert receive(client, 5) == b"heard"
    assert client.recv(1) == b""
    proxy.wait_for(lambda: proxy.connections == 0)
    assert proxy.accepted == 1


def test_cut_closes_both_sides(proxy, connect):
    client, server = connect()
    proxy.cut()
    assert proxy.connections == 0
    assert client.recv(1) == b""
    assert server.recv(1) == b""


def test_new_connections_are_served_after_a_cut(proxy, connect):
    connect()
    proxy.cut()
    client, server = connect()
    client.sendall(b"x")
    assert receive(server, 1) == b"x"
    assert (proxy.accepted, proxy.connections) == (2, 1)


def test_reset_breaks_both_sides(proxy, connect):
    client, server = connect()
    proxy.reset()
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    with pytest.raises(ConnectionResetError):
        server.recv(1)


@pytest.mark.parametrize("direction", ["up", "down"])
def test_hole_swallows_one_direction_only(proxy, connect, direction):
    client, server = connect()
    sender, receiver = (client, server) if direction == "up" else (server, client)
    proxy.hole(up=direction == "up", down=direction == "down")
    sender.sendall(b"lost")
    proxy.wait_for(lambda: proxy.swallowed[direction] == 4)
    receiver.sendall(b"back")
    assert receive(sender, 4) == b"back"
    proxy.heal()
    sender.sendall(b"found")
    assert receive(receiver, 5) == b"found"


def test_hole_takes_new_connections_in(proxy, connect):
    proxy.hole()
    client, server = connect()
    client.sendall(b"lost")
    server.sendall(b"too")
    proxy.wait_for(lambda: proxy.swallowed == {"up": 4, "down": 3})
    assert proxy.connections == 1


def test_hole_hides_that_the_other_side_closed_until_healed(proxy, connect):
    client, server = connect()
    proxy.hole()
    server.sendall(b"lost")
    server.close()
    proxy.wait_for(lambda: proxy.swallowed["down"] == 4)
    client.setblocking(False)
    with pytest.raises(BlockingIOError):
        client.recv(1)
    client.settimeout(TIMEOUT)
    proxy.heal()
    assert client.recv(1) == b""


def test_hole_takes_all_that_was_stuck_behind_a_slow_reader(proxy, connect):
    client, _ = connect()
    size = 64 << 20  # more than the kernel's buffers hold on the way
    sender = threading.Thread(target=client.sendall, args=(bytes(size),))
    sender.start()
    proxy.wait_for(lambda: proxy.forwarded["up"] > 0)
    proxy.hole()
    sender.join(TIMEOUT)
    proxy.wait_for(lambda: proxy.forwarded["up"] + proxy.swallowed["up"] == size)
    assert proxy.swallowed["up"] > 0


def test_slow_reader_gets_every_byte(proxy, connect):
    client, server = connect()
    size = 8 << 20
    sender = threading.Thread(target=client.sendall, args=(bytes(size),))
    sender.start()
    assert receive(server, size) == bytes(size)
    sender.join(TIMEOUT)
    proxy.wait_for(lambda: proxy.forwarded["up"] == size)


def test_refuse_turns_new_connections_away_until_accept(proxy, connect):
    client, server = connect()
    proxy.refuse()
    proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((proxy.host, proxy.port), TIMEOUT)
    client.sendall(b"x")
    assert receive(server, 1) == b"x"
    proxy.accept()
    proxy.accept()
    connect()
    proxy.wait_for(lambda: proxy.connections == 2)


def test_client_is_closed_when_the_target_is_not_there():
    [port] = find_free_ports(1)  # no port that the proxy itself may get
    with Proxy("127.0.0.1", port) as proxy:
        client = socket.create_connection((proxy.host, proxy.port), TIMEOUT)
        with contextlib.closing(client):
            assert client.recv(1) == b""
        proxy.wait_for(lambda: proxy.accepted == 1)
        assert proxy.connections == 0


def test_wait_that_is_in_vain_says_what_there_is(proxy):
    with pytest.raises(TimeoutError, match="accepted=0"):
        proxy.wait_for(lambda: False, 0.01)


def test_methods_may_be_called_from_many_threads_at_once(proxy, connect):
    client, server = connect()
    start = threading.Barrier(8)

    def disturb():
        start.wait(TIMEOUT)
        for _ in range(20):
            proxy.hole()
            proxy.heal()
            proxy.refuse()
            proxy.accept()

    threads = [threading.Thread(target=disturb) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)
    client.sendall(b"x")
    assert receive(server, 1) == b"x"


def test_close_ends_the_thread_and_may_be_repeated(target):
    proxy = Proxy("127.0.0.1", target.port)
    client = socket.create_connection((proxy.host, proxy.port), TIMEOUT)
    proxy.wait_for(lambda: proxy.connections == 1)
    proxy.close()
    proxy.close()
    proxy.cut()
    assert client.recv(1) == b""
    client.close()
    assert f"proxy-{proxy.port}" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.parametrize(
    ("uri", "login", "tail"),
    [
        ("amqp://u:p%40@h:1/v?heartbeat=5", "u:p%40@", "/v?heartbeat=5"),
        ("amqp://h/", "", "/"),
        ("amqp://[::1]:5/%2F", "", "/%2F"),
    ],
)
def test_uri_keeps_all_but_host_and_port(proxy, uri, login, tail):
    assert proxy.uri_for(uri) == f"amqp://{login}127.0.0.1:{proxy.port}{tail}"


def test_proxy_for_a_uri_leads_to_its_host_and_port(target):
    with Proxy.for_uri(f"amqp://u:p@127.0.0.1:{target.port}/") as proxy:
        client = socket.create_connection((proxy.host, proxy.port), TIMEOUT)
        with contextlib.closing(client):
            client.sendall(b"x")
            assert receive(target.accept(), 1) == b"x"


def test_stall_keeps_bytes_waiting_until_they_flow(proxy, connect):
    client, server = connect()
    proxy.stall(down=False)
    client.sendall(b"late")
    server.sendall(b"back")
    assert receive(client, 4) == b"back"  # the other direction is not concerned
    assert proxy.forwarded["up"] == 0
    proxy.flow()
    assert receive(server, 4) == b"late"


@pytest.mark.parametrize("direction", ["up", "down"])
def test_armed_fault_strikes_right_behind_its_byte(proxy, connect, direction):
    client, server = connect()
    sender, receiver = (client, server) if direction == "up" else (server, client)
    burnt = proxy.arm(direction, 5, "cut")
    sender.sendall(b"123")
    assert receive(receiver, 3) == b"123"
    assert not burnt.is_set()
    sender.sendall(b"456789")
    assert burnt.wait(TIMEOUT)
    assert receive(receiver, 2) == b"45"
    assert receiver.recv(1) == b""
    assert proxy.connections == 0


def test_armed_reset_breaks_both_sides(proxy, connect):
    client, server = connect()
    assert proxy.arm("up", 1, "reset") is not None
    client.sendall(b"1")
    for sock in (client, server):
        with pytest.raises(ConnectionResetError):
            receive(sock, 2)  # the one byte that was forwarded may come, but no other


def test_armed_fault_strikes_one_connection_only(proxy, connect):
    first, second = connect(), connect()
    burnt = proxy.arm("up", 1, "cut")
    second[0].sendall(b"x")
    assert burnt.wait(TIMEOUT)
    assert receive(second[1], 1) == b"x"
    assert second[1].recv(1) == b""
    first[0].sendall(b"y")
    assert receive(first[1], 1) == b"y"


def test_stranded_connection_swallows_all_while_new_ones_are_served(proxy, connect):
    client, server = connect()
    burnt = proxy.arm("up", 1, "strand")
    client.sendall(b"1lost")
    assert burnt.wait(TIMEOUT)
    assert receive(server, 1) == b"1"
    server.sendall(b"lost")
    proxy.wait_for(lambda: proxy.swallowed["down"] == 4)
    fresh, its_server = connect()
    fresh.sendall(b"x")
    assert receive(its_server, 1) == b"x"
    client.close()
    proxy.wait_for(lambda: proxy.connections == 1)
