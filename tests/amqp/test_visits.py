"""Visits: connecting, asking, and being told when no answer can come."""

from concurrent.futures import Future

import pytest

from tests.support.broker import find_free_ports
from tests.support.timing import TIMEOUT
from threadko.amqp.parameters import BrokerParameters
from threadko.amqp.visits import Visit
from threadko.exceptions import BrokerUnavailable


class Call(Visit):
    """A visit that answers what it is asked, or keeps silent."""

    def __init__(self, uri, timeout=TIMEOUT):
        super().__init__(BrokerParameters.from_uri(uri), timeout=timeout, name="call")

    def begin(self, connection):
        self._link.came_up()

    def end(self, error):
        pass

    def abandon(self, error, killed):
        pass

    def double(self, number):
        answer = Future()
        return self._ask(lambda: answer.set_result(2 * number), answer)

    def wait(self):
        return self._ask(lambda: None, Future())


def test_question_is_answered_on_the_links_thread(broker_uri):
    with Call(broker_uri) as call:
        assert call.double(21) == 42


def test_question_without_an_answer_ends_by_its_deadline(broker_uri):
    with Call(broker_uri) as call:
        call._timeout = 0.05
        with pytest.raises(BrokerUnavailable, match="does not answer"):
            call.wait()


def test_question_after_the_end_is_refused_at_once(broker_uri):
    with Call(broker_uri) as call:
        pass
    with pytest.raises(BrokerUnavailable, match="has ended"):
        call.double(1)


def test_broker_that_is_not_there_ends_the_visit():
    (port,) = find_free_ports(1)
    with pytest.raises(BrokerUnavailable):
        Call(f"amqp://127.0.0.1:{port}", timeout=0.05).__enter__()
