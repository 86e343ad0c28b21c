"""The broker's sockets, with pika and with clients that misbehave."""

import contextlib
import resource
import socket
import struct
import threading
import time

import pika
import pytest
from pika import spec
from pika.exceptions import AMQPError

from tests.contracts.wire import Wire
from tests.support.timing import TIMEOUT
from threadko.devbroker import DevBroker


@pytest.fixture
def broker():
    with DevBroker() as made:
        yield made


_connections = []


def connect(uri, **options):
    parameters = pika.URLParameters(uri)
    for name, value in options.items():
        setattr(parameters, name, value)
    _connections.append(pika.BlockingConnection(parameters))
    return _connections[-1]


@pytest.fixture(autouse=True)
def _no_connection_left():
    yield
    while _connections:
        with contextlib.suppress(AMQPError):
            _connections.pop().close()


def is_served(broker):
    """A client comes, publishes, gets and goes."""
    connection = connect(broker.uri)
    channel = connection.channel()
    name = channel.queue_declare("", exclusive=True).method.queue
    channel.confirm_delivery()
    channel.basic_publish("", name, b"x", mandatory=True)
    assert channel.basic_get(name, auto_ack=True)[2] == b"x"
    connection.close()
    return True


def test_it_is_there_when_start_returns_and_its_port_free_when_stop_does():
    broker = DevBroker()
    for _ in range(3):
        broker.start()
        port = broker.port
        assert is_served(broker)
        broker.stop()
        broker.stop()
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            probe.listen()  # refused as long as anybody listens


def test_port_that_is_taken_is_an_error(broker):
    with pytest.raises(OSError, match="in use"):
        DevBroker(port=broker.port).start()


def test_started_twice_is_an_error(broker):
    with pytest.raises(RuntimeError, match="started already"):
        broker.start()


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.0.1", "::", "example.org"])
def test_address_that_others_reach_must_be_allowed(host):
    with pytest.raises(ValueError, match="other machines"):
        DevBroker(host)
    DevBroker(host, allow_remote=True)


def test_address_of_ipv6():
    if not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    try:
        broker = DevBroker("::1")
        broker.start()
    except OSError:
        pytest.skip("this machine has no ::1")
    assert is_served(broker)
    broker.stop()


def test_users_and_vhosts():
    with DevBroker(users={"ann": "p@ss/word"}, vhosts=("shop / one",)) as broker:
        connect(broker.uri).close()
        assert "shop%20%2F%20one" in broker.uri
        with pytest.raises(AMQPError):
            connect(f"amqp://guest:guest@127.0.0.1:{broker.port}/")


def test_vhosts_come_and_go(broker):
    broker.add_vhost("new")
    connection = connect(broker.uri_for("new"))
    channel = connection.channel()
    channel.queue_declare("q")
    broker.remove_vhost("new")
    with pytest.raises(AMQPError):
        channel.queue_declare("q")
    with pytest.raises(AMQPError):
        connect(broker.uri_for("new"))
    broker.add_vhost("new")
    channel = connect(broker.uri_for("new")).channel()
    with pytest.raises(AMQPError):
        channel.queue_declare("q", passive=True)


def test_dropped_connections_end_without_a_word(broker):
    broker.add_vhost("other")
    mine, other = connect(broker.uri), connect(broker.uri_for("other"))
    assert broker.drop_connections("/") == 1
    with pytest.raises(AMQPError):
        mine.channel()
    other.channel()
    assert broker.drop_connections() == 1


def test_blocked_publisher_is_told_and_goes_on_later(broker):
    connection = connect(broker.uri, blocked_connection_timeout=TIMEOUT)
    told = []
    connection.add_on_connection_blocked_callback(lambda *_: told.append("blocked"))
    connection.add_on_connection_unblocked_callback(lambda *_: told.append("unblocked"))
    channel = connection.channel()
    name = channel.queue_declare("").method.queue
    channel.basic_publish("", name, b"before")
    channel.queue_declare(name, passive=True)
    broker.block("for a test")
    reader = connect(broker.uri).channel()
    assert reader.basic_get(name, auto_ack=True)[2] == b"before"  # readers go on
    channel.basic_publish("", name, b"meanwhile")
    while told != ["blocked"]:
        connection.process_data_events(0.05)
    assert reader.basic_get(name, auto_ack=True) == (None, None, None)
    broker.unblock()
    while told != ["blocked", "unblocked"]:
        connection.process_data_events(0.05)
    channel.queue_declare(name, passive=True)
    assert reader.basic_get(name, auto_ack=True)[2] == b"meanwhile"
    connection.close()


def test_publishers_are_held_up_when_memory_is_short():
    with DevBroker(memory_limit=1_000_000) as broker:
        publisher = connect(broker.uri)
        told = threading.Event()
        publisher.add_on_connection_blocked_callback(lambda *_: told.set())
        channel = publisher.channel()
        name = channel.queue_declare("").method.queue
        for _ in range(12):
            channel.basic_publish("", name, b"x" * 100_000)
        while not told.is_set():
            publisher.process_data_events(0.05)
        reader = connect(broker.uri).channel()
        while reader.basic_get(name, auto_ack=True)[0] is not None:
            pass
        channel.queue_declare(name, passive=True)  # it is read again
        publisher.close()


