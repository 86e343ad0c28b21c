"""Channels are tested through their sessions (test_session.py) and beside RabbitMQ's
(tests/contracts); here is what only ours does."""

import pytest
from pika import spec

from tests.devbroker.test_session import broker, message, methods, raw, session  # noqa: F401


@pytest.mark.parametrize("count", [1, 3])
def test_confirms_of_one_turn_are_one_answer(broker, session, count):  # noqa: F811 (fixtures)
    session.receive(raw(1, spec.Queue.Declare(queue="q")) + raw(1, spec.Confirm.Select()))
    methods(session)
    session.receive(message(1, "q", b"x") * count)
    broker.turn()
    (ack,) = methods(session)
    assert (type(ack), ack.delivery_tag, ack.multiple) == (spec.Basic.Ack, count, count > 1)


def test_refusals_stand_between_confirms(broker, session):  # noqa: F811 (fixtures)
    arguments = {"x-max-length": 1, "x-overflow": "reject-publish"}
    session.receive(
        raw(1, spec.Queue.Declare(queue="full", arguments=arguments))
        + raw(1, spec.Queue.Declare(queue="q"))
        + raw(1, spec.Confirm.Select())
    )
    methods(session)
    for key in ("full", "q", "full", "q", "full"):
        session.receive(message(1, key, b"x"))
    broker.turn()
    answers = [(type(each), each.delivery_tag, each.multiple) for each in methods(session)]
    assert answers == [
        (spec.Basic.Ack, 2, True),
        (spec.Basic.Nack, 3, False),
        (spec.Basic.Ack, 4, False),
        (spec.Basic.Nack, 5, False),
    ]


def test_flow_cannot_be_stopped(session):  # noqa: F811 (fixtures)
    session.receive(raw(1, spec.Channel.Flow(active=True)))
    assert methods(session)[-1].active
    session.receive(raw(1, spec.Channel.Flow(active=False)))
    assert methods(session)[-1].reply_code == 540
