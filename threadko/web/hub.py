"""Who listens to what: the connections of websockets and their subscriptions. No I/O.

Any thread may call anything. Sets are copied before anybody is sent to, so a slow or dead socket
holds up no other, and nobody who subscribes.
"""

import threading
from collections.abc import Iterable
from typing import Any, NamedTuple

from threadko.exceptions import ConnectionNotFound

__all__ = ["Connection", "Subscriptions"]


class Connection(NamedTuple):
    """A websocket as a hub knows it."""

    socket_id: str
    context_data: dict[str, Any]


class Subscriptions:
    """Connections by id, and the ids that each channel has."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards both dictionaries
        self.connections: dict[str, Connection] = {}
        self.channels: dict[str, set[str]] = {}

    def add(self, connection: Connection) -> None:
        """Note a connection."""
        with self._lock:
            self.connections[connection.socket_id] = connection

    def remove(self, socket_id: str) -> None:
        """Forget a connection and all its subscriptions."""
        with self._lock:
            self.connections.pop(socket_id, None)
            for channel in [name for name, ids in self.channels.items() if socket_id in ids]:
                self._leave(channel, socket_id)

    def subscribe(self, socket_id: str, channel: str) -> None:
        """Subscribe; `ConnectionNotFound` if there is no such connection."""
        with self._lock:
            if socket_id not in self.connections:
                raise ConnectionNotFound(socket_id)
            self.channels.setdefault(channel, set()).add(socket_id)

    def unsubscribe(self, socket_id: str, channel: str) -> None:
        """Unsubscribe; nothing happens if nobody was subscribed."""
        with self._lock:
            self._leave(channel, socket_id)

    def subscribed_to(self, channel: str) -> Iterable[str]:
        """Return the ids of those who are subscribed now."""
        with self._lock:
            return list(self.channels.get(channel, ()))

    def subscriptions_of(self, socket_id: str) -> list[str]:
        """Return the channels of a connection, sorted."""
        with self._lock:
            return sorted(name for name, ids in self.channels.items() if socket_id in ids)

    def _leave(self, channel: str, socket_id: str) -> None:
        ids = self.channels.get(channel)
        if ids is not None:
            ids.discard(socket_id)
            if not ids:
                del self.channels[channel]
