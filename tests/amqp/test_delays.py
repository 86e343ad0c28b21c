"""Delay and dead queues, and what is written on the messages that go there."""

import pytest

from threadko.amqp.delays import (
    ERROR_HEADER,
    EXCHANGE_HEADER,
    FAILURES_HEADER,
    FIRST_DEATH_HEADER,
    REASON_HEADER,
    ROUTING_KEY_HEADER,
    Retry,
    count_failures,
    dead_queue,
    delay_before_exchange,
    delay_before_queue,
    make_dead,
    make_retry,
    strip_history,
    to_milliseconds,
)
from threadko.amqp.message import Delivery, Properties, decode_properties, encode_properties
from threadko.exceptions import ConfigurationError, EncodeError


def delivery(**properties):
    header = encode_properties(Properties(**{"headers": {}, **properties}))
    return Delivery(1, 1, False, "shop.events", "sold", header, b"body")


def headers_of(forward):
    return decode_properties(forward.header).headers


@pytest.mark.parametrize(("failures", "delay"), [(1, 1), (2, 10), (3, 60), (4, 60), (100, 60)])
def test_last_delay_is_used_for_all_that_follow(failures, delay):
    assert Retry(max=200, delays=(1, 10, 60)).delay_after(failures) == delay


def test_one_delay_may_be_a_number():
    assert Retry(delays=0.5).delays == (0.5,)


@pytest.mark.parametrize(
    "options",
    [
        {"max": 0},
        {"max": True},
        {"max": "5"},
        {"delays": ()},
        {"delays": (0,)},
        {"delays": (1, -1)},
        {"delays": ("1",)},
        {"delays": (float("nan"),)},
        {"delays": (10**9,)},
        {"exceptions": (1,)},
        {"exceptions": "ValueError"},
        {"delays": None},
        {"delays": object()},
        {"delays": (10**400,)},
        {"exceptions": None},
        {"exceptions": 5},
    ],
)
def test_retry_that_makes_no_sense_is_refused(options):
    with pytest.raises(ConfigurationError):
        Retry(**options)


@pytest.mark.parametrize(
    ("seconds", "milliseconds"), [(1, 1000), (0.0001, 1), (2.5, 2500), (0.0015, 2)]
)
def test_times_are_whole_milliseconds_and_never_none(seconds, milliseconds):
    assert to_milliseconds(seconds) == milliseconds


def test_delay_queue_passes_on_to_the_queue_and_outlives_its_messages():
    queue = delay_before_queue("q", 2000)
    arguments = dict(queue.declare_arguments)
    assert (queue.name, queue.durable, queue.exchange) == ("q.delay-2000", True, None)
    assert arguments.pop("x-expires") > 2000
    assert arguments == {
        "x-message-ttl": 2000,
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": "q",
    }


def test_delay_before_an_exchange_keeps_the_routing_key():
    queue = delay_before_exchange("shop.events", 500)
    assert (queue.name, queue.exchange.name) == ("shop.events.delayed-500",) * 2
    assert queue.exchange.type == "fanout"
    assert queue.declare_arguments["x-dead-letter-exchange"] == "shop.events"
    assert "x-dead-letter-routing-key" not in queue.declare_arguments
    assert delay_before_exchange("", 500).name == "threadko-default.delayed-500"


def test_exchange_and_queue_of_one_name_have_delay_queues_of_their_own():
    assert delay_before_exchange("orders", 500).name != delay_before_queue("orders", 500).name


@pytest.mark.parametrize(
    ("value", "count"),
    [
        *((None, 0), (3, 3), (True, 0), ("3", 0), (-1, 0), ([], 0), (1.5, 0)),
        (2**63 - 1, 2**31 - 1),  # one more could not be written down
    ],
)
def test_failures_are_counted_from_any_header(value, count):
    assert count_failures({FAILURES_HEADER: value}) == count