def test_confirms_may_be_delayed(broker):
    channel = connect(broker.uri).channel()
    channel.confirm_delivery()
    name = channel.queue_declare("").method.queue
    broker.delay_confirms(0.2)
    begin = time.monotonic()
    channel.basic_publish("", name, b"x")
    assert time.monotonic() - begin >= 0.2
    broker.delay_confirms(0)
    channel.basic_publish("", name, b"x")


def test_silent_client_is_dropped_and_a_beating_one_stays(broker):
    with Wire(broker.uri) as silent:
        silent.login()
        silent.read()
        silent.call(0, spec.Connection.TuneOk(2047, 131072, 1))
        silent.call(0, spec.Connection.Open("/"))
        beating = connect(broker.uri, heartbeat=1)
        ended = threading.Event()
        waiting = threading.Thread(target=lambda: (read_to_the_end(silent), ended.set()))
        waiting.start()
        while not ended.is_set():
            beating.process_data_events(0.1)
        waiting.join(TIMEOUT)
        beating.channel()


def read_to_the_end(wire):
    while wire.read() is not None:
        pass


def test_stop_says_goodbye(broker):
    with Wire(broker.uri) as wire:
        wire.start()
        broker.stop()
        close = wire.read()
        assert (type(close), close.reply_code) == (spec.Connection.Close, 320)
        assert wire.read() is None


def test_hooks_work_on_a_broker_that_is_not_started():
    broker = DevBroker()
    broker.add_vhost("v")
    assert broker.drop_connections() == 0
    broker.start()
    connect(broker.uri_for("v")).close()
    broker.stop()


# Clients that misbehave

HEADER = b"AMQP\x00\x00\x09\x01"


@pytest.mark.parametrize(
    "data",
    [
        b"\x00" * 100,
        b"GET / HTTP/1.1\r\n\r\n",
        HEADER + b"\xff" * 100,
        HEADER + struct.pack(">BHI", 1, 0, 0xFFFFFFFF),
        HEADER + struct.pack(">BHI", 1, 0, 4) + b"\xff\xff\xff\xff\xce",
        HEADER + struct.pack(">BHI", 3, 9, 4) + b"body\xce",
    ],
)
def test_rubbish_is_closed_and_others_are_served(broker, data):
    with socket.create_connection(("127.0.0.1", broker.port), TIMEOUT) as sock:
        sock.sendall(data)
        while sock.recv(65536):
            pass
    assert is_served(broker)


def test_half_a_frame_and_then_the_end(broker):
    for size in range(0, 40, 3):
        with Wire(broker.uri) as wire:
            wire.start()
            wire.send(pika.frame.Method(1, spec.Queue.Declare(queue="x" * 30)).marshal()[:size])
    assert is_served(broker)


def test_ten_thousand_queues(broker):
    with Wire(broker.uri) as wire:
        wire.start().open()
        frames = [
            pika.frame.Method(1, spec.Queue.Declare(queue=f"q{number}", nowait=True)).marshal()
            for number in range(10_000)
        ]
        wire.send(b"".join(frames))
        wire.call(1, spec.Queue.Declare(queue="q9999", passive=True))
        assert isinstance(wire.read(), spec.Queue.DeclareOk)
    assert is_served(broker)


def test_ten_thousand_queues_go_with_their_connection(broker):
    """Many of one connection are no reason to let the others wait: 4,000 once took 4 seconds."""
    with Wire(broker.uri) as wire:
        wire.start().open()
        for number in range(10_000):
            wire.call(1, spec.Queue.Declare(queue=f"q{number}", exclusive=True, nowait=True))
            wire.call(1, spec.Queue.Bind(queue=f"q{number}", exchange="amq.fanout", nowait=True))
        wire.call(1, spec.Queue.Declare(queue="q9999", passive=True))
        assert isinstance(wire.read(), spec.Queue.DeclareOk)
    channel = connect(broker.uri).channel()  # in time, or the login fails
    with pytest.raises(AMQPError):
        channel.queue_declare("q9999", passive=True)


def test_header_that_nobody_can_read_ends_its_sender_only(broker):
    """It once ended the broker, when the message expired and was to be passed on."""
    arguments = {"x-message-ttl": 1, "x-dead-letter-exchange": ""}
    connect(broker.uri).channel().queue_declare("q", arguments=arguments)
    with Wire(broker.uri) as wire:
        wire.start().open()
        wire.call(1, spec.Basic.Publish(0, "", "q"))
        wire.frame(2, 1, struct.pack(">HHQH", 60, 0, 1, 0x8000) + b"\xff")
        close = wire.read()
        assert (type(close), close.reply_code) == (spec.Connection.Close, 541)
    assert is_served(broker)


