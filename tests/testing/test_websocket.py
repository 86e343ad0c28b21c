"""The client of websockets, at a real service."""

import queue
import threading

import pytest

from tests.support.broker import find_free_ports
from tests.support.timing import TIMEOUT
from threadko.exceptions import RemoteError
from threadko.testing.waiting import WaitTimeout
from threadko.testing.websocket import SocketClosed, make_virtual_socket, open_sockets
from threadko.web.websocket import WebSocketHubProvider, rpc


class Service:
    name = "service"
    hub = WebSocketHubProvider()
    release = threading.Event()

    @rpc
    def echo(self, socket_id, value):
        return value

    @rpc
    def fail(self, socket_id):
        raise KeyError("broken")

    @rpc
    def hold(self, socket_id):
        self.release.wait(TIMEOUT)

    @rpc
    def say(self, socket_id, text):
        self.hub.subscribe(socket_id, "channel")
        self.hub.broadcast("channel", "said", {"text": text})


@pytest.fixture
def port():
    return find_free_ports(1)[0]


@pytest.fixture(autouse=True)
def container(container_factory, port):
    container = container_factory(Service, {"WEB_SERVER_ADDRESS": f"127.0.0.1:{port}"})
    container.start()
    Service.release.clear()
    yield container
    Service.release.set()


@pytest.fixture
def socket(port):
    with open_sockets("127.0.0.1", port) as open_socket:
        yield open_socket()


def test_result_of_a_method_is_returned(socket):
    assert socket.rpc("echo", value=[1]) == [1]
    assert socket.rpc("echo", value=None) is None


def test_error_of_a_method_is_raised(socket):
    with pytest.raises(RemoteError, match="KeyError"):
        socket.rpc("fail")


def test_events_are_waited_for_by_type(socket):
    event, data = socket.wait_for_event("connected")
    assert event == "connected"
    assert set(data) == {"socket_id"}
    socket.rpc("say", text="hello")
    assert socket.wait_for_event("said") == ("said", {"text": "hello"})
    socket.rpc("say", text="again")
    events = socket.get_event_queue("said")
    assert events.get(timeout=TIMEOUT) == ("said", {"text": "again"})
    with pytest.raises(queue.Empty):
        events.get(block=False)


def test_event_that_does_not_come_is_an_error(socket):
    with pytest.raises(WaitTimeout, match="no event 'never' on ws://127"):
        socket.wait_for_event("never", timeout=0.02)


def test_answer_that_does_not_come_is_an_error(socket):
    with pytest.raises(WaitTimeout, match="no answer of hold"):
        socket.rpc("hold", _timeout=0.02)


def test_several_sockets_are_told_apart(port):
    with open_sockets("127.0.0.1", port) as open_socket:
        sockets = [open_socket() for _ in range(3)]
        ids = {socket.wait_for_event("connected")[1]["socket_id"] for socket in sockets}
    assert len(ids) == 3


def test_closed_socket_says_so(socket):
    socket.close()
    with pytest.raises(SocketClosed):
        socket.wait_for_event("never")
    with pytest.raises(SocketClosed):
        socket.rpc("echo", value=1)


def test_call_after_the_service_has_closed_is_an_error(container, socket):
    assert socket.rpc("echo", value=1) == 1
    container.stop()
    with pytest.raises(SocketClosed):
        socket.wait_for_event("never")
    with pytest.raises(SocketClosed, match="1001"):
        socket.rpc("echo", value=1)


def test_service_that_is_killed_ends_the_waits(container, socket):
    waiting = queue.SimpleQueue()

    def wait():
        try:
            socket.wait_for_event("never")
        except SocketClosed as error:
            waiting.put(error)

    thread = threading.Thread(target=wait)
    thread.start()
    container.kill()
    assert waiting.get(timeout=TIMEOUT)
    thread.join(TIMEOUT)


def test_address_without_a_service_is_an_error_with_its_cause():
    with open_sockets("127.0.0.1", find_free_ports(1)[0]) as open_socket:
        with pytest.raises(SocketClosed, match="refused") as raised:
            open_socket()
    assert isinstance(raised.value.__cause__, OSError)


def test_virtual_socket_is_run_by_a_thread_of_the_tests(port):
    app, connect = make_virtual_socket("127.0.0.1", port)
    with pytest.raises(WaitTimeout, match="was not opened within 0"):
        app.wait_open(0)
    thread = threading.Thread(target=app.run_forever)
    thread.start()
    assert connect().rpc("echo", value=1) == 1
    app.close()
    app.close()
    thread.join(TIMEOUT)
    assert not thread.is_alive()


def test_virtual_socket_that_was_closed_before_ends_at_once(port):
    app, _ = make_virtual_socket("127.0.0.1", port)
    app.close()
    app.run_forever()
