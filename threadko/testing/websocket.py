"""A client of websockets for tests: calls methods and waits for events.

Threads that meet here::

    VirtualSocketApp.run_forever    one thread, which reads
    VirtualSocketApp.close          any thread; ends `run_forever`, and every wait with an error
    connect, Socket.*               any thread, many at once
"""

import itertools
import json
import queue
import socket
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from threadko.concurrency.deadline import Deadline
from threadko.concurrency.threads import start_thread, thread_name
from threadko.exceptions import ThreadkoError, deserialize
from threadko.testing.waiting import WaitTimeout

__all__ = ["Socket", "SocketClosed", "VirtualSocketApp", "make_virtual_socket", "open_sockets"]

_SECONDS = 30.0

#: In a queue: that nothing follows.
_END = object()


class SocketClosed(ThreadkoError):  # noqa: N818 (an end, and no fault by itself)
    """The websocket was closed, by whichever side."""


class VirtualSocketApp:
    """One websocket: its connection, and what has arrived on it.

    Args:
        host: where it is.
        port: where it is.
        path: what is asked for.
    """

    def __init__(self, host: str, port: int, path: str) -> None:
        shown = f"[{host}]" if ":" in host else host
        self.uri = f"ws://{shown}:{port}{path}"
        self._address = (host, port)
        self._open = threading.Event()  # connected, or failed
        self._ids = itertools.count(1)
        self._lock = threading.Lock()  # guards the fields below
        self._connection: ClientConnection | None = None
        self._error: BaseException | None = None
        self._closed = False
        self._how = "by us"
        self._answers: dict[str, queue.SimpleQueue[Any]] = {}
        self._events: defaultdict[str, queue.SimpleQueue[Any]] = defaultdict(queue.SimpleQueue)

    def run_forever(self) -> None:
        """Connect, and read until the websocket is closed."""
        try:
            # A socket of our own, for the library would use the proxy of the environment.
            sock = socket.create_connection(self._address, _SECONDS)
            with connect(self.uri, sock=sock, open_timeout=_SECONDS) as connection:
                with self._lock:
                    self._connection = connection
                    closed = self._closed
                self._open.set()
                if not closed:
                    for text in connection:
                        self._take(json.loads(text))
                    if not self._closed:
                        # The library raises nothing when it was closed in good order.
                        self._how = f"by the service ({connection.protocol.close_code})"
        except Exception as error:
            self._error = error  # for whoever waits
        finally:
            self._end()

    def close(self) -> None:
        """Close the websocket; nothing if it is closed."""
        with self._lock:
            self._closed = True
            connection = self._connection
        if connection is not None:
            connection.close()

    def wait_open(self, timeout: float | None = _SECONDS) -> "Socket":
        """Wait until the websocket is open.

        Raises:
            SocketClosed: it could not be opened; the cause says why.
            WaitTimeout: it was not opened in time.
        """
        if not self._open.wait(timeout):
            raise WaitTimeout(f"Timeout: {self.uri} was not opened within {timeout} seconds")
        if self._connection is None:
            raise self._make_closed()
        return Socket(self)

    def send(self, method: str, data: dict[str, Any]) -> "queue.SimpleQueue[Any]":
        """Send a call, and return the queue that its answer comes to."""
        number = str(next(self._ids))
        answer: queue.SimpleQueue[Any] = queue.SimpleQueue()
        with self._lock:
            connection = None if self._closed else self._connection
            self._answers[number] = answer
        if connection is None:
            raise self._make_closed()
        try:
            connection.send(json.dumps({"method": method, "data": data, "correlation_id": number}))
        except ConnectionClosed as error:
            raise self._make_closed() from error
        return answer

    def get_events(self, event_type: str) -> "queue.SimpleQueue[Any]":
        """Return the queue that events of a type come to."""
        with self._lock:
            events = self._events[event_type]
            if self._closed:
                events.put(_END)
            return events

    def wait(self, where: "queue.SimpleQueue[Any]", what: str, timeout: float | None) -> Any:
        """Return what comes to a queue next.

        Raises:
            SocketClosed: the websocket was closed first.
            WaitTimeout: nothing came in time.
        """
        try:
            found = where.get(timeout=Deadline(timeout).remaining())
        except queue.Empty:
            raise WaitTimeout(
                f"Timeout: no {what} on {self.uri} within {timeout} seconds"
            ) from None
        if found is _END:
            where.put(_END)
            raise self._make_closed()
        return found

    def _take(self, message: dict[str, Any]) -> None:
        with self._lock:
            if message.get("type") == "event":
                self._events[message["event"]].put((message["event"], message.get("data")))
                return
            answer = self._answers.pop(str(message.get("correlation_id")), None)
        if answer is not None:
            answer.put(message)

    def _end(self) -> None:
        with self._lock:
            self._closed = True
            for each in (*self._answers.values(), *self._events.values()):
                each.put(_END)
        self._open.set()

    def _make_closed(self) -> SocketClosed:
        error = SocketClosed(f"{self.uri} is closed: {self._error or self._how}")
        error.__cause__ = self._error
        return error


class Socket:
    """An open websocket."""

    def __init__(self, app: VirtualSocketApp) -> None:
        self._app = app

    def rpc(self, _method: str, *, _timeout: float | None = _SECONDS, **data: Any) -> Any:
        """Call a method of the service, and return its result.

        Raises:
            RemoteError: what the method raised, or its own class where that is registered.
            SocketClosed: the websocket was closed meanwhile.
            WaitTimeout: no answer came in time.
        """
        answer = self._app.send(_method, data)
        message = self._app.wait(answer, f"answer of {_method}", _timeout)
        if not message.get("success"):
            raise deserialize(message["error"])
        return message["data"]

    def wait_for_event(self, event_type: str, timeout: float | None = _SECONDS) -> tuple[str, Any]:
        """Return type and data of the next event of a type.

        Raises:
            SocketClosed: the websocket was closed meanwhile.
            WaitTimeout: no such event came in time.
        """
        events = self._app.get_events(event_type)
        found: tuple[str, Any] = self._app.wait(events, f"event {event_type!r}", timeout)
        return found

    def get_event_queue(self, event_type: str) -> "queue.SimpleQueue[Any]":
        """Return the queue of events of a type, as pairs of type and data."""
        return self._app.get_events(event_type)

    def close(self) -> None:
        """Close the websocket."""
        self._app.close()


def make_virtual_socket(
    host: str, port: int, path: str = "/ws"
) -> tuple[VirtualSocketApp, Callable[[], Socket]]:
    """Return an app, and a function that waits until it is open and returns its socket.

    The app is to be run by a thread of the test's, by `run_forever`.
    """
    app = VirtualSocketApp(host, port, path)
    return app, app.wait_open


@contextmanager
def open_sockets(host: str, port: int, path: str = "/ws") -> Iterator[Callable[[], Socket]]:
    """Give the block a function that opens websockets; all are closed at its end."""
    opened: list[tuple[VirtualSocketApp, threading.Thread]] = []

    def open_socket() -> Socket:
        app, wait_open = make_virtual_socket(host, port, path)
        thread = start_thread(app.run_forever, thread_name("test", "websocket"))
        opened.append((app, thread))
        return wait_open()

    try:
        yield open_socket
    finally:
        for app, thread in reversed(opened):
            app.close()
            thread.join(_SECONDS)
