"""The process that the interoperability tests talk to: it answers, or they are told why not."""

import sys

import pytest

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
