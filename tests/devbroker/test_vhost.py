"""A vhost by itself; what RabbitMQ does too is in tests/contracts."""

import pytest

from tests.devbroker.dummies import FakeBroker
from threadko.devbroker.frames import FaultError
from threadko.devbroker.queues import Message

PLAIN = {"passive": False, "durable": False, "exclusive": False, "auto_delete": False}


@pytest.fixture
def vhost():
    return FakeBroker().vhosts["/"]


@pytest.mark.parametrize(
    "arguments",
    [
        {"x-queue-type": "quorum"},
        {"x-queue-type": "stream"},
        {"x-single-active-consumer": True},
        {"x-overflow": "reject-publish-dlx"},
        {"x-never-heard-of": 1},
    ],
)
def test_what_is_not_done_is_refused_loudly(vhost, arguments):
    with pytest.raises(FaultError) as caught:
        vhost.declare_queue("q", None, arguments=arguments, **PLAIN)
    assert caught.value.code in (406, 540)
    assert next(iter(arguments)) in caught.value.text or "type" in caught.value.text
    assert vhost.queues == {}


def test_arguments_of_exchanges_that_are_not_done(vhost):
    with pytest.raises(FaultError, match="540"):
        vhost.declare_exchange(
            "e",
            "topic",
            passive=False,
            durable=True,
            auto_delete=False,
            internal=False,
            arguments={"x-delayed-type": "direct"},
        )


def test_names_are_all_different(vhost):
    made = {vhost.declare_queue("", None, arguments={}, **PLAIN).name for _ in range(100)}
    assert len(made) == 100


def test_deleted_queue_leaves_nothing(vhost):
    queue = vhost.declare_queue("q", None, arguments={"x-expires": 1000}, **PLAIN)
    vhost.delete_queue(queue)
    assert vhost.delete_queue(queue) == 0
    assert list(vhost.exchanges[""].bindings) == []


def test_exclusive_queues_go_with_their_owner(vhost):
    owner, other = object(), object()
    for number, each in enumerate((owner, other)):
        vhost.declare_queue(f"q{number}", each, arguments={}, **{**PLAIN, "exclusive": True})
    vhost.disown(owner)
    assert list(vhost.queues) == ["q1"]


def test_row_of_queues_that_keep_nothing_passes_a_message_on(vhost):
    """However long it is: a call within each call would be too deep."""
    for number in range(400):
        arguments = {
            "x-message-ttl": 0,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": f"q{number + 1}",
        }
        vhost.declare_queue(f"q{number}", None, arguments=arguments, **PLAIN)
    last = vhost.declare_queue("q400", None, arguments={}, **PLAIN)
    [first] = vhost.route(vhost.exchanges[""], message := Message("", "q0", b"\0\0", b"x"))
    first.publish(message)
    assert last.get().message.body == b"x"
