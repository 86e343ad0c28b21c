"""A connection on a thread of its own: work is never lost, waits end, and it always comes back."""

import contextlib
import itertools
import logging
import queue
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pika
import pika.frame
import pytest
from pika import spec
from pika.frame import Header, Heartbeat, Method

from tests.support.proxy import Proxy
from tests.support.timing import TIMEOUT
from threadko.amqp.connection import ChannelHandler, Connection
from threadko.amqp.link import Link
from threadko.amqp.parameters import BrokerParameters
from threadko.concurrency.deadline import Deadline
from threadko.exceptions import (
    BrokerError,
    BrokerRefused,
    BrokerUnavailable,
    ContainerStopped,
    ThreadkoError,
    WorkerKilled,
)

Numbers = itertools.count(1)


class Events:
    """A session that is ready at once, and notes all that happens to it."""

    def __init__(self) -> None:
        self.link: Link
        self.begun: queue.SimpleQueue[Connection] = queue.SimpleQueue()
        self.ended: queue.SimpleQueue[ThreadkoError] = queue.SimpleQueue()
        self.abandoned: queue.SimpleQueue[tuple[ThreadkoError | None, bool]] = queue.SimpleQueue()
        self.finishing = threading.Event()
        self.finishes = True
        self.threads: set[threading.Thread] = set()
        self.turns = 0
        self.on_begin: Callable[[Connection], None] = lambda _: self.link.came_up()
        self.on_end: Callable[[], None] = lambda: None
        self.on_turn: Callable[[], None] = lambda: None
        self.on_abandon: Callable[[], None] = lambda: None

    def begin(self, connection: Connection) -> None:
        self.threads.add(threading.current_thread())
        self.on_begin(connection)
        self.begun.put(connection)

    def end(self, error: ThreadkoError) -> None:
        self.threads.add(threading.current_thread())
        self.on_end()
        self.ended.put(error)

    def turn(self) -> None:
        self.turns += 1
        self.on_turn()

    def finish(self) -> None:
        self.threads.add(threading.current_thread())
        self.finishing.set()
        if self.finishes:
            self.link.finished()

    def abandon(self, error: ThreadkoError | None, killed: bool) -> None:
        self.threads.add(threading.current_thread())
        self.on_abandon()
        self.abandoned.put((error, killed))


class Rig:
    """A link, its session, and shortcuts to wait for what they do."""

    def __init__(self, uri: str | list[str], heartbeat: int = 20, **options: Any) -> None:
        self.events = Events()
        self.name = f"threadko-test-link-{next(Numbers)}"
        parameters = BrokerParameters.from_uri(uri, heartbeat)
        self.link = Link(parameters, name=self.name, session=self.events, **options)
        self.events.link = self.link

    def start(self) -> "Rig":
        self.link.start()
        return self

    def up(self) -> "Rig":
        self.start().link.wait_up(Deadline(TIMEOUT))
        return self

    def next_begun(self) -> Connection:
        return self.events.begun.get(timeout=TIMEOUT)

    def next_end(self) -> ThreadkoError:
        return self.events.ended.get(timeout=TIMEOUT)

    def run(self, job: Callable[[], Any]) -> Any:
        """Run a job on the link's thread and return what it returns."""
        answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        assert self.link.post(lambda: answers.put(job()))
        return answers.get(timeout=TIMEOUT)

    def let_pass(self, seconds: float) -> None:
        """Wait until that much time has passed for the link's timers."""
        passed = threading.Event()
        self.run(lambda: self.link.call_at(time.monotonic() + seconds, passed.set))
        assert passed.wait(TIMEOUT)

    def is_alive(self) -> bool:
        return self.name in {thread.name for thread in threading.enumerate()}

    def wait_gone(self) -> None:
        """Wait until the thread has ended."""
        for thread in threading.enumerate():
            if thread.name == self.name:
                thread.join(TIMEOUT)
        assert not self.is_alive()


class Asked(Deadline):
    """A deadline that never comes, and tells when somebody is about to wait for it.

    It is asked with the lock held that whoever wakes the waiter needs, too: so none is too early.
    """

    def __init__(self) -> None:
        super().__init__(None)
        self.waited_for = threading.Event()

    def remaining(self) -> float | None:
        self.waited_for.set()
        return super().remaining()


MakeRig = Callable[..., Rig]


@pytest.fixture
def make_rig() -> Iterator[MakeRig]:
    rigs: list[Rig] = []

    def make(uri: str | list[str], heartbeat: int = 20, **options: Any) -> Rig:
        rigs.append(Rig(uri, heartbeat, **options))
        return rigs[-1]

    yield make
    for rig in rigs:
        rig.link.kill()
        rig.wait_gone()


@pytest.fixture
def proxy(broker_uri: str) -> Iterator[Proxy]:
    with Proxy.for_uri(broker_uri) as proxy:
        yield proxy


@pytest.fixture
def proxied(broker_uri: str, proxy: Proxy) -> str:
    return proxy.uri_for(broker_uri)


@pytest.fixture
def nowhere() -> Iterator[str]:
    """The URI of a port that refuses every connection."""
    with contextlib.closing(socket.socket()) as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"amqp://guest:guest@127.0.0.1:{bound.getsockname()[1]}/"


