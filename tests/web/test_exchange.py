"""An exchange without a server: who gets a slot, and when it is given back."""

import pytest
from werkzeug.wrappers import Response

from tests.containers.dummies import Dummy
from threadko.concurrency.deadline import Deadline
from threadko.exceptions import ContainerStopped
from threadko.web.exchange import Exchange, StreamBrokenError, WorkerAbandoned


class Line:
    """A waiting line that does as it is told."""

    def __init__(self, answer=True):
        self.answer = answer
        self.inside = 0

    def enter(self, deadline):
        if isinstance(self.answer, Exception):
            raise self.answer
        self.inside += bool(self.answer)
        return self.answer

    def leave(self):
        self.inside -= 1


class Worker:
    """A worker that writes down its steps, and gives the response of the test."""

    def __init__(self, exchange, response):
        self.exchange, self.response = exchange, response
        self.abandoned = False
        self.steps = []

    def call(self):
        self.exchange.response = self.response
        self.steps.append("call")

    def run(self, function, *args):
        return function(*args)

    def fail(self, error):
        self.steps.append(repr(error))

    def replace(self, error):
        self.exchange.response = Response("instead")
        self.steps.append(f"replaced by {error!r}")

    def report(self, settle):
        self.steps.append("report")

    def end(self):
        self.steps.append("end")


class Container:
    def begin_worker(self, *args, **kwargs):
        return self.worker


def make(response, answer=True):
    container, line = Container(), Line(answer)
    exchange = Exchange(container, line, Dummy(), Deadline(1))
    container.worker = Worker(exchange, response)
    return exchange, line, container.worker


def run(exchange):
    return exchange.run((), {}, None, lambda *args: None)


@pytest.mark.parametrize(
    ("answer", "words"),
    [(False, "all workers are busy"), (ContainerStopped("x"), "the service is stopping")],
)
def test_without_a_slot_it_is_503(answer, words):
    exchange, line, worker = make(Response("x"), answer)
    response = run(exchange)
    assert response.status_code == 503
    assert words in response.get_data(as_text=True)
    exchange.finish()
    assert (line.inside, worker.steps) == (0, [])


def test_finish_ends_the_worker_once():
    exchange, line, worker = make(Response("x"))
    assert run(exchange).get_data() == b"x"
    assert (line.inside, worker.steps) == (1, ["call", "report"])
    exchange.finish()
    exchange.finish()
    assert (line.inside, worker.steps) == (0, ["call", "report", "end"])


def test_stream_is_reported_when_it_is_over():
    exchange, line, worker = make(Response(iter(["a", "b"])))
    response = run(exchange)
    assert exchange.streamed
    assert list(response.response) == ["a", "b"]
    assert worker.steps == ["call"]
    exchange.finish()
    assert (line.inside, worker.steps) == (0, ["call", "report", "end"])


def test_error_in_a_stream_is_the_outcome():
    def broken():
        yield "a"
        raise ValueError("x")

    exchange, _, worker = make(Response(broken()))
    body = run(exchange).response
    assert next(body) == "a"
    with pytest.raises(StreamBrokenError):
        next(body)
    exchange.finish()
    assert worker.steps == ["call", "ValueError('x')", "report", "end"]


def test_closing_a_stream_closes_the_generator_and_its_error_is_the_outcome():
    def stubborn():
        try:
            yield "a"
        finally:
            raise ValueError("at the end")

    exchange, _, worker = make(Response(stubborn()))
    body = run(exchange).response
    next(body)
    body.close()
    assert worker.steps == ["call", "ValueError('at the end')"]


def test_abandoned_worker_has_no_response():
    exchange, line, worker = make(Response("x"))
    worker.abandoned = True
    with pytest.raises(WorkerAbandoned):
        run(exchange)
    assert line.inside == 0


def test_stream_ends_when_its_worker_is_abandoned():
    exchange, _, worker = make(Response(iter(["a", "b"])))
    body = run(exchange).response
    next(body)
    worker.abandoned = True
    with pytest.raises(WorkerAbandoned):
        next(body)


def test_entrypoint_without_a_response_is_a_500():
    exchange, _, _ = make(None)
    assert run(exchange).status_code == 500


def test_worker_that_cannot_begin_gives_its_slot_back():
    exchange, line, _ = make(Response("x"))
    del exchange.container.worker
    with pytest.raises(AttributeError):
        run(exchange)
    assert line.inside == 0


def test_error_before_the_first_piece_is_answered():
    def broken():
        raise ValueError("x")
        yield

    exchange, line, worker = make(Response(broken()))
    assert run(exchange).get_data() == b"instead"
    assert not exchange.streamed
    assert worker.steps == ["call", "replaced by ValueError('x')", "report"]
    exchange.finish()
    assert line.inside == 0


def test_body_that_cannot_begin_is_closed():
    closed = []

    class Body:
        def __iter__(self):
            raise ValueError("x")

        def close(self):
            closed.append(True)

    response = Response()
    response.response = Body()
    exchange, _, _ = make(response)
    assert run(exchange).get_data() == b"instead"
    assert closed == [True]


def test_pieces_that_are_none_are_an_error():
    exchange, _, worker = make(Response(iter(["a", 5])))
    body = run(exchange).response
    assert next(body) == "a"
    with pytest.raises(StreamBrokenError):
        next(body)
    assert worker.steps[-1].startswith("TypeError('the pieces of a body must be")
