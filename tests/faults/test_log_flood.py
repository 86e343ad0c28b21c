"""A broker that is away for long: the log tells of it, and has room for other things."""

import logging
import socket
import threading

from tests.support.timing import TIMEOUT
from threadko.amqp.link import Link
from threadko.amqp.parameters import BrokerParameters

REFUSALS = 100


class Counter:
    """A session of a link that never stands: it counts the ends of attempts."""

    def __init__(self):
        self.link = None
        self.errors = []
        self.enough = threading.Event()

    def begin(self, connection):
        raise AssertionError("there is nobody to connect to")

    def end(self, error):
        self.errors.append(error)
        if len(self.errors) == REFUSALS:
            self.link.kill()
            self.enough.set()

    def turn(self):
        pass

    def finish(self):
        self.link.finished()

    def abandon(self, error, killed):
        pass


def test_hundred_refused_connections_are_a_few_lines(caplog, figure):
    """Between two nodes there is no pause: of fifty at one address, only one is waited for."""
    caplog.set_level(logging.INFO)
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # and does not listen
        uri = f"amqp://guest:guest@127.0.0.1:{bound.getsockname()[1]}/"
        session = Counter()
        session.link = Link(
            BrokerParameters.from_uri([uri] * 50),
            name="threadko-test-link-1",
            session=session,
        )
        session.link.start()
        assert session.enough.wait(TIMEOUT)
        session.link.stop(TIMEOUT)
    assert all("ConnectionRefusedError" in str(error) for error in session.errors[:REFUSALS])
    lines = [record.getMessage() for record in caplog.records]
    assert all("cannot connect" in line and "\n" not in line for line in lines), lines
    assert all(record.exc_info is None for record in caplog.records)
    assert "64 failures so far" in lines[-1]
    assert len(lines) <= 12
    figure("log-lines", f"{len(lines)} for {REFUSALS}")