class Broker:
    """The broker's side, played by the test over plain sockets."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(TIMEOUT)
        self._peers: list[Peer] = []
        self.uri = f"amqp://guest:guest@127.0.0.1:{self._listener.getsockname()[1]}/"

    def accept(self) -> "Peer":
        self._peers.append(Peer(self._listener.accept()[0]))
        return self._peers[-1]

    def open(self, heartbeat: int = 20) -> "Peer":
        """Accept a connection and let it stand."""
        peer = self.accept()
        peer.open(heartbeat)
        return peer

    def close(self) -> None:
        for peer in self._peers:
            peer.sock.close()
        self._listener.close()


class Peer:
    """One connection, as the broker sees it."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.sock.settimeout(TIMEOUT)
        self._rest = b""

    def open(self, heartbeat: int) -> None:
        assert self.receive(8) == b"AMQP\x00\x00\x09\x01"
        start = spec.Connection.Start(
            server_properties={"capabilities": {}}, mechanisms="PLAIN", locales="en_US"
        )
        self.send(Method(0, start).marshal())
        self.expect(spec.Connection.StartOk)
        self.send(Method(0, spec.Connection.Tune(2047, 131072, heartbeat)).marshal())
        self.expect(spec.Connection.TuneOk)
        self.expect(spec.Connection.Open)
        self.send(Method(0, spec.Connection.OpenOk()).marshal())

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def receive(self, size: int) -> bytes:
        while len(self._rest) < size:
            data = self.sock.recv(1 << 16)
            assert data, "the link closed the connection"
            self._rest += data
        data, self._rest = self._rest[:size], self._rest[size:]
        return data

    def receive_all(self) -> bytes:
        """Everything that comes until the link closes the connection."""
        with contextlib.suppress(ConnectionResetError):
            while data := self.sock.recv(1 << 16):
                self._rest += data
        return self._rest

    def expect(self, method: Any) -> Any:
        """Read frames until there is one of this method."""
        while True:
            start = self.receive(7)
            rest = self.receive(int.from_bytes(start[3:7], "big") + 1)
            _, frame = pika.frame.decode_frame(start + rest)
            if isinstance(frame, Method) and isinstance(frame.method, method):
                return frame.method

    def open_channel(self, number: int) -> None:
        self.expect(spec.Channel.Open)
        self.send(Method(number, spec.Channel.OpenOk()).marshal())


@pytest.fixture
def broker() -> Iterator[Broker]:
    with contextlib.closing(Broker()) as made:
        yield made


# Posting


def test_posted_jobs_run_in_order_on_the_links_thread(make_rig: MakeRig, broker_uri: str) -> None:
    rig = make_rig(broker_uri).up()
    order: list[int] = []
    for number in range(100):
        assert rig.link.post(lambda number=number: order.append(number))
    assert rig.run(threading.current_thread).name == rig.name
    assert order == list(range(100))
    assert rig.run(rig.link.owns_this_thread)
    assert not rig.link.owns_this_thread()


def test_thread_is_a_named_daemon(make_rig: MakeRig, nowhere: str) -> None:
    thread = make_rig(nowhere).start().run(threading.current_thread)
    assert thread.daemon


def test_session_is_called_on_the_links_thread_alone(make_rig: MakeRig, proxied: str) -> None:
    rig = make_rig(proxied).up()
    thread = rig.run(threading.current_thread)
    assert rig.link.stop(TIMEOUT)
    assert rig.events.threads == {thread}


def test_job_posted_while_there_is_no_connection_runs_once(make_rig: MakeRig, nowhere: str) -> None:
    rig = make_rig(nowhere).start()
    ran: list[int] = []
    assert rig.link.post(lambda: ran.append(1))
    rig.next_end()  # an attempt has failed
    assert rig.link.post(lambda: ran.append(2))
    assert rig.run(lambda: rig.link.connection) is None
    rig.next_end()
    assert ran == [1, 2]


def test_post_is_refused_where_there_is_no_thread(make_rig: MakeRig, broker_uri: str) -> None:
    rig = make_rig(broker_uri)
    ran: list[int] = []
    assert not rig.link.post(lambda: ran.append(1))
    rig.up()
    assert rig.link.stop(TIMEOUT)
    assert not rig.link.post(lambda: ran.append(2))
    assert ran == []


def test_post_is_refused_after_a_refusal_for_good(make_rig: MakeRig, broker_uri: str) -> None:
    rig = make_rig(broker_uri.replace("guest:guest", "guest:wrong")).start()
    with pytest.raises(BrokerRefused):
        rig.link.wait_up(Deadline(TIMEOUT))
    rig.wait_gone()
    assert not rig.link.post(int)


def test_job_may_post_another(make_rig: MakeRig, broker_uri: str) -> None:
    rig = make_rig(broker_uri).up()
    ran = threading.Event()
    rig.link.post(lambda: rig.link.post(ran.set))
    assert ran.wait(TIMEOUT)


def test_jobs_posted_by_the_last_act_of_the_session_run_too(
    make_rig: MakeRig, broker_uri: str
) -> None:
    rig = make_rig(broker_uri)
    ran: list[str] = []
    rig.events.on_abandon = lambda: ran.append(
        str(rig.link.post(lambda: ran.append(str(rig.link.post(lambda: ran.append("last"))))))
    )
    rig.up().link.stop(TIMEOUT)
    assert ran == ["True", "True", "last"]


def post_while(rig: Rig, disturb: Callable[[], None], count: int) -> None:
    """Post from four threads while the link is disturbed; every accepted job runs exactly once."""
    accepted: list[int] = []
    ran: list[int] = []
    start = threading.Barrier(5)

    def play(first: int) -> None:
        for number in range(first, first + count):
            if number == first + 1:  # the first is surely accepted
                start.wait(TIMEOUT)
            if rig.link.post(lambda number=number: ran.append(number)):
                accepted.append(number)

    players = [threading.Thread(target=play, args=(role * count,)) for role in range(4)]
    for player in players:
        player.start()
    start.wait(TIMEOUT)
    disturb()
    for player in players:
        player.join(TIMEOUT)
    if rig.is_alive():
        rig.link.post(int) and rig.run(int)
    assert sorted(ran) == sorted(accepted)
    assert accepted


