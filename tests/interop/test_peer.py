"""The process that the interoperability tests talk to: it answers, or they are told why not."""

import sys

import pytest

from tests.interop.lines import pack, unpack
from tests.interop.peer import Peer, PeerError


def test_the_answer_is_returned_when_the_peer_is_asked() -> None:
    with Peer(sys.executable, "tests.interop.lines") as peer:
        assert peer.greeting == {"ready": True}
        assert peer.ask(value="žluťoučký ☃", nothing=None) == {
            "value": "žluťoučký ☃",
            "nothing": None,
        }


def test_the_process_ends_well_when_its_input_is_closed() -> None:
    peer = Peer(sys.executable, "tests.interop.lines")

    assert peer.close() == 0


def test_starting_raises_when_the_process_ends_without_a_word() -> None:
    with pytest.raises(PeerError, match="ended when an answer was due"):
        Peer(sys.executable, "tests.interop.contract")


def test_asking_raises_when_the_process_is_gone() -> None:
    with Peer(sys.executable, "tests.interop.lines") as peer:
        peer.process.kill()
        peer.process.wait()

        with pytest.raises(PeerError):
            peer.ask(value=1)


def test_asking_raises_when_no_answer_comes_in_time() -> None:
    # The interactive interpreter reads on for the end of this statement.
    with pytest.raises(PeerError, match="was silent"):
        Peer(sys.executable, "code", timeout=0.2)


def test_a_value_keeps_its_type_when_it_is_packed() -> None:
    with Peer(sys.executable, "tests.interop.lines") as peer:
        answer = peer.ask(value=pack((b"\xff", {1: None})))

    assert unpack(answer["value"]) == (b"\xff", {1: None})


def test_the_answer_waits_when_the_peer_is_told_and_not_asked() -> None:
    with Peer(sys.executable, "tests.interop.lines") as first:
        with Peer(sys.executable, "tests.interop.lines") as second:
            first.tell(value=1)
            second.tell(value=2)

            assert (first.answer(), second.answer()) == ({"value": 1}, {"value": 2})