def test_fault_of_our_own_is_logged_and_the_loop_goes_on(caplog):
    def fail():
        raise ZeroDivisionError

    broker = DevBroker()
    broker.call_at(0.0, fail)
    with broker:
        assert is_served(broker)
        assert "a fault in the broker" in caplog.text
        with pytest.raises(TypeError):
            broker.add_vhost([])  # the caller's own fault is the caller's
        assert is_served(broker)


def test_it_waits_for_a_time_that_the_system_cannot_count_to():
    broker = DevBroker(port=0)
    broker.call_at(time.monotonic() + 1e10, broker.stop)
    broker.start()
    try:
        assert is_served(broker)
        assert is_served(broker)
    finally:
        broker.stop()


def test_client_that_does_not_confirm_its_end_is_dropped():
    with DevBroker(send_timeout=0.2) as broker, Wire(broker.uri) as wire:
        wire.start().open()
        wire.call(1, spec.Tx.Select())
        assert wire.read().reply_code == 540
        assert wire.read() is None


def test_client_that_reads_nothing_is_dropped_in_the_end():
    with DevBroker(send_timeout=0.2) as broker, Wire(broker.uri) as wire:
        channel = connect(broker.uri).channel()
        channel.queue_declare("q")
        wire.start().open()
        wire.call(1, spec.Basic.Consume(queue="q", no_ack=True))
        for _ in range(200):
            channel.basic_publish("", "q", b"x" * 100_000)
        end = time.monotonic() + TIMEOUT
        while channel.queue_declare("q", passive=True).method.consumer_count:
            assert time.monotonic() < end
        assert channel.basic_get("q", auto_ack=True)[2] == b"x" * 100_000


def test_a_thousand_connections(broker):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4096
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"a process may have {hard} descriptors here: raise `ulimit -n`")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    wires = []
    try:
        for _ in range(1000):
            wires.append(Wire(broker.uri).start())
        assert is_served(broker)
    finally:
        for wire in wires:
            wire.sock.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert is_served(broker)


def test_reader_that_never_reads_costs_nobody_else(broker):
    channel = connect(broker.uri).channel()
    channel.queue_declare("q")
    with Wire(broker.uri) as wire:
        wire.start().open()
        wire.call(1, spec.Basic.Consume(queue="q", no_ack=True))
        wire.read()
        for _ in range(200):
            channel.basic_publish("", "q", b"x" * 100_000)
        # All that the sockets hold, and the broker's megabyte, are on the way; the rest waits.
        waiting = channel.queue_declare("q", passive=True).method.message_count
        assert waiting > 0
        assert is_served(broker)
    end = time.monotonic() + TIMEOUT
    other = connect(broker.uri).channel()
    while channel.queue_declare("q", passive=True).method.consumer_count:
        assert time.monotonic() < end
    assert other.basic_get("q", auto_ack=True)[2] == b"x" * 100_000


class Mill:
    """Publishes numbers with confirms and takes them again, through any number of ends."""

    def __init__(self, broker):
        self.broker = broker
        self.number = 0
        self.confirmed = set()
        self.seen = set()
        self.cuts = 0

    def run(self, count):
        while len(self.confirmed) < count:
            channel = connect(self.broker.uri).channel()
            channel.confirm_delivery()
            try:
                while len(self.confirmed) < count:
                    self.publish(channel)
                    self.take(channel)
                    self.cuts += self.broker.drop_connections()
            except AMQPError:
                self.number += 1  # whether the last one arrived is unknown

    def publish(self, channel):
        for _ in range(120):
            channel.basic_publish("", "q", str(self.number).encode(), mandatory=True)
            self.confirmed.add(self.number)
            self.number += 1

    def take(self, channel):
        for _ in range(100):
            method, _, body = channel.basic_get("q")
            if method is None:
                return
            self.note(method, body)
            if int(body) % 7:
                channel.basic_ack(method.delivery_tag)

    def note(self, method, body):
        assert int(body) not in self.seen or method.redelivered
        self.seen.add(int(body))


@pytest.mark.long
def test_confirmed_messages_survive_abrupt_ends(broker):
    """Of 6,000 confirmed messages none is lost, and none comes twice but as redelivered."""
    connect(broker.uri).channel().queue_declare("q", durable=True)
    mill = Mill(broker)
    mill.run(6000)
    channel = connect(broker.uri).channel()
    while True:
        method, _, body = channel.basic_get("q", auto_ack=True)
        if method is None:
            break
        mill.note(method, body)
    assert mill.cuts >= 50
    assert mill.confirmed <= mill.seen


def test_connections_of_a_vhost_are_listed_by_name(broker):
    broker.add_vhost("other")
    named = connect(broker.uri, client_properties={"connection_name": "a name"})
    unnamed = connect(broker.uri)
    connect(broker.uri_for("other"), client_properties={"connection_name": "elsewhere"})
    port = unnamed._impl._transport._sock.getsockname()[1]
    assert broker.list_connections("/") == ["a name", f"127.0.0.1:{port}"]
    assert broker.list_connections("other") == ["elsewhere"]
    assert broker.list_connections("missing") == []
    named.close()
    assert broker.list_connections("/") == [f"127.0.0.1:{port}"]