def test_retry_counts_and_remembers_where_the_message_came_from():
    first = make_retry(
        delivery(headers={"own": 1.5}), "q", "guest", Retry(delays=(1, 2)), ValueError("no")
    )
    headers = headers_of(first)
    assert first.queue.name == "q.delay-1000"
    assert first.body == b"body"
    assert headers["own"] == 1.5
    assert headers[FAILURES_HEADER] == 1
    assert headers[ERROR_HEADER] == "ValueError: no"
    assert (headers[EXCHANGE_HEADER], headers[ROUTING_KEY_HEADER]) == ("shop.events", "sold")
    back = Delivery(1, 2, False, "", "q", first.header, first.body)
    second = make_retry(back, "q", "guest", Retry(delays=(1, 2)), KeyError("x"))
    again = headers_of(second)
    assert second.queue.name == "q.delay-2000"
    assert again[FAILURES_HEADER] == 2
    assert again[FIRST_DEATH_HEADER] == headers[FIRST_DEATH_HEADER]
    assert (again[EXCHANGE_HEADER], again[ROUTING_KEY_HEADER]) == ("shop.events", "sold")


@pytest.mark.parametrize(
    ("reason", "failures"), [("exhausted", 1), ("failed", 1), ("undecodable", 0)]
)
def test_dead_message_says_why(reason, failures):
    dead = make_dead(delivery(), "q", "guest", reason, ValueError("no"))
    headers = headers_of(dead)
    assert dead.queue == dead_queue("q")
    assert headers[REASON_HEADER] == reason
    assert headers[FAILURES_HEADER] == failures
    assert strip_history(headers) == {}


def test_properties_stay_but_for_those_that_would_harm():
    forward = make_dead(
        delivery(
            content_type="application/json",
            message_id="m",
            priority=3,
            expiration="5",
            user_id="other",
            headers={"CC": ["a"], "BCC": ["b"], "nameko.language": "de"},
        ),
        "q",
        "guest",
        "failed",
        ValueError(),
    )
    properties = decode_properties(forward.header)
    assert (properties.content_type, properties.message_id, properties.priority) == (
        "application/json",
        "m",
        3,
    )
    # Expired, it would never be looked at; another's name the broker refuses.
    assert (properties.expiration, properties.user_id) == (None, None)
    assert strip_history(properties.headers) == {"nameko.language": "de"}
    own = make_dead(delivery(user_id="guest"), "q", "guest", "failed", ValueError())
    assert decode_properties(own.header).user_id == "guest"


class _UnprintableError(Exception):
    def __str__(self):
        raise SystemExit


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("x" * 5000), "ValueError: " + "x" * 988),
        (ValueError("\ud800"), "ValueError: ?"),
        (_UnprintableError(), "_UnprintableError"),
    ],
)
def test_any_error_fits_into_a_header(error, text):
    assert headers_of(make_dead(delivery(), "q", "guest", "failed", error))[ERROR_HEADER] == text


def test_message_whose_properties_are_rubbish_is_moved_with_its_body():
    rubbish = Delivery(1, 1, False, "x", "y", b"\xff\xff\xff", b"body")
    dead = make_dead(rubbish, "q", "guest", "undecodable", ValueError("no"))
    assert dead.body == b"body"
    assert headers_of(dead)[REASON_HEADER] == "undecodable"


def test_dead_message_leaves_its_headers_behind_where_they_have_no_room():
    large = delivery(content_type="text/plain", headers={"large": "x" * 900})
    for room, kept in ((1500, True), (1000, False)):
        dead = make_dead(large, "q", "guest", "failed", ValueError("y" * 500), room=room)
        properties = decode_properties(dead.header)
        assert len(dead.header) <= room
        assert properties.content_type == "text/plain"
        assert ("large" in properties.headers) is kept
        assert properties.headers[REASON_HEADER] == "failed"


def test_message_is_tried_again_with_all_its_headers_or_not_at_all():
    large = delivery(headers={"large": "x" * 900})
    short = make_retry(large, "q", "guest", Retry(), ValueError("y" * 500), room=1200)
    assert len(short.header) <= 1200
    assert headers_of(short)["large"] == "x" * 900
    assert headers_of(short)[FAILURES_HEADER] == 1
    with pytest.raises(EncodeError, match="no room"):
        make_retry(large, "q", "guest", Retry(), ValueError("y" * 500), room=1000)
