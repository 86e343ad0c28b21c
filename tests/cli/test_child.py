import os
import queue
import signal
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.timing import TIMEOUT
from threadko.cli import child as child_room
from threadko.cli.channel import Channel
from threadko.cli.child import Child
from threadko.exceptions import ConfigurationError, ContainerStopped
from threadko.web.addresses import parse_address


class Parent:
    """The other end of a child, which does as a test says."""

    def __init__(self):
        ours, theirs = socket.socketpair()
        self.said = queue.SimpleQueue()
        self.ended = threading.Event()
        self.channel = Channel(
            ours, on_message=lambda message, _: self.said.put(message), on_end=self.ended.set
        )
        self.channel.start()
        self.channel.send({"order": "welcome", "number": 2, "count": 3})
        self.child = Child(theirs.detach())

    def get(self):
        return self.said.get(timeout=TIMEOUT)


@pytest.fixture
def signals(monkeypatch):
    """What the child sends to its process, which is ours."""
    sent = queue.SimpleQueue()
    monkeypatch.setattr(os, "kill", lambda pid, number: sent.put((pid, number)))
    return sent


@pytest.fixture
def parent(signals):
    made = Parent()
    made.child.start()
    yield made
    made.channel.close()
    assert made.ended.wait(TIMEOUT)
    assert signals.get(timeout=TIMEOUT) == (os.getpid(), signal.SIGTERM)


def test_it_learns_its_number(parent):
    assert (parent.child.number, parent.child.count) == (2, 3)


def test_orders_are_signals_to_itself(parent, signals):
    parent.channel.send({"order": "signal", "number": signal.SIGUSR1})
    assert signals.get(timeout=TIMEOUT) == (os.getpid(), signal.SIGUSR1)


def test_orders_in_a_row_are_all_heard_once_somebody_listens(parent, signals):
    heard = queue.SimpleQueue()
    parent.child.hear_with(heard.put)
    for _ in range(2):
        parent.channel.send({"order": "signal", "number": signal.SIGINT})
    assert [heard.get(timeout=TIMEOUT) for _ in range(2)] == [signal.SIGINT] * 2
    assert signals.empty()
    parent.child.hear_with(lambda number: os.kill(os.getpid(), number))


def test_it_tells_how_it_goes(parent):
    parent.child.tell_imported({"/a"}, succeeded=True)
    parent.child.tell_ready()
    assert parent.get() == {"tell": "imported", "folders": ["/a"], "succeeded": True}
    assert parent.get() == {"tell": "ready"}


def test_questions_are_answered(parent):
    for number, question in enumerate(("ready", "live")):
        parent.channel.send({"order": "answer", "id": number, "question": question})
    early = {message["id"]: message["faults"] for message in (parent.get(), parent.get())}
    assert early == {0: ["it is starting"], 1: []}
    parent.child.answer_with({"ready": lambda: ["so"], "live": list})
    parent.channel.send({"order": "answer", "id": 5, "question": "ready"})
    assert parent.get() == {"tell": "answer", "id": 5, "faults": ["so"]}


@pytest.fixture
def ask_for_door(parent):
    with ThreadPoolExecutor() as executor:

        def ask():
            door = executor.submit(parent.child.open_door, parse_address("127.0.0.1:8000"), 0o660)
            message = {"tell": "door", "address": "127.0.0.1:8000", "mode": 0o660}
            assert parent.get() == message
            return door

        yield ask


def reply(parent, descriptor=None, error=None):
    message = {"order": "door", "asked": "127.0.0.1:8000", "is": "127.0.0.1:81", "error": error}
    parent.channel.send(message, descriptor)


def test_socket_comes_from_the_parent_and_goes_to_nobody_else(parent, ask_for_door):
    asked = ask_for_door()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        reply(parent, listening.fileno())
        door = asked.result(TIMEOUT)
        assert door.socket.getsockname() == listening.getsockname()
    assert str(door.address) == "127.0.0.1:81"
    assert not door.socket.get_inheritable()
    socket.create_connection(door.socket.getsockname(), TIMEOUT).close()
    door.close()


def test_two_that_ask_for_one_socket_are_one_question(parent, ask_for_door):
    found = threading.Event()

    class Doors(dict):
        def get(self, key):
            if key in self:
                found.set()
            return super().get(key)

    parent.child._doors = Doors()
    first = ask_for_door()
    with ThreadPoolExecutor() as executor:
        second = executor.submit(parent.child.open_door, parse_address("127.0.0.1:8000"), 0o660)
        assert found.wait(TIMEOUT)
        reply(parent, error="taken")
        for asked in (first, second):
            with pytest.raises(ConfigurationError, match="taken"):
                asked.result(TIMEOUT)
    parent.child.tell_ready()  # it still hears and speaks
    assert parent.get() == {"tell": "ready"}


def test_socket_that_cannot_be_had_is_an_error(parent, ask_for_door):
    asked = ask_for_door()
    reply(parent, error="taken")
    with pytest.raises(ConfigurationError, match="taken"):
        asked.result(TIMEOUT)


def test_socket_of_a_parent_that_stops_is_not_waited_for(parent, ask_for_door):
    asked = ask_for_door()
    reply(parent)
    with pytest.raises(ContainerStopped):
        asked.result(TIMEOUT)


def test_parent_that_does_not_answer_is_not_waited_for_for_ever(parent, ask_for_door, monkeypatch):
    monkeypatch.setattr(child_room, "_ANSWER_SECONDS", 0.05)
    with pytest.raises(ContainerStopped, match="does not answer"):
        ask_for_door().result(TIMEOUT)


def test_parent_that_is_gone_is_not_waited_for(signals):
    parent = Parent()
    parent.child.start()
    with ThreadPoolExecutor() as executor:
        asked = executor.submit(parent.child.open_door, parse_address("1"), 0o660)
        parent.get()
        parent.channel.close()
        with pytest.raises(ContainerStopped, match="has ended"):
            asked.result(TIMEOUT)
    assert signals.get(timeout=TIMEOUT) == (os.getpid(), signal.SIGTERM)
    with pytest.raises(ContainerStopped, match="has ended"):
        parent.child.open_door(parse_address("1"), 0o660)
