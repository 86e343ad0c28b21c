"""Expiry and dead letters, and what is written on them."""

import time
from datetime import datetime

import pika
import pytest

from tests.support.timing import TIMEOUT


@pytest.fixture
def publish(channel):
    channel.confirm_delivery()

    def publish(queue, body=b"x", exchange="", **properties):
        channel.basic_publish(exchange, queue, body, pika.BasicProperties(**properties))

    return publish


@pytest.fixture
def expect(channel):
    def expect(queue):
        end = time.monotonic() + TIMEOUT
        while time.monotonic() < end:
            got = channel.basic_get(queue, auto_ack=True)
            if got[0] is not None:
                return got
        raise AssertionError(f"nothing came to {queue}")

    return expect


@pytest.fixture
def dying(channel, name):
    """A queue whose messages go to a second one."""

    def dying(**arguments):
        channel.queue_declare(f"{name}-dead")
        options = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": f"{name}-dead"}
        channel.queue_declare(name, arguments={**options, **arguments})
        return name

    return dying


def gone(channel, queue):
    end = time.monotonic() + TIMEOUT
    while channel.queue_declare(queue, passive=True).method.message_count:
        assert time.monotonic() < end


def test_expired_message_is_gone(channel, name, publish):
    channel.queue_declare(name)
    publish(name, b"short", expiration="30")
    publish(name, b"long", expiration="60000")
    end = time.monotonic() + TIMEOUT
    while channel.queue_declare(name, passive=True).method.message_count > 1:
        assert time.monotonic() < end
    assert channel.basic_get(name, auto_ack=True)[2] == b"long"


def test_expiry_is_looked_for_at_the_front_only(channel, name, publish):
    channel.queue_declare(name)
    publish(name, b"long", expiration="60000")
    publish(name, b"short", expiration="1")
    # A message that is sent later and lives longer is gone: the short one's time has passed.
    channel.queue_declare(f"{name}-2")
    publish(f"{name}-2", b"later", expiration="60")
    gone(channel, f"{name}-2")
    assert channel.queue_declare(name, passive=True).method.message_count == 2
    assert channel.basic_get(name, auto_ack=True)[2] == b"long"
    assert channel.basic_get(name, auto_ack=True) == (None, None, None)


def test_time_of_the_queue_counts_if_it_is_shorter(channel, name, publish):
    channel.queue_declare(name, arguments={"x-message-ttl": 30})
    publish(name, expiration="60000")
    publish(name)
    gone(channel, name)


def test_no_time_at_all_is_for_those_who_wait(channel, name, publish):
    channel.queue_declare(name, arguments={"x-message-ttl": 0})
    publish(name, b"nobody")
    gone(channel, name)
    got = []
    channel.basic_consume(name, lambda *args: got.append(args[3]), auto_ack=True)
    publish(name, b"somebody")
    end = time.monotonic() + TIMEOUT
    while not got:
        assert time.monotonic() < end
        channel.connection.process_data_events(0.05)
    assert got == [b"somebody"]


def test_expired_message_tells_its_story(dying, publish, expect):
    queue = dying()
    publish(queue, b"x", expiration="20", headers={"own": 1}, message_id="m")
    method, properties, body = expect(f"{queue}-dead")
    (death,) = properties.headers["x-death"]
    assert isinstance(death.pop("time"), datetime)
    assert death == {
        "count": 1,
        "reason": "expired",
        "queue": queue,
        "exchange": "",
        "routing-keys": [queue],
        "original-expiration": "20",
    }
    headers = dict(properties.headers)
    del headers["x-death"]
    assert headers == {
        "own": 1,
        "x-first-death-exchange": "",
        "x-first-death-queue": queue,
        "x-first-death-reason": "expired",
    }
    assert (body, properties.message_id, properties.expiration) == (b"x", "m", None)
    assert (method.exchange, method.routing_key) == ("", f"{queue}-dead")


def test_rejected_message_tells_its_story(channel, dying, publish, expect):
    queue = dying()
    publish(queue)
    channel.basic_reject(channel.basic_get(queue)[0].delivery_tag, requeue=False)
    _, properties, _ = expect(f"{queue}-dead")
    (death,) = properties.headers["x-death"]
    assert (death["reason"], death["count"]) == ("rejected", 1)
    assert "original-expiration" not in death
    assert properties.headers["x-first-death-reason"] == "rejected"