def test_no_job_is_lost_or_run_twice_while_connections_come_and_go(
    make_rig: MakeRig, proxy: Proxy, proxied: str
) -> None:
    rig = make_rig(proxied).up()
    rig.next_begun()

    def disturb() -> None:
        for _ in range(20):
            proxy.cut()
            rig.next_begun()

    post_while(rig, disturb, 5000)
    assert rig.run(lambda: rig.link.generation) == 21


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_no_job_is_lost_or_run_twice_when_the_link_ends_meanwhile(
    make_rig: MakeRig, broker_uri: str, end: str
) -> None:
    for _ in range(10):
        rig = make_rig(broker_uri).up()

        def disturb(rig: Rig = rig) -> None:
            if end == "kill":
                rig.link.kill()
            else:
                assert rig.link.stop(TIMEOUT)
            rig.wait_gone()

        post_while(rig, disturb, 2000)


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt, WorkerKilled])
def test_job_that_fails_costs_the_connection_and_never_the_thread(
    make_rig: MakeRig, broker_uri: str, caplog: pytest.LogCaptureFixture, error: type[BaseException]
) -> None:
    rig = make_rig(broker_uri).up()
    thread = rig.run(threading.current_thread)
    rig.next_begun()
    hold, ran = threading.Event(), threading.Event()

    def fail() -> None:
        raise error("boom")

    for job in (lambda: hold.wait(TIMEOUT), fail, ran.set):  # so that they come in one batch
        assert rig.link.post(job)
    hold.set()
    assert ran.wait(TIMEOUT)
    assert "boom" in str(rig.next_end())
    rig.next_begun()
    assert rig.run(threading.current_thread) is thread
    assert rig.run(lambda: rig.link.generation) == 2
    errors = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert [r.exc_info and r.exc_info[0] for r in errors] == [error]


@pytest.mark.parametrize("error", [ValueError, SystemExit])
def test_handler_that_fails_costs_the_connection_and_never_the_thread(
    make_rig: MakeRig, broker: Broker, caplog: pytest.LogCaptureFixture, error: type[BaseException]
) -> None:
    class Faulty(ChannelHandler):
        def on_deliver(self, *_: Any) -> None:
            raise error("boom")

    def begin(connection: Connection) -> None:
        connection.open_channel(
            1, Faulty(), on_open=lambda _: rig.link.came_up(), on_close=lambda _, __: None
        )

    rig = make_rig(broker.uri)
    rig.events.on_begin = begin
    rig.start()
    peer = broker.open()
    peer.open_channel(1)
    rig.link.wait_up(Deadline(TIMEOUT))
    thread = rig.run(threading.current_thread)
    peer.send(
        Method(1, spec.Basic.Deliver("c", 1, False, "", "")).marshal()
        + Header(1, 0, pika.BasicProperties()).marshal()
    )
    rig.next_end()
    broker.open().open_channel(1)
    rig.link.wait_up(Deadline(TIMEOUT))
    assert rig.run(threading.current_thread) is thread
    errors = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert [r.exc_info and r.exc_info[0] for r in errors] == [error]


def test_job_posted_just_before_a_fault_of_the_loop_runs_all_the_same(
    make_rig: MakeRig, broker: Broker
) -> None:
    rig = make_rig(broker.uri)
    ran: queue.SimpleQueue[str] = queue.SimpleQueue()

    class Faulty(ChannelHandler):
        def on_deliver(self, *_: Any) -> None:
            rig.link.call_at(time.monotonic(), lambda: ran.put("timer"))
            rig.link.post(lambda: ran.put("job"))
            raise SystemExit("out of any job")

    rig.events.on_begin = lambda connection: connection.open_channel(
        1, Faulty(), on_open=lambda _: rig.link.came_up(), on_close=lambda _, __: None
    )
    rig.start()
    peer = broker.open()
    peer.open_channel(1)
    rig.link.wait_up(Deadline(TIMEOUT))
    peer.send(
        Method(1, spec.Basic.Deliver("c", 1, False, "", "")).marshal()
        + Header(1, 0, pika.BasicProperties()).marshal()
    )
    assert {ran.get(timeout=TIMEOUT) for _ in range(2)} == {"job", "timer"}
    broker.open()
    assert ran.empty()


@pytest.mark.parametrize("place", ["on_begin", "on_turn", "on_end"])
def test_session_that_fails_once_is_connected_anew(
    make_rig: MakeRig, proxy: Proxy, proxied: str, place: str
) -> None:
    rig = make_rig(proxied)
    usual = getattr(rig.events, place)
    failed = threading.Event()

    def fail_once(*arguments: Any) -> None:
        if not failed.is_set() and (place != "on_turn" or rig.link.is_up):
            failed.set()
            raise SystemExit(place)
        usual(*arguments)

    setattr(rig.events, place, fail_once)
    rig.start()
    if place == "on_end":
        rig.next_begun()
        proxy.cut()
    else:
        rig.next_end()
    rig.next_begun()
    rig.link.wait_up(Deadline(TIMEOUT))
    assert failed.is_set()


def test_session_that_fails_as_its_last_act_leaves_no_thread_and_no_waiter(
    make_rig: MakeRig, broker_uri: str
) -> None:
    def fail() -> None:
        raise SystemExit("last")

    rig = make_rig(broker_uri)
    rig.events.on_abandon = fail
    assert rig.up().link.stop(TIMEOUT)
    assert not rig.link.post(int)
    assert not rig.is_alive()


def test_job_that_fails_between_connections_does_not_hide_why_the_next_one_ends(
    make_rig: MakeRig, proxy: Proxy, proxied: str
) -> None:
    proxy.refuse()
    rig = make_rig(proxied.replace("guest:guest", "guest:wrong")).start()
    rig.next_end()
    rig.next_end()
    rig.link.post(lambda: {}["missing"])  # while it waits to try again
    rig.run(int)
    proxy.accept()
    with pytest.raises(BrokerRefused, match="guest"):
        rig.link.wait_up(Deadline(TIMEOUT))
    rig.wait_gone()
    while not rig.events.ended.empty():
        assert "missing" not in str(rig.next_end())


# Waiting for it to be up


def test_link_is_up_when_the_session_says_so(make_rig: MakeRig, broker_uri: str) -> None:
    rig = make_rig(broker_uri)
    rig.events.on_begin = lambda _: None
    rig.start()
    connection = rig.next_begun()
    assert not rig.link.is_up
    with pytest.raises(BrokerUnavailable):
        rig.link.wait_up(Deadline(0.0))
    rig.run(rig.link.came_up)
    rig.link.wait_up(Deadline(0.0))
    assert rig.link.is_up
    assert rig.run(lambda: rig.link.connection) is connection
    assert rig.link.frame_max == connection.frame_max


