"""One publishing connection per broker for all publishers of a process.

Threads that meet here: any thread may borrow, publish and close. A connection is made for the first
who publishes to its broker, and ends with the last publisher of that broker, or with the process,
or when `end_links` says so: then the next who publishes makes another. A publisher ends when it was
closed and nobody is inside it any more, or is forgotten. A forked child forgets the connections of
its parent, and makes its own.
"""

import atexit
import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from threadko.amqp.parameters import BrokerParameters
from threadko.amqp.publishing import PublishLink
from threadko.concurrency.threads import run_in_thread, thread_name

__all__ = ["Borrowed", "end_links"]

# Guessed: nobody publishes any more, so there is nothing to wait for but the broker's goodbye.
_CLOSE_SECONDS = 1.0


@dataclass
class _Entry:
    """A connection, and those who may publish on it."""

    parameters: BrokerParameters
    users: int = 0
    link: PublishLink | None = field(default=None, repr=False)
    # Held while a connection is begun, so that there are not two; who closes does not need it.
    beginning: Any = field(default_factory=threading.RLock, repr=False)


# Reentrant, and what it guards can bear that: the collector runs in the midst of anything, and a
# finalizer of the user's may close a publisher. Nor is it held while a thread is begun, which may
# run the collector first.
_lock = threading.RLock()
_entries: dict[object, _Entry] = {}  # guarded by _lock
_shares: "weakref.WeakSet[Borrowed]" = weakref.WeakSet()  # all there are, for a forked child


class Borrowed:
    """A share of the connection to one broker; given back when it is closed or forgotten.

    Args:
        key: those with equal keys share a connection.
        parameters: of the broker.
        window: as of `PublishLink`.
        max_message_size: as of `PublishLink`.
    """

    def __init__(
        self,
        key: object,
        parameters: BrokerParameters,
        *,
        window: int = 1000,
        max_message_size: int = 16 * 1024 * 1024,
    ) -> None:
        self._key = key
        self._parameters = parameters
        self._window = window
        self._max_message_size = max_message_size
        self._inside = 0  # both guarded by _lock
        self._is_closed = False
        with _lock:
            self._entry = _entries.get(key) or _Entry(parameters)
            self._entry.users += 1
            _entries[key] = self._entry  # again, if its last user has just gone
        _shares.add(self)
        # In a thread: the collector's may hold what the connection waits for.
        self._forgotten = weakref.finalize(self, _give_back_soon, key, self._entry)
        self._forgotten.atexit = False

    @contextmanager
    def lent(self) -> Iterator[PublishLink]:
        """Lend the connection to the calling thread; a `close()` meanwhile takes effect after it.

        Raises `RuntimeError` if it was closed before.
        """
        with _lock:
            if self._is_closed:
                raise RuntimeError("the publisher is closed")
            self._inside += 1
        try:
            yield self._find()
        finally:
            with _lock:
                self._inside -= 1
                is_over = self._is_over()
            if is_over:
                self._end()

    def close(self) -> None:
        """Give it back, or leave that to the last of those who are inside.

        The connection is closed on return if it was the last share and nobody is inside.
        """
        with _lock:
            self._is_closed = True
            is_over = self._is_over()
        if is_over:
            self._end()

    def forget_parent(self) -> None:
        """In a forked child: those who were inside are threads of the parent."""
        self._inside = 0
        if self._is_closed:
            self._end()

    def _is_over(self) -> bool:
        return self._is_closed and self._inside == 0

    def _end(self) -> None:
        if self._forgotten.detach():  # once
            _give_back(self._key, self._entry)

    def _find(self) -> PublishLink:
        """Return the connection, begun anew if there is none, or the last was refused for good."""
        entry = self._entry
        with entry.beginning:
            link = entry.link
            if link is None or link.has_ended:
                link = PublishLink(
                    self._parameters,
                    name=thread_name("publisher", "connection"),
                    window=self._window,
                    max_message_size=self._max_message_size,
                )
                # Before it is noted: one that could not be started would never come up, nor end.
                link.start()
                entry.link = link
            return link


def _give_back_soon(key: object, entry: _Entry) -> None:
    run_in_thread(lambda: _give_back(key, entry), thread_name("publisher", "release"))


def _give_back(key: object, entry: _Entry) -> None:
    with _lock:
        entry.users -= 1
        if entry.users > 0:
            return
        if _entries.get(key) is entry:
            del _entries[key]
        link = entry.link
    if link is not None:
        link.stop(_CLOSE_SECONDS)


def end_links(host: str, virtual_host: str) -> None:
    """End the connections to a broker, at any port: for TLS it has another.

    Who publishes there later begins anew.
    """
    ended = []
    with _lock:
        for entry in list(_entries.values()):
            nodes = {(each.host, each.virtual_host) for each in entry.parameters.nodes}
            if entry.link is not None and (host, virtual_host) in nodes:
                ended.append(entry.link)
                entry.link = None
    for link in ended:
        link.stop(_CLOSE_SECONDS)


def _stop_all() -> None:
    with _lock:
        links = [entry.link for entry in list(_entries.values()) if entry.link is not None]
    for link in links:
        link.stop(_CLOSE_SECONDS)


def _forget_all() -> None:
    """In a forked child: nothing of this is ours, and nobody will ever release that lock."""
    global _lock
    _lock = threading.RLock()
    for entry in list(_entries.values()):
        entry.beginning = threading.RLock()
        if entry.link is not None:
            entry.link.forget()
            entry.link = None
    for share in list(_shares):
        share.forget_parent()


atexit.register(_stop_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)
