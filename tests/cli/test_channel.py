import os
import queue
import socket

import pytest

from tests.support.timing import TIMEOUT
from threadko.cli.channel import Channel


class End:
    """One end, and what it hears."""

    def __init__(self, sock):
        self.heard = queue.SimpleQueue()
        self.channel = Channel(
            sock,
            on_message=lambda message, descriptor: self.heard.put((message, descriptor)),
            on_end=lambda: self.heard.put("end"),
        )
        self.channel.start()

    def get(self):
        return self.heard.get(timeout=TIMEOUT)


@pytest.fixture
def ends():
    made = [End(sock) for sock in socket.socketpair()]
    yield made
    for end in made:
        end.channel.close()


def test_messages_go_both_ways_in_their_order(ends):
    one, other = ends
    for number in range(100):
        one.channel.send({"number": number, "text": "x" * 1000})
    other.channel.send({"answer": None})
    assert [other.get()[0]["number"] for _ in range(100)] == list(range(100))
    assert one.get() == ({"answer": None}, None)


def test_descriptors_come_with_their_messages(ends):
    one, other = ends
    reader, writer = os.pipe()
    one.channel.send({"first": 1})
    one.channel.send({"big": "x" * 1_000_000}, writer)
    one.channel.send({"last": 1}, reader)
    os.close(writer)
    os.close(reader)
    assert other.get() == ({"first": 1}, None)
    message, their_writer = other.get()
    assert len(message["big"]) == 1_000_000
    message, their_reader = other.get()
    assert message == {"last": 1}
    os.write(their_writer, b"x")
    assert os.read(their_reader, 1) == b"x"
    os.close(their_writer)
    os.close(their_reader)


def test_both_sides_hear_of_the_end_after_what_was_sent(ends):
    one, other = ends
    one.channel.send({"last": 1})
    one.channel.close()
    assert other.get() == ({"last": 1}, None)
    assert other.get() == "end"
    assert one.get() == "end"
    one.channel.send({"nobody": "reads"})


def test_descriptors_that_are_not_sent_any_more_are_closed():
    ours, theirs = socket.socketpair()
    theirs.close()
    end = End(ours)
    assert end.get() == "end"
    reader, writer = os.pipe()
    end.channel.send({"a": 1}, writer)
    os.close(writer)
    end.channel.close()
    os.set_blocking(reader, True)
    # Nobody holds the other end of the pipe, or this would wait.
    os.close(reader)


def test_nonsense_ends_the_channel(caplog):
    ours, theirs = socket.socketpair()
    end = End(ours)
    theirs.sendall(b"nonsense\n")
    assert end.get() == "end"
    assert "cannot be read" in caplog.text
    theirs.close()
