"""Workers that are handed to `spawn_worker` in the thread that calls it."""

import threading
from typing import Any

import pytest

from tests.support.timing import TIMEOUT
from threadko.containers.offers import Offer, Offers


def make_offers(spawn: Any = None) -> Offers:
    """Return offers whose `spawn` takes what is there, and makes the arguments its context."""

    def take(*args: Any, **kwargs: Any) -> None:
        offer = offers.take()
        assert offer is not None
        offer.worker_ctx = (args, kwargs)  # type: ignore[assignment]

    offers = Offers(spawn or take, "Own.spawn_worker")
    return offers


def make_offer() -> Offer:
    return Offer(run=lambda worker_ctx, handle_result: None)


def test_spawn_gets_the_arguments_and_takes_what_is_offered() -> None:
    found: Any = make_offers().offer(make_offer(), 1, key=2)
    assert found == ((1,), {"key": 2})


def test_nothing_is_there_to_be_taken() -> None:
    assert make_offers().take() is None


def test_it_is_taken_once() -> None:
    taken: list[Offer | None] = []

    def spawn() -> None:
        taken.extend((offers.take(), offers.take()))
        offer.worker_ctx = object()  # type: ignore[assignment]

    offers = make_offers(spawn)
    offer = make_offer()
    offers.offer(offer)
    assert taken == [offer, None]


def test_whoever_takes_nothing_is_told() -> None:
    offers = make_offers(lambda: None)
    with pytest.raises(RuntimeError, match=r"Own\.spawn_worker has run no worker"):
        offers.offer(make_offer())
    assert offers.take() is None


def test_nothing_is_left_of_what_was_refused() -> None:
    def refuse() -> None:
        raise LookupError("full")

    offers = make_offers(refuse)
    with pytest.raises(LookupError, match="full"):
        offers.offer(make_offer())
    assert offers.take() is None


def test_what_one_thread_offers_no_other_takes() -> None:
    seen: list[Any] = []

    def look() -> None:
        seen.append(offers.take())

    def spawn() -> None:
        thread = threading.Thread(target=look)
        thread.start()
        thread.join(TIMEOUT)
        offer.worker_ctx = offers.take()  # type: ignore[assignment]

    offers = make_offers(spawn)
    offer = make_offer()
    found: Any = offers.offer(offer)
    assert seen == [None]
    assert found is offer
