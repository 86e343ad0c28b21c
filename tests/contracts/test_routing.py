"""Which messages reach which queues."""

import pika
import pytest
from pika.exceptions import UnroutableError


@pytest.fixture
def reaches(channel, name):
    """Whether a message published to the test's exchange reaches its queue."""
    channel.confirm_delivery()

    def reaches(key, headers=None, exchange=name):
        properties = pika.BasicProperties(headers=headers)
        try:
            channel.basic_publish(exchange, key, b"x", properties, mandatory=True)
        except UnroutableError:
            return False
        assert channel.basic_get(name, auto_ack=True)[0] is not None
        return True

    return reaches


@pytest.mark.parametrize(
    ("pattern", "key", "expected"),
    [
        ("a.b", "a.b", True),
        ("a.b", "a.c", False),
        ("a.*", "a.b", True),
        ("a.*", "a", False),
        ("a.*", "a.b.c", False),
        ("*", "a", True),
        ("*", "", False),
        ("*", "a.b", False),
        ("#", "", True),
        ("#", "a", True),
        ("#", "a.b.c", True),
        ("a.#", "a", True),
        ("a.#", "a.b.c", True),
        ("a.#", "b", False),
        ("#.c", "c", True),
        ("#.c", "a.b.c", True),
        ("#.c", "a.c.b", False),
        ("a.#.c", "a.c", True),
        ("a.#.c", "a.b.b.c", True),
        ("a.#.*", "a", False),
        ("a.#.*", "a.b", True),
        ("*.*", "a.", True),
        ("*.*", ".", True),
        ("#.#", "a", True),
        ("*.#.*", "a.b", True),
        ("*.#.*", "a", False),
        ("", "", True),
        ("", "a", False),
        ("a..b", "a..b", True),
        ("a.*.b", "a..b", True),
        ("a*", "ab", False),
        ("ä.*", "ä.ü", True),
    ],
)
def test_topics(channel, name, reaches, pattern, key, expected):
    channel.exchange_declare(name, "topic")
    channel.queue_declare(name)
    channel.queue_bind(name, name, pattern)
    assert reaches(key) is expected


@pytest.mark.parametrize(
    ("arguments", "headers", "expected"),
    [
        ({"a": 1, "b": "x"}, {"a": 1, "b": "x", "c": 2}, True),
        ({"a": 1, "b": "x"}, {"a": 1}, False),
        ({"x-match": "all", "a": 1}, {"a": 2}, False),
        ({"x-match": "any", "a": 1, "b": "x"}, {"b": "x"}, True),
        ({"x-match": "any", "a": 1}, {"a": 2}, False),
        ({"x-match": "any", "a": 1}, {}, False),
        ({"x-match": "all"}, {}, True),
        ({"x-match": "all"}, {"a": 1}, True),
        ({"a": 1}, {"a": "1"}, False),
        ({"a": None}, {"a": 5}, True),
        ({"a": True}, {"a": True}, True),
        ({"a": True}, {"a": 1}, False),
        ({"a": 1}, {"a": True}, False),
        ({"a": b"x"}, {"a": "x"}, True),
        ({"a": [1, {"b": 2}]}, {"a": [1, {"b": 2}]}, True),
    ],
)
def test_headers(channel, name, reaches, arguments, headers, expected):
    channel.exchange_declare(name, "headers")
    channel.queue_declare(name)
    channel.queue_bind(name, name, "ignored", arguments=arguments)
    assert reaches("any key", headers) is expected


def test_direct_and_fanout(channel, name, reaches):
    channel.queue_declare(name)
    channel.exchange_declare(name, "direct")
    channel.queue_bind(name, name, "key")
    assert (reaches("key"), reaches("other")) == (True, False)
    channel.exchange_delete(name)
    channel.exchange_declare(name, "fanout")
    channel.queue_bind(name, name, "key")
    assert reaches("other")


def test_default_exchange_leads_to_the_queue_of_that_name(channel, name, reaches):
    channel.queue_declare(name)
    assert (reaches(name, exchange=""), reaches("nobody", exchange="")) == (True, False)


def test_message_comes_once_however_often_it_is_bound(channel, name):
    channel.exchange_declare(name, "topic")
    channel.queue_declare(name)
    for pattern in ("#", "a.*", "a.b", "a.b"):
        channel.queue_bind(name, name, pattern)
    channel.confirm_delivery()
    channel.basic_publish(name, "a.b", b"x")
    assert channel.queue_purge(name).method.message_count == 1


def test_unbound_is_unbound(channel, name, reaches):
    channel.exchange_declare(name, "topic")
    channel.queue_declare(name)
    channel.queue_bind(name, name, "a")
    channel.queue_bind(name, name, "b")
    channel.queue_unbind(name, name, "a")
    assert (reaches("a"), reaches("b")) == (False, True)


def test_exchanges_are_bound_to_exchanges(channel, name, reaches):
    channel.exchange_declare(name, "topic")
    channel.exchange_declare(f"{name}-2", "fanout")
    channel.queue_declare(name)
    channel.exchange_bind(f"{name}-2", name, "a.*")
    channel.queue_bind(name, f"{name}-2", "")
    assert (reaches("a.b"), reaches("b")) == (True, False)
    channel.exchange_bind(name, f"{name}-2", "")  # a circle
    assert reaches("a.b")
    channel.exchange_unbind(f"{name}-2", name, "a.*")
    assert not reaches("a.b")


def test_alternate_exchange_gets_what_has_no_route(channel, name, reaches):
    channel.exchange_declare(f"{name}-2", "fanout")
    channel.exchange_declare(name, "direct", arguments={"alternate-exchange": f"{name}-2"})
    channel.queue_declare(name)
    assert not reaches("x")
    channel.queue_bind(name, f"{name}-2", "")
    assert reaches("x")


@pytest.mark.parametrize("header", ["CC", "BCC"])
def test_copies_go_to_all_keys(channel, name, header):
    for suffix in ("", "-2"):
        channel.queue_declare(name + suffix)
    channel.confirm_delivery()
    properties = pika.BasicProperties(headers={header: [f"{name}-2"], "own": 1})
    channel.basic_publish("", name, b"x", properties)
    for suffix in ("", "-2"):
        got = channel.basic_get(name + suffix, auto_ack=True)
        assert got[2] == b"x"
        assert got[1].headers["own"] == 1
        assert ("BCC" in got[1].headers) is False
        assert ("CC" in got[1].headers) is (header == "CC")
