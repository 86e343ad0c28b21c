"""The loop of a connection thread: turns, wake-ups, timers and descriptors."""

import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.timing import TIMEOUT
from threadko.amqp.loop import Loop

MakeLoop = Callable[..., Loop]


@pytest.fixture(params=["as here", "without epoll"])
def make_loop(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[MakeLoop]:
    """Makes loops, also of the kind for systems without epoll, and closes them."""
    if request.param == "without epoll" and hasattr(select, "epoll"):
        monkeypatch.delattr(select, "epoll")
    made: list[Loop] = []

    def make(before_wait: Callable[[], Any] = lambda: None) -> Loop:
        made.append(Loop(before_wait))
        return made[-1]

    yield make
    for loop in made:
        loop.close()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    yield ours, theirs
    ours.close()
    theirs.close()


def run(loop: Loop) -> threading.Thread:
    thread = threading.Thread(target=loop.start, daemon=True)
    thread.start()
    return thread


def test_calls_back_before_each_wait_and_leaves_when_stopped(make_loop: MakeLoop) -> None:
    turns: list[str] = []
    loop = make_loop(lambda: turns.append("turn"))
    loop.add_callback_threadsafe(lambda: turns.append("callback"))
    loop.call_later(0, loop.stop)
    loop.start()
    assert turns[0] == "turn"
    assert turns[-1] == "turn"
    assert turns.count("callback") == 1


def test_stopped_before_it_starts_it_does_not_wait(make_loop: MakeLoop) -> None:
    turns: list[str] = []
    loop = make_loop(lambda: turns.append("turn"))
    loop.stop()
    loop.start()
    assert turns == ["turn"]


def test_it_runs_again_after_it_was_stopped(make_loop: MakeLoop) -> None:
    loop = make_loop()
    for _ in range(3):
        loop.add_callback_threadsafe(loop.stop)
        loop.start()


def test_callback_of_another_thread_wakes_it(make_loop: MakeLoop) -> None:
    waiting = threading.Event()
    loop = make_loop(waiting.set)
    thread = run(loop)
    assert waiting.wait(TIMEOUT)
    ran: list[int] = []
    for number in range(100):
        loop.add_callback_threadsafe(lambda number=number: ran.append(number))
    loop.add_callback_threadsafe(loop.stop)
    thread.join(TIMEOUT)
    assert ran == list(range(100))


def test_no_wake_up_is_lost(make_loop: MakeLoop) -> None:
    loop = make_loop()
    thread = run(loop)
    for _ in range(2_000):
        ran = threading.Event()
        loop.add_callback_threadsafe(ran.set)
        assert ran.wait(TIMEOUT)
    loop.add_callback_threadsafe(loop.stop)
    thread.join(TIMEOUT)
    assert not thread.is_alive()


def test_callback_that_posts_itself_lets_the_others_live(make_loop: MakeLoop) -> None:
    loop = make_loop()
    again = 0

    def post_again() -> None:
        nonlocal again
        again += 1
        loop.add_callback_threadsafe(post_again)

    post_again()
    loop.call_later(0.01, loop.stop)
    loop.start()
    assert again > 1


def test_timers_run_in_the_order_of_their_time(make_loop: MakeLoop) -> None:
    loop = make_loop()
    order: list[str] = []
    began = time.monotonic()
    loop.call_later(0.02, lambda: (order.append("last"), loop.stop()))
    loop.call_later(0.01, lambda: order.append("second"))
    loop.call_later(0, lambda: order.append("first"))
    loop.remove_timeout(loop.call_later(0, lambda: order.append("cancelled")))
    loop.start()
    assert order == ["first", "second", "last"]
    assert time.monotonic() - began >= 0.02


def test_it_waits_for_a_time_that_the_system_cannot_count_to(make_loop: MakeLoop) -> None:
    turns: list[str] = []

    def before_wait() -> None:
        turns.append("turn")
        if len(turns) == 1:  # it is about to wait, and can only be woken
            waiting.set()

    waiting = threading.Event()
    loop = make_loop(before_wait)
    loop.call_later(1e10, lambda: turns.append("too early"))
    thread = run(loop)
    assert waiting.wait(TIMEOUT)
    loop.add_callback_threadsafe(loop.stop)
    thread.join(TIMEOUT)
    assert not thread.is_alive()
    assert turns == ["turn", "turn"]


def test_it_comes_back_when_the_hook_asks_for_it(make_loop: MakeLoop) -> None:
    turns: list[float] = []
    at = time.monotonic() + 0.02

    def before_wait() -> float | None:
        turns.append(time.monotonic())
        if turns[-1] >= at:
            loop.stop()
        return at

    loop = make_loop(before_wait)
    loop.start()
    assert turns[-1] >= at


def test_handlers_hear_of_what_they_asked_for(
    make_loop: MakeLoop, pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = pair
    heard: list[tuple[int, int]] = []
    loop = make_loop()

    def note(fd: int, events: int) -> None:
        heard.append((fd, events))
        loop.stop()

    loop.add_handler(ours.fileno(), note, Loop.READ)
    theirs.send(b"x")
    loop.start()
    assert heard == [(ours.fileno(), Loop.READ)]
    loop.update_handler(ours.fileno(), Loop.READ | Loop.WRITE)
    loop.start()
    assert heard[1:] == [(ours.fileno(), Loop.READ | Loop.WRITE)]
    loop.remove_handler(ours.fileno())
    loop.call_later(0, loop.stop)
    loop.start()
    assert len(heard) == 2


def test_handler_can_be_put_in_the_place_of_another(
    make_loop: MakeLoop, pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = pair
    heard: list[str] = []
    loop = make_loop()
    loop.add_handler(ours.fileno(), lambda *_: heard.append("first"), Loop.READ)
    first = loop.divert(ours.fileno(), lambda *_: (heard.append("second"), loop.stop()))
    theirs.send(b"x")
    loop.start()
    first(ours.fileno(), Loop.READ)
    assert heard == ["second", "first"]


def test_handler_removed_in_the_same_turn_is_not_called(
    make_loop: MakeLoop, pair: tuple[socket.socket, socket.socket]
) -> None:
    heard: list[int] = []
    loop = make_loop()

    def remove_both(fd: int, _events: int) -> None:
        heard.append(fd)
        for each in pair:
            loop.remove_handler(each.fileno())
        loop.stop()

    for each in pair:
        each.send(b"x")
        loop.add_handler(each.fileno(), remove_both, Loop.READ)
    loop.start()
    assert len(heard) == 1


def test_handler_of_a_closed_descriptor_can_be_removed(make_loop: MakeLoop) -> None:
    reader, writer = os.pipe()
    loop = make_loop()
    loop.add_handler(reader, lambda *_: None, Loop.READ)
    os.close(reader)
    os.close(writer)
    loop.remove_handler(reader)
    loop.remove_handler(reader)


def test_all_descriptors_are_given_back() -> None:
    loop = Loop(lambda: None)
    loop.close()
    probe = os.dup(0)
    os.close(probe)
    for _ in range(50):
        Loop(lambda: None).close()
    again = os.dup(0)
    os.close(again)
    assert again == probe


def test_late_callback_is_not_written_to_a_descriptor_of_somebody_else(
    make_loop: MakeLoop,
) -> None:
    loop = make_loop()
    loop.close()
    # The numbers that the loop had are given again, lowest first.
    pipes = [os.pipe() for _ in range(4)]
    try:
        loop.add_callback_threadsafe(lambda: None)
        for reader, _ in pipes:
            os.set_blocking(reader, False)
            with pytest.raises(BlockingIOError):
                os.read(reader, 8)
    finally:
        for descriptor in (each for pipe in pipes for each in pipe):
            os.close(descriptor)


def test_callbacks_may_come_while_it_closes() -> None:
    for _ in range(200):
        loop = Loop(lambda: None)
        barrier = threading.Barrier(2, timeout=TIMEOUT)
        failed: list[BaseException] = []

        def post(
            loop: Loop = loop,
            barrier: threading.Barrier = barrier,
            failed: list[BaseException] = failed,
        ) -> None:
            barrier.wait()
            try:
                for _ in range(20):
                    loop.add_callback_threadsafe(lambda: None)
            except BaseException as error:
                failed.append(error)

        thread = threading.Thread(target=post)
        thread.start()
        barrier.wait()
        loop.close()
        thread.join(TIMEOUT)
        assert failed == []
