"""A queue by itself, with a clock that the test turns."""

import pytest

from tests.devbroker.dummies import FakeBroker
from threadko.devbroker.queues import Message, Queue


class Host(FakeBroker):
    """Notes what the queue asks for."""

    def __init__(self):
        super().__init__()
        self.dead = []
        self.deleted = []

    def dead_letter(self, queue, entry, reason):
        self.dead.append((entry.message.body, reason))

    def delete_queue(self, queue):
        queue.is_deleted = True
        self.deleted.append(queue.name)
        return queue.purge()


class Taker:
    """A consumer with room for so many."""

    def __init__(self, room=1000, priority=0):
        self.priority = priority
        self.room = room
        self.entries = []
        self.is_cancelled = False

    def can_take(self):
        return len(self.entries) < self.room

    def take(self, queue, entry):
        self.entries.append(entry)

    def cancelled(self):
        self.is_cancelled = True

    @property
    def bodies(self):
        return [entry.message.body for entry in self.entries]


@pytest.fixture
def host():
    return Host()


def message(body=b"x", **options):
    return Message("", "q", b"\0\0", body, **options)


def fill(queue, *bodies):
    for body in bodies:
        queue.publish(message(body))


def bodies(queue):
    found = []
    while (entry := queue.get()) is not None:
        found.append(entry.message.body)
    return found


def test_memory_is_counted_to_the_byte(host):
    queue = Queue(host, "q")
    fill(queue, b"a" * 100, b"b")
    assert host.bytes > 101
    queue.get()
    queue.purge()
    assert host.bytes == 0


def test_requeued_entries_find_their_places(host):
    queue = Queue(host, "q")
    fill(queue, b"a", b"b", b"c", b"d")
    entries = [queue.get() for _ in range(3)]
    for index in (1, 2, 0):
        queue.requeue(entries[index])
    assert bodies(queue) == [b"a", b"b", b"c", b"d"]
    assert all(entry.redelivered for entry in entries)


def test_takers_take_turns_and_full_ones_are_passed_over(host):
    queue = Queue(host, "q")
    first, second = Taker(), Taker(room=1)
    for taker in (first, second):
        queue.subscribe(taker)
    fill(queue, b"a", b"b", b"c", b"d")
    assert (first.bodies, second.bodies) == ([b"a", b"c", b"d"], [b"b"])


def test_priorities_of_takers(host):
    queue = Queue(host, "q")
    low, high = Taker(priority=-1), Taker(room=2, priority=1)
    for taker in (low, high):
        queue.subscribe(taker)
    fill(queue, b"a", b"b", b"c")
    assert (low.bodies, high.bodies) == ([b"c"], [b"a", b"b"])


def test_expiry_needs_no_look_from_outside(host):
    queue = Queue(host, "q", arguments={"x-message-ttl": 1000})
    fill(queue, b"a")
    host.advance(0.5)
    fill(queue, b"b")
    host.advance(0.5)
    assert host.dead == [(b"a", "expired")]
    host.advance(0.5)
    assert host.dead == [(b"a", "expired"), (b"b", "expired")]
    assert host.bytes == 0


def test_shorter_time_counts(host):
    queue = Queue(host, "q", arguments={"x-message-ttl": 1000})
    queue.publish(message(b"short", expiration=10))
    host.advance(0.02)
    assert host.dead == [(b"short", "expired")]


def test_expiry_behind_the_first_waits_for_it(host):
    queue = Queue(host, "q")
    queue.publish(message(b"long"))
    queue.publish(message(b"short", expiration=10))
    host.advance(1)
    assert host.dead == []
    queue.get()
    assert queue.get() is None
    assert host.dead == [(b"short", "expired")]


def test_requeued_entry_still_expires(host):
    queue = Queue(host, "q", arguments={"x-message-ttl": 1000})
    fill(queue, b"a")
    entry = queue.get()
    host.advance(5)
    assert host.dead == []
    queue.requeue(entry)
    queue.pump()
    assert host.dead == [(b"a", "expired")]


def test_unused_queue_goes_and_a_used_one_stays(host):
    queue = Queue(host, "q", arguments={"x-expires": 1000})
    host.advance(0.9)
    queue.get()
    host.advance(0.9)
    assert host.deleted == []
    taker = Taker()
    queue.subscribe(taker)
    host.advance(10)
    assert host.deleted == []
    queue.unsubscribe(taker)
    host.advance(0.9)
    assert host.deleted == []
    host.advance(0.2)
    assert host.deleted == ["q"]


def test_limits_drop_the_oldest_or_refuse(host):
    queue = Queue(host, "q", arguments={"x-max-length": 1})
    fill(queue, b"a", b"b")
    assert (host.dead, bodies(queue)) == ([(b"a", "maxlen")], [b"b"])
    queue = Queue(host, "q", arguments={"x-max-length": 1, "x-overflow": "reject-publish"})
    fill(queue, b"a")
    assert queue.refuses(message())


def test_last_taker_takes_an_auto_delete_queue_along(host):
    queue = Queue(host, "q", auto_delete=True)
    takers = [Taker(), Taker()]
    for taker in takers:
        queue.subscribe(taker)
    queue.unsubscribe(takers[0])
    queue.unsubscribe(takers[0])
    assert host.deleted == []
    queue.unsubscribe(takers[1])
    assert host.deleted == ["q"]


def test_cancelling_all_tells_all(host):
    queue = Queue(host, "q")
    takers = [Taker(), Taker(priority=1)]
    for taker in takers:
        queue.subscribe(taker, exclusive=True)
    queue.cancel_all()
    assert all(taker.is_cancelled for taker in takers)
    assert queue.consumer_count == 0


def test_priorities_of_messages(host):
    queue = Queue(host, "q", arguments={"x-max-priority": 2})
    for body, priority in ((b"0", 0), (b"9", 9), (b"2", 2), (b"1", 1)):
        queue.publish(message(body, priority=priority))
    first = queue.get()
    queue.requeue(first)
    assert bodies(queue) == [b"9", b"2", b"1", b"0"]
