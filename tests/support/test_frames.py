"""The odd bytes are those that were meant: a right client reads them."""

import pytest
from pika import spec

from tests.support.amqp import declare_queue, delete_queue, get_message
from tests.support.frames import RawSender, array, deep_table, entry, properties, table


@pytest.fixture
def queue(broker_uri):
    name = declare_queue(broker_uri, exclusive=False)
    yield name
    delete_queue(broker_uri, name)


def test_sender_writes_what_a_right_client_reads(broker_uri, queue):
    headers = table(entry(b"a", b"t", b"\x01"), entry(b"b", b"A", array(b"V", b"b\x05")))
    header = properties(
        content_type=b"text", headers=headers, priority=3, correlation_id=b"1", timestamp=9
    )
    with RawSender(broker_uri) as sender:
        sender.send("", queue.encode(), header, b"x" * 300_000)
        sender.flush()
    message = get_message(broker_uri, queue)
    assert message.body == b"x" * 300_000
    read = message.properties
    assert (read.content_type, read.correlation_id) == ("text", "1")
    assert (read.priority, read.timestamp, read.reply_to) == (3, 9, None)
    assert read.headers == {"a": True, "b": [None, 5]}


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_deep_table_is_as_deep_as_it_says(depth):
    read = spec.BasicProperties()
    read.decode(properties(headers=deep_table(depth)))
    found = 0
    level = read.headers
    while level:
        level = level["a"]
        found += 1
    assert found == depth
