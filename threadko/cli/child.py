"""The end of a child process of `threadko run`: it takes orders, and tells how it goes.

Orders are numbers of signals. It sends them to itself, so that they are heard while it is still
importing, as those of a terminal are; but of two in a row the system may deliver one, so that once
there is somebody to tell of them they go there. Its parent's going without a word is a SIGTERM.

Threads that meet here: the channel's reader hears the parent and must not wait, so each question is
answered on a thread of its own; `open_door` is called by threads that start containers, and waits.
"""

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any

from threadko.cli.channel import Channel
from threadko.concurrency.threads import start_thread, thread_name
from threadko.exceptions import ConfigurationError, ContainerStopped
from threadko.web.addresses import BindAddress, Door, UnixAddress, parse_address

__all__ = ["Child"]

_ANSWER_SECONDS = 10.0  # guessed: the parent does nothing that takes long

#: Answers to the questions of the parent: by name, what is not as it should be.
Answers = Mapping[str, Callable[[], Sequence[str]]]


class Child:
    """What a child process knows of its parent.

    Args:
        descriptor: of the socket that it was started with.
    """

    def __init__(self, descriptor: int) -> None:
        self._answers: Answers = {}
        self._welcome: Future[Mapping[str, Any]] = Future()
        self._lock = threading.Lock()  # guards _doors and _is_orphan
        self._doors: dict[str, Future[Door]] = {}
        self._is_orphan = False
        # Replaced in one step by the main thread, called by the channel's.
        self._hear: Callable[[int], object] = _signal_itself
        sock = socket.socket(fileno=descriptor)
        sock.set_inheritable(False)
        self._channel = Channel(sock, on_message=self._on_message, on_end=self._on_end)

    def start(self) -> None:
        """Begin to take orders, and wait for the first word of the parent."""
        self._channel.start()
        welcome = self._welcome.result(_ANSWER_SECONDS)
        self.number: int = welcome["number"]
        self.count: int = welcome["count"]

    def tell_ready(self) -> None:
        """Say that services are ready."""
        self._channel.send({"tell": "ready"})

    def tell_imported(self, folders: Iterable[str], *, succeeded: bool) -> None:
        """Say that the modules were imported, or that this has failed, and where sources are."""
        self._channel.send({"tell": "imported", "folders": list(folders), "succeeded": succeeded})

    def hear_with(self, hear: Callable[[int], object]) -> None:
        """Have `hear` called with each order from now on; it must not wait."""
        self._hear = hear

    def answer_with(self, answers: Answers) -> None:
        """Answer questions of the parent."""
        self._answers = answers

    def open_door(self, address: BindAddress | UnixAddress, mode: int) -> Door:
        """Return a listening socket that the parent has made, for all its children.

        Raises:
            ConfigurationError: it cannot listen there.
            ContainerStopped: it stops, or has gone.
        """
        key = str(address)
        with self._lock:
            if self._is_orphan:
                raise ContainerStopped("the parent process has ended")
            door = self._doors.get(key)
            if door is None:  # else somebody has asked for it already
                door = self._doors[key] = Future()
                self._channel.send({"tell": "door", "address": key, "mode": mode})
        try:
            return door.result(_ANSWER_SECONDS)
        except FutureTimeoutError:
            raise ContainerStopped("the parent process does not answer") from None

    # The channel's thread

    def _on_message(self, message: Mapping[str, Any], descriptor: int | None) -> None:
        order = message["order"]
        if order == "welcome":
            self._welcome.set_result(message)
        elif order == "signal":
            self._hear(message["number"])
        elif order == "door":
            self._take_door(message, descriptor)
        elif order == "answer":
            start_thread(
                lambda: self._answer(message["id"], message["question"]),
                thread_name("process", "answer"),
            )

    def _take_door(self, message: Mapping[str, Any], descriptor: int | None) -> None:
        with self._lock:
            door = self._doors.pop(message["asked"])
        if descriptor is not None:
            sock = socket.socket(fileno=descriptor)
            sock.set_inheritable(False)
            door.set_result(Door(sock, parse_address(message["is"])))
        elif message["error"] is not None:
            door.set_exception(ConfigurationError(message["error"]))
        else:
            door.set_exception(ContainerStopped("the parent process stops"))

    def _answer(self, number: int, question: str) -> None:
        answer = self._answers.get(question)
        if answer is None:
            faults: Sequence[str] = ["it is starting"] if question == "ready" else []
        else:
            faults = answer()
        self._channel.send({"tell": "answer", "id": number, "faults": list(faults)})

    def _on_end(self) -> None:
        with self._lock:
            self._is_orphan = True
            doors, self._doors = list(self._doors.values()), {}
        for door in doors:
            door.set_exception(ContainerStopped("the parent process has ended"))
        self._hear(signal.SIGTERM)


def _signal_itself(number: int) -> None:
    os.kill(os.getpid(), number)
