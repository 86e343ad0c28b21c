"""Deadlines. The clock moves during a test, so bounds are asserted, not values."""

import math
import threading
import time

import pytest

from threadko.concurrency.deadline import Deadline


def test_no_timeout_never_expires() -> None:
    deadline = Deadline(None)
    assert (deadline.remaining(), deadline.expired, deadline.expires_at) == (None, False, None)


def test_a_timeout_counts_down_on_the_monotonic_clock() -> None:
    before = time.monotonic()
    deadline = Deadline(1000.0)
    assert deadline.expires_at is not None
    assert before + 1000 <= deadline.expires_at <= time.monotonic() + 1000
    first = deadline.remaining()
    second = deadline.remaining()
    assert first is not None
    assert second is not None
    assert 1000 >= first >= second > 900
    assert not deadline.expired


@pytest.mark.parametrize("timeout", [0, 0.0, -5, -math.inf])
def test_no_time_at_all_is_expired_and_never_negative(timeout: float) -> None:
    deadline = Deadline(timeout)
    assert (deadline.remaining(), deadline.expired) == (0.0, True)


@pytest.mark.parametrize("timeout", [math.inf, 1e300])
def test_an_immense_timeout_suits_every_wait_function(timeout: float) -> None:
    event = threading.Event()
    event.set()
    assert event.wait(Deadline(timeout).remaining())


def test_nan_is_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        Deadline(math.nan)


def test_repr_shows_what_is_left() -> None:
    assert repr(Deadline(None)) == "<Deadline remaining=None>"
