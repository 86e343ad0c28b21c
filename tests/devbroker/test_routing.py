"""Routing without messages; what RabbitMQ does too is in tests/contracts."""

from hypothesis import given
from hypothesis import strategies as st

from threadko.devbroker.routing import Binding, Exchange, Target, matches_headers, matches_topic

Q = Target("queue", "q")


def slowly(pattern, words):
    """The definition, word by word."""
    if not pattern:
        return not words
    if pattern[0] == "#":
        return slowly(pattern[1:], words) or (bool(words) and slowly(pattern, words[1:]))
    return bool(words) and pattern[0] in ("*", words[0]) and slowly(pattern[1:], words[1:])


PARTS = st.lists(st.sampled_from(["a", "b", "*", "#"]), min_size=1, max_size=6)
WORDS = st.lists(st.sampled_from(["a", "b"]), max_size=6)


@given(PARTS, WORDS)
def test_topics_are_matched_as_defined(pattern, words):
    assert matches_topic(".".join(pattern), ".".join(words)) is slowly(pattern, words)


def test_bindings_are_counted_once_and_taken_away():
    exchange = Exchange("e", auto_delete=True)
    assert not exchange.is_abandoned
    for _ in range(2):
        exchange.bind(Binding(Q, "a"))
    exchange.bind(Binding(Q, "b"))
    assert list(exchange.route("a", dict)) == [Q]
    exchange.unbind(Binding(Q, "a"))
    exchange.unbind(Binding(Q, "never"))
    assert list(exchange.route("a", dict)) == []
    assert not exchange.is_abandoned
    exchange.unbind_target(Q)
    assert exchange.is_abandoned


def test_headers_that_begin_with_x_count_only_when_asked():
    arguments = (("x-own", 1),)
    assert matches_headers((*arguments, ("x-match", "all")), {})
    assert not matches_headers((*arguments, ("x-match", "all-with-x")), {})
    assert matches_headers((*arguments, ("x-match", "any-with-x")), {"x-own": 1})