@pytest.mark.parametrize("kind", ["password", "vhost"])
def test_refusal_for_good_is_raised_at_once_and_ends_the_thread(
    make_rig: MakeRig, broker_uri: str, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    uri = broker_uri.rstrip("/")
    uri = uri.replace("guest:guest", "guest:wrong") if kind == "password" else f"{uri}/missing"
    rig = make_rig(uri).start()
    waiters = 3
    errors: queue.SimpleQueue[BaseException] = queue.SimpleQueue()

    def wait() -> None:
        try:
            rig.link.wait_up(Deadline(None))
        except BrokerRefused as error:
            errors.put(error)

    for _ in range(waiters):
        threading.Thread(target=wait, daemon=True).start()
    raised = [errors.get(timeout=TIMEOUT) for _ in range(waiters)]
    assert len({id(error) for error in raised}) == waiters  # or tracebacks would pile up on one
    assert ("login" if kind == "password" else "missing") in str(raised[0])
    rig.wait_gone()
    error, killed = rig.events.abandoned.get(timeout=TIMEOUT)
    assert (type(error), killed) == (BrokerRefused, False)
    assert [r for r in caplog.records if r.levelno >= logging.WARNING] == []


def test_refusal_that_a_session_meets_at_first_contact_is_for_good(
    make_rig: MakeRig, broker_uri: str
) -> None:
    rig = make_rig(broker_uri)
    rig.events.on_begin = lambda _: rig.link.reset(BrokerRefused("other arguments"))
    with pytest.raises(BrokerRefused, match="other arguments"):
        rig.up()
    rig.wait_gone()


def test_refusal_after_it_was_up_is_awaited(make_rig: MakeRig, broker_uri: str) -> None:
    rig = make_rig(broker_uri).up()
    rig.next_begun()
    rig.run(lambda: rig.link.reset(BrokerRefused("for a while")))
    assert str(rig.next_end()) == "for a while"
    rig.next_begun()
    rig.link.wait_up(Deadline(TIMEOUT))


def test_absent_broker_is_an_error_when_the_deadline_has_passed(
    make_rig: MakeRig, nowhere: str
) -> None:
    rig = make_rig(nowhere).start()
    rig.next_end()
    with pytest.raises(BrokerUnavailable, match="in time") as caught:
        rig.link.wait_up(Deadline(0.05))
    assert "guest:guest" not in str(caught.value)
    assert "refused" in str(caught.value).lower()
    assert rig.is_alive()


def test_broker_that_comes_late_is_awaited(make_rig: MakeRig, proxy: Proxy, proxied: str) -> None:
    proxy.refuse()
    rig = make_rig(proxied).start()
    rig.next_end()
    rig.next_end()
    proxy.accept()
    rig.link.wait_up(Deadline(TIMEOUT))


@pytest.mark.parametrize("end", ["stop", "kill", "interrupt"])
@pytest.mark.parametrize("started", [True, False])
def test_those_who_wait_are_woken_when_the_link_is_given_up(
    make_rig: MakeRig, nowhere: str, end: str, started: bool
) -> None:
    rig = make_rig(nowhere)
    if started:
        rig.start()
    raised: queue.SimpleQueue[BaseException] = queue.SimpleQueue()
    deadline = Asked()

    def wait() -> None:
        try:
            rig.link.wait_up(deadline)
        except ThreadkoError as error:
            raised.put(error)

    threading.Thread(target=wait, daemon=True).start()
    assert deadline.waited_for.wait(TIMEOUT)
    if end == "stop":
        assert rig.link.stop(TIMEOUT)
    else:
        getattr(rig.link, end)()
    assert isinstance(raised.get(timeout=TIMEOUT), ContainerStopped)


def test_interrupting_does_not_touch_a_link_that_is_up_or_comes_up(
    make_rig: MakeRig, proxy: Proxy, proxied: str
) -> None:
    rig = make_rig(proxied).up()
    rig.next_begun()
    rig.link.interrupt()
    rig.link.wait_up(Deadline(0.0))
    proxy.cut()
    rig.next_begun()
    assert rig.run(lambda: rig.link.is_up)
    rig.link.wait_up(Deadline(0.0))


# Coming back


@pytest.mark.parametrize("fault", ["cut", "reset"])
def test_lost_connection_is_made_anew_with_a_new_generation(
    make_rig: MakeRig, proxy: Proxy, proxied: str, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    caplog.set_level(logging.INFO)
    rig = make_rig(proxied).up()
    first = rig.next_begun()
    getattr(proxy, fault)()
    assert isinstance(rig.next_end(), BrokerError)
    second = rig.next_begun()
    assert second is not first
    rig.link.wait_up(Deadline(TIMEOUT))
    assert rig.run(lambda: rig.link.generation) == 2
    lines = [r.getMessage() for r in caplog.records if r.name == "threadko.amqp.link"]
    assert [line.partition(":")[0] for line in lines] == [rig.name] * len(lines)
    assert "lost the connection to" in lines[0]
    assert "again" in lines[-1]
    assert not any("guest:guest" in line for line in lines)


def test_lost_link_is_not_up_until_it_is_back(
    make_rig: MakeRig, proxy: Proxy, proxied: str
) -> None:
    rig = make_rig(proxied).up()
    proxy.refuse()
    proxy.cut()
    rig.next_end()
    assert not rig.link.is_up
    with pytest.raises(BrokerUnavailable):
        rig.link.wait_up(Deadline(0.0))
    proxy.accept()
    rig.link.wait_up(Deadline(TIMEOUT))


def test_connection_closed_by_the_broker_is_made_anew(make_rig: MakeRig, broker: Broker) -> None:
    rig = make_rig(broker.uri).start()
    peer = broker.open()
    rig.next_begun()
    peer.send(Method(0, spec.Connection.Close(320, "CONNECTION_FORCED", 0, 0)).marshal())
    assert "CONNECTION_FORCED" in str(rig.next_end())
    broker.open()
    rig.next_begun()


def test_session_resets_the_connection_with_its_own_reason(
    make_rig: MakeRig, broker_uri: str
) -> None:
    rig = make_rig(broker_uri).up()
    rig.next_begun()
    rig.run(lambda: rig.link.reset(BrokerError("confirms nothing")))
    assert str(rig.next_end()) == "confirms nothing"
    rig.next_begun()


def test_reset_between_connections_does_nothing(make_rig: MakeRig, nowhere: str) -> None:
    rig = make_rig(nowhere).start()
    rig.next_end()
    rig.run(lambda: rig.link.reset(BrokerError("none")))
    assert "none" not in str(rig.next_end())


def test_pause_between_attempts_is_short_again_once_the_link_was_up(
    make_rig: MakeRig, proxy: Proxy, proxied: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy.refuse()
    rig = make_rig(proxied)
    pauses: list[float] = []
    usual = rig.link._backoff
    monkeypatch.setattr(rig.link, "_backoff", lambda: pauses.append(usual()) or pauses[-1])
    rig.start()
    for _ in range(4):
        rig.next_end()
    proxy.accept()
    rig.next_begun()
    proxy.cut()
    rig.next_begun()
    # The fifth pause in a row is at least 1.6 s long, the first at most 0.2 s.
    assert pauses[-1] <= 0.2


def test_connection_that_never_gets_usable_does_not_shorten_the_pause(
    make_rig: MakeRig, broker_uri: str
) -> None:
    rig = make_rig(broker_uri)
    rig.events.on_begin = lambda _: rig.link.reset(BrokerError("not today"))
    began = time.monotonic()
    rig.start()
    for _ in range(4):
        rig.next_end()
    assert time.monotonic() - began > 0.05 + 0.1 + 0.2


def test_connection_that_is_not_usable_in_time_is_made_anew(
    make_rig: MakeRig, broker_uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    rig = make_rig(broker_uri, answer_timeout=0.1)
    usual, rig.events.on_begin = rig.events.on_begin, lambda _: None
    rig.start()
    for _ in range(2):
        rig.next_begun()
        assert "has not answered what is declared and consumed" in str(rig.next_end())
    rig.events.on_begin = usual
    rig.link.wait_up(Deadline(TIMEOUT))
    connection = rig.run(lambda: rig.link.connection)
    rig.let_pass(0.5)
    assert rig.run(lambda: rig.link.connection) is connection
    lines = [record.getMessage() for record in caplog.records]
    assert all("cannot connect to" in line and "has not answered" in line for line in lines), lines


def test_broker_that_blocks_us_has_all_the_time_to_answer(
    make_rig: MakeRig, broker: Broker
) -> None:
    rig = make_rig(broker.uri, answer_timeout=1.0)
    rig.events.on_begin = lambda _: None
    rig.start()
    peer = broker.open()
    peer.send(Method(0, spec.Connection.Blocked("low on memory")).marshal())
    connection = rig.next_begun()
    while not rig.run(lambda: connection.blocked):
        pass
    rig.let_pass(2.0)
    assert rig.run(lambda: rig.link.connection) is connection
    peer.send(Method(0, spec.Connection.Unblocked()).marshal())
    assert "has not answered" in str(rig.next_end())


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"AMQP\x00\x00\x09\x02"]
)
def test_peer_that_is_no_broker_is_tried_again(
    make_rig: MakeRig, broker: Broker, answer: bytes
) -> None:
    rig = make_rig(broker.uri).start()
    for _ in range(2):
        peer = broker.accept()
        peer.send(answer)
        peer.sock.close()
        assert not isinstance(rig.next_end(), BrokerRefused)
    broker.open()
    rig.link.wait_up(Deadline(TIMEOUT))


@pytest.mark.long
def test_silent_peer_is_noticed_by_its_missing_heartbeats(
    make_rig: MakeRig, proxy: Proxy, proxied: str, figure: Callable[[str, str], None]
) -> None:
    rig = make_rig(proxied, heartbeat=1).up()
    proxy.hole(up=False, down=True)
    begun = time.monotonic()
    assert "activity" in str(rig.next_end())
    figure("hole-idle", f"{time.monotonic() - begun:.1f} s")
    proxy.heal()
    rig.link.wait_up(Deadline(TIMEOUT))


@pytest.mark.long
def test_large_message_that_trickles_in_counts_as_activity(
    make_rig: MakeRig, broker: Broker
) -> None:
    rig = make_rig(broker.uri, heartbeat=1).start()
    peer = broker.open(heartbeat=1)
    connection = rig.next_begun()
    frame = Heartbeat().marshal()
    long = bytes([3, 0, 1]) + (1000).to_bytes(4, "big")  # the start of a frame never completed
    peer.send(frame + Method(1, spec.Basic.Deliver("c", 1, False, "", "")).marshal())
    peer.send(Header(1, 1000, pika.BasicProperties()).marshal() + long)
    stop = threading.Event()
    # Two of the driver's intervals of heartbeat + 5 s: within one the first bytes would do.
    for _ in range(26):
        assert not stop.wait(0.5)
        peer.send(b"x")
    assert rig.events.ended.empty()
    assert rig.run(lambda: rig.link.connection) is connection


def test_refused_attempts_are_logged_in_one_line_each(
    make_rig: MakeRig, nowhere: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    rigs = [make_rig(nowhere).start() for _ in range(25)]
    for rig in rigs:
        for _ in range(4):
            rig.next_end()
    for rig in rigs:
        assert rig.link.stop(TIMEOUT)
    # The first, the second and the fourth; that is told to the session before it is logged.
    assert 25 * 2 <= len(caplog.records) <= 25 * 3
    assert {record.name for record in caplog.records} == {"threadko.amqp.link"}
    assert all(record.exc_info is None for record in caplog.records)
    assert not any("\n" in record.getMessage() for record in caplog.records)


def test_name_that_cannot_be_resolved_is_logged_in_one_line_and_tried_again(
    make_rig: MakeRig, caplog: pytest.LogCaptureFixture
) -> None:
    rig = make_rig("amqp://no-such-host.invalid/").start()
    rig.next_end()
    rig.next_end()
    assert rig.link.stop(TIMEOUT)
    assert {record.name for record in caplog.records} == {"threadko.amqp.link"}
    assert len(caplog.records) <= 3


def count_descriptors() -> int:
    return len(list(Path("/dev/fd").iterdir()))


def test_neither_descriptors_nor_threads_are_left_by_refusals_and_losses(
    make_rig: MakeRig, nowhere: str, proxy: Proxy, proxied: str
) -> None:
    rig = make_rig(proxied).up()  # so that all that is made once is made
    rig.next_begun()
    refused = [make_rig(nowhere).start() for _ in range(25)]
    threads, descriptors = threading.active_count(), count_descriptors()
    for _ in range(10):
        proxy.cut()
        rig.next_begun()
    for each in refused:
        for _ in range(4):
            each.next_end()
    # Each link that waits has a loop; whether it has a socket just now is chance.
    assert threading.active_count() <= threads + 25
    assert count_descriptors() <= descriptors + 2 * 25 + 10
    for each in refused:
        assert each.link.stop(TIMEOUT)
    assert rig.link.stop(TIMEOUT)
    proxy.wait_for(lambda: proxy.connections == 0)
    assert threading.active_count() <= threads - 26
    assert count_descriptors() <= descriptors - 26 * 2


FULL = """
import errno, os, resource, sys, threading
from threadko.amqp.link import Link
from threadko.amqp.parameters import BrokerParameters
from threadko.concurrency.deadline import Deadline
import logging

logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s", stream=sys.stdout)
full, up_again = threading.Event(), threading.Event()
taken = []

def fill():
    while True:
        try:
            taken.append(os.dup(0))
        except OSError as error:
            assert error.errno == errno.EMFILE
            return

class Session:
    ends = 0
    def begin(self, connection):
        link.came_up()
        if self.ends:
            up_again.set()
    def end(self, error):
        self.ends += 1
        if self.ends <= 3:
            fill()
        if self.ends == 3:
            full.set()
    def turn(self):
        pass
    def finish(self):
        link.finished()
    def abandon(self, error, killed):
        pass

link = Link(BrokerParameters.from_uri(sys.argv[1]), name="threadko-a-b-1", session=Session())
link.start()
link.wait_up(Deadline(20))
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
link.post(lambda: link.reset(OSError("cut")))
assert full.wait(20), "no further attempts"
ran = threading.Event()
assert link.post(ran.set)
assert ran.wait(20), "posted jobs do not run"
for descriptor in taken:
    os.close(descriptor)
assert up_again.wait(20), "not up again"
assert link.stop(20)
"""


NARROW = """
import os, resource, sys
from threadko.amqp.loop import Loop

resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
taken = []
try:
    while True:
        taken.append(os.dup(0))
except OSError:
    pass
outcomes = []
for free in range(12):
    try:
        loop = Loop(lambda: None)
        loop.stop()
        loop.start()
        loop.close()
        outcomes.append(True)
    except OSError:
        outcomes.append(False)
    refilled = []
    try:
        while True:
            refilled.append(os.dup(0))
    except OSError:
        pass
    assert len(refilled) == free, (free, len(refilled))
    for descriptor in [*refilled, taken.pop()]:
        os.close(descriptor)
assert outcomes == sorted(outcomes) and set(outcomes) == {True, False}, outcomes
"""


def test_loop_that_finds_too_few_descriptors_leaves_none_of_them_open() -> None:
    subprocess.run(
        [sys.executable, "-X", "dev", "-c", NARROW], check=True, timeout=TIMEOUT, text=True
    )


def test_link_survives_a_process_that_has_no_descriptors_left(broker_uri: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL, broker_uri],
        timeout=3 * TIMEOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert all(re.match("WARNING threadko-a-b-1: (lost|cannot)", line) for line in lines), lines
    assert len(lines) <= 8


# Timers


def test_timers_run_in_order_on_the_links_thread_connected_or_not(
    make_rig: MakeRig, nowhere: str, broker_uri: str
) -> None:
    for rig in (make_rig(nowhere).start(), make_rig(broker_uri).up()):
        ran: queue.SimpleQueue[tuple[int, str]] = queue.SimpleQueue()

        def add(rig: Rig = rig, ran: Any = ran) -> None:
            now = time.monotonic()
            for number in (3, 1, 2):
                rig.link.call_at(
                    now + number * 0.02,
                    lambda number=number: ran.put((number, threading.current_thread().name)),
                )
            cancelled = rig.link.call_at(now, lambda: ran.put((0, "")))
            rig.link.cancel_timer(cancelled)

        rig.run(add)
        got = [ran.get(timeout=TIMEOUT) for _ in range(3)]
        assert got == [(1, rig.name), (2, rig.name), (3, rig.name)]


def test_timer_outlives_the_connections_in_between(
    make_rig: MakeRig, proxy: Proxy, proxied: str
) -> None:
    rig = make_rig(proxied).up()
    rig.next_begun()
    ran = threading.Event()
    # On a machine that is too busy it runs before the last cut, and is tested by the others.
    rig.run(lambda: rig.link.call_at(time.monotonic() + 1.0, ran.set))
    for _ in range(3):
        proxy.cut()
        rig.next_begun()
    assert ran.wait(TIMEOUT)


def test_timer_that_is_due_before_the_others_is_not_kept_waiting(
    make_rig: MakeRig, broker_uri: str
) -> None:
    rig = make_rig(broker_uri).up()
    ran = threading.Event()
    rig.run(lambda: rig.link.call_at(time.monotonic() + 100 * TIMEOUT, int))
    rig.run(lambda: rig.link.call_at(time.monotonic() + 0.01, ran.set))
    assert ran.wait(TIMEOUT)


def test_timer_is_never_early(make_rig: MakeRig, broker_uri: str) -> None:
    rig = make_rig(broker_uri).up()
    late: queue.SimpleQueue[float] = queue.SimpleQueue()

    def add() -> None:
        for delay in (0.05, 0.0, 0.03):
            at = time.monotonic() + delay
            rig.link.call_at(at, lambda at=at: late.put(time.monotonic() - at))

    rig.run(add)
    assert all(late.get(timeout=TIMEOUT) >= 0 for _ in range(3))


def test_timer_that_fails_does_not_stop_the_next(make_rig: MakeRig, broker_uri: str) -> None:
    rig = make_rig(broker_uri).up()
    ran = threading.Event()

    def fail() -> None:
        raise SystemExit("timer")

    def add() -> None:
        rig.link.call_at(time.monotonic(), fail)
        rig.link.call_at(time.monotonic() + 0.01, ran.set)

    rig.run(add)
    assert ran.wait(TIMEOUT)
    assert "timer" in str(rig.next_end())


# Writing


def test_more_than_the_socket_takes_arrives_whole_and_in_order(
    make_rig: MakeRig, broker: Broker
) -> None:
    rig = make_rig(broker.uri).start()
    peer = broker.open()
    connection = rig.next_begun()
    pieces = [bytes([number]) * (1 << 20) for number in range(16)]
    hold = threading.Event()

    def write_all() -> None:
        for piece in pieces[:8]:
            connection.write(piece)

    rig.run(write_all)
    for piece in pieces[8:]:  # more turns, while the first still waits for the socket
        rig.run(lambda piece=piece: connection.write(piece))
    assert not hold.is_set()
    assert peer.receive(16 << 20) == b"".join(pieces)


def test_session_writes_at_the_end_of_each_turn(make_rig: MakeRig, broker: Broker) -> None:
    rig = make_rig(broker.uri)
    saved: list[bytes] = []

    def write_saved() -> None:
        if saved and rig.link.connection is not None:
            rig.link.connection.write(b"".join(saved))
            saved.clear()

    rig.events.on_turn = write_saved
    rig.start()
    peer = broker.open()
    rig.next_begun()
    rig.run(lambda: saved.extend([b"one", b"two"]))
    assert peer.receive(6) == b"onetwo"


def test_nothing_is_sent_after_the_kill_not_even_in_the_same_turn(
    make_rig: MakeRig, broker: Broker
) -> None:
    rig = make_rig(broker.uri).start()
    peer = broker.open()
    connection = rig.next_begun()
    hold = threading.Event()
    rig.link.post(lambda: hold.wait(TIMEOUT))
    rig.link.kill()
    rig.link.post(lambda: connection.write(b"late"))
    hold.set()
    rig.wait_gone()
    assert peer.receive_all() == b""


# Stopping and killing

BOUND_SECONDS = 5.0


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < seconds


STATES = ["black hole", "handshake", "backing off", "up", "beginning", "behind a hole", "hung"]


@pytest.fixture(params=STATES)
def somewhere(
    request: pytest.FixtureRequest,
    make_rig: MakeRig,
    broker: Broker,
    nowhere: str,
    proxy: Proxy,
    proxied: str,
) -> Rig:
    """A link in some state."""
    state = request.param
    if state == "black hole":  # its connection is accepted by the kernel, and by nobody else
        rig = make_rig(broker.uri).start()
        rig.run(int)
    elif state == "handshake":
        rig = make_rig(broker.uri).start()
        broker.accept().receive(8)
    elif state == "backing off":
        rig = make_rig(nowhere).start()
        rig.next_end()
        rig.next_end()
    else:
        rig = make_rig(proxied)
        if state == "beginning":
            rig.events.on_begin = lambda _: None
        rig.start()
        rig.next_begun()
        if state == "behind a hole":
            proxy.hole()
        rig.events.finishes = state != "hung"
    return rig


def test_stop_ends_the_link_in_time_in_any_state(
    somewhere: Rig, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    state = request.node.callspec.params["somewhere"]
    stuck = state in ("behind a hole", "hung")
    with within(BOUND_SECONDS):
        assert somewhere.link.stop(0.3 if stuck else TIMEOUT) is not stuck
    assert not somewhere.is_alive()
    assert somewhere.events.finishing.is_set()
    _, killed = somewhere.events.abandoned.get(timeout=TIMEOUT)
    assert killed is stuck
    assert somewhere.events.abandoned.empty()
    assert [r for r in caplog.records if r.levelno >= logging.ERROR] == []


def test_kill_ends_the_link_at_once_in_any_state(
    somewhere: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    with within(BOUND_SECONDS):
        somewhere.link.kill()
        somewhere.link.kill()
        somewhere.wait_gone()
    assert not somewhere.events.finishing.is_set()
    _, killed = somewhere.events.abandoned.get(timeout=TIMEOUT)
    assert killed
    assert not somewhere.link.is_up
    assert [r for r in caplog.records if r.levelno >= logging.ERROR] == []


def test_kill_overtakes_a_stop(make_rig: MakeRig, broker_uri: str) -> None:
    rig = make_rig(broker_uri).up()
    rig.events.finishes = False
    answers: queue.SimpleQueue[bool] = queue.SimpleQueue()
    thread = threading.Thread(target=lambda: answers.put(rig.link.stop(10 * TIMEOUT)))
    thread.start()
    assert rig.events.finishing.wait(TIMEOUT)
    rig.link.kill()
    assert answers.get(timeout=TIMEOUT) is False
    thread.join(TIMEOUT)


def test_stop_and_kill_may_be_repeated_by_many_threads(make_rig: MakeRig, broker_uri: str) -> None:
    for _ in range(10):
        rig = make_rig(broker_uri).up()
        start = threading.Barrier(4)
        answers: queue.SimpleQueue[bool] = queue.SimpleQueue()

        def stop(rig: Rig = rig, start: Any = start, answers: Any = answers) -> None:
            start.wait(TIMEOUT)
            answers.put(rig.link.stop(TIMEOUT))

        threads = [threading.Thread(target=stop) for _ in range(4)]
        for thread in threads:
            thread.start()
        assert [answers.get(timeout=TIMEOUT) for _ in range(4)] == [True] * 4
        for thread in threads:
            thread.join(TIMEOUT)
        assert rig.link.stop(TIMEOUT)
        assert rig.events.abandoned.get(timeout=TIMEOUT)[1] is False
        assert rig.events.abandoned.empty()


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_link_that_was_ended_before_it_began_never_begins(
    make_rig: MakeRig, nowhere: str, end: str
) -> None:
    rig = make_rig(nowhere)
    assert rig.link.stop(0.0) if end == "stop" else not rig.link.kill()
    rig.start()
    assert not rig.is_alive()
    assert not rig.link.post(int)


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_link_ends_though_it_is_started_at_the_same_moment(
    make_rig: MakeRig, nowhere: str, end: str
) -> None:
    for _ in range(200):
        rig = make_rig(nowhere)
        start = threading.Barrier(2)

        def begin(rig: Rig = rig, start: Any = start) -> None:
            start.wait(TIMEOUT)
            rig.link.start()

        thread = threading.Thread(target=begin)
        thread.start()
        start.wait(TIMEOUT)
        if end == "kill":
            rig.link.kill()
        else:
            assert rig.link.stop(TIMEOUT)
        thread.join(TIMEOUT)
        rig.wait_gone()


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_link_ends_though_it_is_started_before_its_end_is_posted(nowhere: str, end: str) -> None:
    class Raced(Link):
        def post(self, job: Callable[[], None]) -> bool:
            accepted = super().post(job)
            self.start()  # as another thread may, just then
            return accepted

    events = Events()
    parameters = BrokerParameters.from_uri(nowhere)
    link = Raced(parameters, name=f"threadko-test-link-{next(Numbers)}", session=events)
    if end == "stop":
        assert link.stop(0.1)
    else:
        link.kill()
    assert not link.post(int)  # and no thread is left behind, see conftest.py


def test_second_start_changes_nothing(make_rig: MakeRig, broker_uri: str) -> None:
    rig = make_rig(broker_uri).up()
    thread = rig.run(threading.current_thread)
    rig.start()
    assert rig.run(threading.current_thread) is thread


def test_start_that_gets_no_thread_raises_and_may_be_repeated(
    make_rig: MakeRig, broker_uri: str
) -> None:
    rig = make_rig(broker_uri)
    before = threading.stack_size(1 << 46)
    descriptors = count_descriptors()
    try:
        with pytest.raises(RuntimeError):
            rig.start()
    finally:
        threading.stack_size(before)
    assert not rig.link.post(int)
    assert count_descriptors() <= descriptors
    rig.up()


def test_stop_on_the_links_own_thread_only_begins_it(make_rig: MakeRig, broker_uri: str) -> None:
    rig = make_rig(broker_uri).up()
    assert rig.run(lambda: rig.link.stop(TIMEOUT)) is False
    rig.wait_gone()
    assert rig.events.abandoned.get(timeout=TIMEOUT)[1] is False


def test_session_is_told_to_finish_only_once(make_rig: MakeRig, broker_uri: str) -> None:
    rig = make_rig(broker_uri).up()
    told: list[int] = []
    rig.events.finish = lambda: told.append(1)  # type: ignore[method-assign]
    for _ in range(3):
        assert rig.run(lambda: rig.link.stop(TIMEOUT)) is False
    rig.run(rig.link.finished)
    rig.wait_gone()
    assert told == [1]


def test_connection_is_closed_politely_by_stop_and_without_a_word_by_kill(
    make_rig: MakeRig, broker: Broker
) -> None:
    stopped = make_rig(broker.uri).start()
    peer = broker.open()
    stopped.next_begun()
    thread = threading.Thread(target=stopped.link.stop, args=(TIMEOUT,))
    thread.start()
    assert peer.expect(spec.Connection.Close).reply_code == 200
    peer.send(Method(0, spec.Connection.CloseOk()).marshal())
    thread.join(TIMEOUT)
    killed = make_rig(broker.uri).start()
    peer = broker.open()
    killed.next_begun()
    killed.link.kill()
    assert peer.receive_all() == b""


def test_connection_lost_while_finishing_is_made_anew(
    make_rig: MakeRig, proxy: Proxy, proxied: str
) -> None:
    rig = make_rig(proxied).up()
    rig.next_begun()
    rig.events.finishes = False
    answers: queue.SimpleQueue[bool] = queue.SimpleQueue()
    thread = threading.Thread(target=lambda: answers.put(rig.link.stop(TIMEOUT)))
    thread.start()
    assert rig.events.finishing.wait(TIMEOUT)
    proxy.cut()
    rig.next_begun()
    rig.link.post(rig.link.finished)
    assert answers.get(timeout=TIMEOUT) is True
    thread.join(TIMEOUT)


@pytest.mark.long
def test_job_that_holds_the_thread_makes_stop_give_up_in_time(
    make_rig: MakeRig, broker_uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    rig = make_rig(broker_uri).up()
    hold = threading.Event()
    rig.link.post(lambda: hold.wait(2 * TIMEOUT))
    with within(BOUND_SECONDS + 3):
        assert rig.link.stop(0.1) is False
    assert "did not end" in caplog.text
    hold.set()
    rig.wait_gone()


# Several nodes


def test_next_node_is_tried_at_once_when_one_fails(
    make_rig: MakeRig, nowhere: str, broker_uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    rig = make_rig([nowhere, nowhere, broker_uri]).up()
    assert rig.run(lambda: rig.link.parameters.port) == BrokerParameters.from_uri(broker_uri).port
    assert caplog.text.count("cannot connect to") == 2


def test_lost_node_is_followed_by_the_next_and_it_goes_round(
    make_rig: MakeRig, broker_uri: str
) -> None:
    with Proxy.for_uri(broker_uri) as first, Proxy.for_uri(broker_uri) as second:
        rig = make_rig([first.uri_for(broker_uri), second.uri_for(broker_uri)]).up()
        for here, there in ((first, second), (second, first), (first, second)):
            rig.next_begun()
            here.wait_for(lambda here=here: here.connections == 1)
            there.wait_for(lambda there=there: there.connections == 0)
            here.cut()
        rig.next_begun()


def test_start_ends_only_when_every_node_refuses_for_good(
    make_rig: MakeRig, broker_uri: str
) -> None:
    wrong = broker_uri.replace("guest:guest", "guest:wrong")
    assert wrong != broker_uri
    assert make_rig([wrong, broker_uri]).up().link.is_up
    rig = make_rig([wrong, wrong]).start()
    with pytest.raises(BrokerRefused, match="login"):
        rig.link.wait_up(Deadline(TIMEOUT))


def test_node_that_is_away_keeps_the_hope_up(
    make_rig: MakeRig, broker_uri: str, nowhere: str
) -> None:
    wrong = broker_uri.replace("guest:guest", "guest:wrong")
    rig = make_rig([wrong, nowhere]).start()
    for _ in range(6):
        rig.next_end()
    assert rig.is_alive()