def test_message_that_was_pushed_out_tells_its_story(dying, publish, expect):
    queue = dying(**{"x-max-length": 1})
    publish(queue, b"first")
    publish(queue, b"second")
    _, properties, body = expect(f"{queue}-dead")
    assert body == b"first"
    assert properties.headers["x-death"][0]["reason"] == "maxlen"


def test_second_death_is_counted(channel, dying, publish, expect):
    queue = dying()
    publish(queue)
    for count in (1, 2, 3):
        channel.basic_reject(channel.basic_get(queue)[0].delivery_tag, requeue=False)
        _, properties, body = expect(f"{queue}-dead")
        (death,) = properties.headers["x-death"]
        assert death["count"] == count
        publish(queue, body, headers=properties.headers)


def test_newest_death_stands_in_front(channel, dying, publish, expect):
    queue = dying()
    publish(queue)
    channel.basic_reject(channel.basic_get(queue)[0].delivery_tag, requeue=False)
    _, properties, _ = expect(f"{queue}-dead")
    publish(queue, headers=properties.headers, expiration="10")
    _, properties, _ = expect(f"{queue}-dead")
    assert [death["reason"] for death in properties.headers["x-death"]] == ["expired", "rejected"]
    assert properties.headers["x-first-death-reason"] == "rejected"


def test_routing_key_stays_where_none_is_given(channel, name, publish, expect):
    channel.exchange_declare(name, "topic")
    channel.queue_declare(f"{name}-dead")
    channel.queue_bind(f"{name}-dead", name, "#")
    channel.queue_declare(f"{name}-2", arguments={"x-dead-letter-exchange": name})
    publish(f"{name}-2", expiration="10")
    method, _, _ = expect(f"{name}-dead")
    assert (method.exchange, method.routing_key) == (name, f"{name}-2")


def test_missing_exchange_swallows(channel, name, publish):
    channel.queue_declare(name, arguments={"x-dead-letter-exchange": "surely not there"})
    publish(name, expiration="10")
    gone(channel, name)


def test_circle_without_a_rejection_ends(channel, name, publish):
    arguments = {"x-dead-letter-exchange": "", "x-message-ttl": 10}
    channel.queue_declare(name, arguments={**arguments, "x-dead-letter-routing-key": f"{name}-2"})
    channel.queue_declare(f"{name}-2", arguments={**arguments, "x-dead-letter-routing-key": name})
    publish(name)
    end = time.monotonic() + TIMEOUT
    empty = 0
    while empty < 5:
        assert time.monotonic() < end, "it goes round for ever"
        channel.connection.sleep(0.05)
        counts = [
            channel.queue_declare(queue, passive=True).method.message_count
            for queue in (name, f"{name}-2")
        ]
        empty = 0 if any(counts) else empty + 1


def test_circle_with_a_rejection_goes_on(channel, name, publish, expect):
    arguments = {"x-dead-letter-exchange": ""}
    channel.queue_declare(name, arguments={**arguments, "x-dead-letter-routing-key": f"{name}-2"})
    channel.queue_declare(
        f"{name}-2",
        arguments={**arguments, "x-dead-letter-routing-key": name, "x-message-ttl": 10},
    )
    publish(name)
    for count in range(3):
        end = time.monotonic() + TIMEOUT
        while True:
            method, properties, _ = channel.basic_get(name)
            if method is not None:
                break
            assert time.monotonic() < end
        if count:
            deaths = {death["reason"]: death["count"] for death in properties.headers["x-death"]}
            assert deaths == {"rejected": count, "expired": count}
        channel.basic_reject(method.delivery_tag, requeue=False)


def test_full_queue_that_refuses_takes_no_dead_letters(channel, name, publish, expect):
    full = {"x-max-length": 1, "x-overflow": "reject-publish"}
    channel.queue_declare(f"{name}-dead", arguments=full)
    options = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": f"{name}-dead"}
    channel.queue_declare(name, arguments=options)
    for body in (b"1", b"2", b"3"):
        publish(name, body)
        method, *_ = channel.basic_get(name)
        channel.basic_reject(method.delivery_tag, requeue=False)
    # The queue answers when it has sent what was rejected: none of it comes when there is room.
    assert channel.basic_get(name) == (None, None, None)
    assert expect(f"{name}-dead")[2] == b"1"
    publish(f"{name}-dead", b"next")  # after all that was on the way
    assert expect(f"{name}-dead")[2] == b"next"


def test_purged_and_deleted_messages_die_silently(channel, dying, publish):
    queue = dying()
    publish(queue)
    channel.queue_purge(queue)
    publish(queue)
    channel.queue_delete(queue)
    assert channel.basic_get(f"{queue}-dead") == (None, None, None)
