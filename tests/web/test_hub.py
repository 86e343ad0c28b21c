"""Subscriptions without sockets."""

import threading

import pytest

from tests.support.timing import TIMEOUT
from threadko.exceptions import ConnectionNotFound
from threadko.web.hub import Connection, Subscriptions


@pytest.fixture
def subscriptions():
    made = Subscriptions()
    for name in "ab":
        made.add(Connection(name, {}))
    return made


def test_subscribing_and_leaving(subscriptions):
    subscriptions.subscribe("a", "two")
    subscriptions.subscribe("a", "one")
    subscriptions.subscribe("b", "one")
    assert subscriptions.subscriptions_of("a") == ["one", "two"]
    assert sorted(subscriptions.subscribed_to("one")) == ["a", "b"]
    subscriptions.unsubscribe("a", "one")
    subscriptions.unsubscribe("a", "one")
    subscriptions.unsubscribe("a", "nowhere")
    assert subscriptions.subscribed_to("one") == ["b"]
    subscriptions.remove("b")
    assert subscriptions.subscribed_to("one") == []
    assert subscriptions.channels == {"two": {"a"}}
    assert subscriptions.subscriptions_of("b") == []


def test_nobody_subscribes_who_is_gone(subscriptions):
    subscriptions.remove("a")
    with pytest.raises(ConnectionNotFound):
        subscriptions.subscribe("a", "one")
    assert subscriptions.channels == {}


def test_many_come_and_go_at_once(subscriptions):
    barrier = threading.Barrier(6)

    def play(name):
        barrier.wait(TIMEOUT)
        for number in range(300):
            subscriptions.add(Connection(name, {}))
            subscriptions.subscribe(name, f"channel{number % 3}")
            subscriptions.subscribed_to(f"channel{number % 3}")
            subscriptions.remove(name)

    players = [threading.Thread(target=play, args=(f"p{number}",)) for number in range(6)]
    for player in players:
        player.start()
    for player in players:
        player.join(TIMEOUT)
    assert subscriptions.channels == {}
    assert set(subscriptions.connections) == {"a", "b"}
