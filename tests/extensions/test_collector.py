"""Collecting providers."""

import threading

import pytest

from tests.containers.dummies import FakeContainer, in_thread
from threadko.extensions import ProviderCollector, SharedExtension


class Server(ProviderCollector, SharedExtension):
    pass


def make() -> Server:
    server: Server = Server().bind(FakeContainer())
    return server


def test_nothing_is_waited_for_when_nobody_registered() -> None:
    make().wait_for_providers(timeout=0)


def test_stop_returns_when_the_last_provider_has_unregistered() -> None:
    server = make()
    server.register_provider("a")
    server.register_provider("b")
    stop = in_thread(server.stop)
    server.unregister_provider("a")
    assert not stop.is_over
    server.unregister_provider("b")
    assert stop.finish() is None


def test_providers_stand_in_the_order_of_registration() -> None:
    server = make()
    server.register_provider("b")
    server.register_provider("a")
    assert server.providers == ("b", "a")


def test_waiting_fails_when_time_is_up() -> None:
    server = make()
    server.register_provider("a")
    with pytest.raises(TimeoutError, match="1 providers"):
        server.wait_for_providers(timeout=0)


def test_nothing_happens_when_a_stranger_unregisters() -> None:
    server = make()
    server.register_provider("a")
    server.unregister_provider("stranger")
    with pytest.raises(TimeoutError):
        server.wait_for_providers(timeout=0)


def test_waiting_ends_when_killed() -> None:
    server = make()
    server.register_provider("a")
    stop = in_thread(server.stop)
    server.kill()
    assert stop.finish() is None


def test_no_registration_is_lost_when_many_threads_come_and_go() -> None:
    server = make()
    barrier = threading.Barrier(8)

    def come_and_go(number: int) -> None:
        barrier.wait()
        for step in range(100):
            server.register_provider((number, step))
            server.unregister_provider((number, step))
        server.register_provider(number)

    calls = [in_thread(lambda number=number: come_and_go(number)) for number in range(8)]
    assert [call.finish() for call in calls] == [None] * 8
    for number in range(7):
        server.unregister_provider(number)
    with pytest.raises(TimeoutError):
        server.wait_for_providers(timeout=0)
    server.unregister_provider(7)
    server.wait_for_providers(timeout=0)
