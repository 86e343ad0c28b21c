import os
import signal
import threading

import pytest

from tests.support.timing import TIMEOUT
from threadko.cli.inbox import DUMP, Inbox, handling_signals


@pytest.fixture
def inbox():
    made = Inbox()
    yield made
    made.close()


def test_messages_come_in_their_order_and_signals_as_numbers(inbox):
    for message in ("a", "b"):
        inbox.put(message)
    inbox.put(signal.SIGTERM)
    assert [inbox.get(TIMEOUT) for _ in range(3)] == ["a", "b", signal.SIGTERM]


@pytest.mark.parametrize("timeout", [0, 0.01])
def test_nothing_comes_within_the_timeout(inbox, timeout):
    assert inbox.get(timeout) is None


def test_message_of_another_thread_ends_the_wait(inbox):
    sender = threading.Thread(target=inbox.put, args=("late",))
    sender.start()
    assert inbox.get() == "late"
    sender.join(TIMEOUT)


def test_signals_of_the_process_are_heard_others_passed_over_and_handlers_restored(inbox):
    def never(number, frame):
        raise AssertionError(number)

    former = signal.signal(signal.SIGUSR2, lambda number, frame: None)
    try:
        with handling_signals(never, (signal.SIGTERM, DUMP)):
            with inbox.hearing_signals():
                for number in (signal.SIGUSR2, signal.SIGTERM, DUMP):
                    os.kill(os.getpid(), number)
                assert {inbox.get(TIMEOUT), inbox.get(TIMEOUT)} == {signal.SIGTERM, DUMP}
            assert signal.getsignal(signal.SIGTERM) is never
            assert signal.set_wakeup_fd(-1) == -1
    finally:
        signal.signal(signal.SIGUSR2, former)


def test_hangup_stops_and_is_passed_over_behind_what_stops_already(inbox):
    for number in (
        signal.SIGHUP,
        DUMP,
        signal.SIGHUP,
        signal.SIGTERM,
        signal.SIGHUP,
        signal.SIGINT,
    ):
        inbox.put(number)
    heard = [inbox.get(TIMEOUT) for _ in range(4)]
    assert heard == [signal.SIGHUP, DUMP, signal.SIGTERM, signal.SIGINT]
    assert inbox.get(0) is None


def test_hangup_stays_ignored_where_nohup_has_said_so(inbox):
    former = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with inbox.hearing_signals():
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) != signal.SIG_IGN
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        with inbox.hearing_signals():
            os.kill(os.getpid(), signal.SIGHUP)
            assert inbox.get(TIMEOUT) == signal.SIGHUP
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, former)


def test_closed_inbox_takes_messages_without_a_word():
    made = Inbox()
    made.close()
    made.put("nobody reads")
    made.put(signal.SIGTERM)
