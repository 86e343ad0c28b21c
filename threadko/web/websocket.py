"""Websockets for services: methods called over them, and a hub that sends events to them.

A socket is opened by a request at `WEBSOCKET_PATH`, in a thread of the web server, and is then the
loop's (see `sockets`). Its messages are served one after the other, in their order, each by a
worker; what workers and others send in between is interleaved. Stopping: no message is begun any
more, workers end and their results leave, then every socket is closed with 1001.
"""

import contextlib
import json
import logging
import uuid
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from werkzeug.routing import Rule
from werkzeug.wrappers import Request, Response

from threadko.concurrency.deadline import Deadline
from threadko.concurrency.slots import Line
from threadko.concurrency.threads import thread_name
from threadko.configuration.settings import WebSocketSettings
from threadko.exceptions import (
    ContainerStopped,
    MalformedRequest,
    MethodNotFound,
    serialize,
)
from threadko.extensions import (
    DependencyProvider,
    Entrypoint,
    ExcInfo,
    ProviderCollector,
    SharedExtension,
    WorkerContext,
)
from threadko.web.exchange import CONNECTION, refuse_for_now
from threadko.web.hub import Connection, Subscriptions
from threadko.web.server import WebServer
from threadko.web.sockets import MAX_UNSERVED, SocketLoop, WebSocket, shake_hands

__all__ = [
    "Connection",
    "SocketInfo",
    "WebSocketHub",
    "WebSocketHubProvider",
    "WebSocketRpc",
    "WebSocketServer",
    "rpc",
]

_log = logging.getLogger(__name__)

_CLOSE_SECONDS = 1.0  # guessed: for clients to answer a good-bye when the service stops

#: The headers of a handshake, by the names that WSGI has for them.
_HANDSHAKE = {
    "HTTP_HOST": "Host",
    "HTTP_UPGRADE": "Upgrade",
    "HTTP_CONNECTION": "Connection",
    "HTTP_SEC_WEBSOCKET_KEY": "Sec-WebSocket-Key",
    "HTTP_SEC_WEBSOCKET_VERSION": "Sec-WebSocket-Version",
}


class SocketInfo(NamedTuple):
    """A websocket, and the context data that came with it."""

    socket: WebSocket
    data: dict[str, Any]


class WebSocketServer(ProviderCollector, SharedExtension):
    """Opens websockets and calls methods for their messages.

    To override: `get_url_rule`, `deserialize_ws_frame`, `serialize_for_ws`.
    """

    wsgi_server = WebServer()

    def __init__(self) -> None:
        super().__init__()
        self.sockets: dict[str, SocketInfo] = {}  # added to and removed from in single steps
        self.subscriptions = Subscriptions()
        self._loop: SocketLoop | None = None

    def setup(self) -> None:
        """Read the settings, and register the path."""
        self._settings = WebSocketSettings.from_config(self.container.config)
        self._line: Line = self.container.open_line("websocket")
        self.wsgi_server.register_provider(self)

    def start(self) -> None:
        """Start the thread of the sockets."""
        self._loop = SocketLoop(
            thread_name(self.container.service_name, "websockets"),
            max_queue=self._settings.queue,
            ping_seconds=self._settings.ping,
            on_message=self._on_message,
            on_end=self._on_end,
        )
        self._loop.start()

    def cancel(self) -> None:
        """Begin no message any more."""
        self._line.close()

    def stop(self) -> None:
        """Close all sockets."""
        self.wsgi_server.unregister_provider(self)
        if self._loop is not None:
            self._loop.close_all(Deadline(_CLOSE_SECONDS))
        super().stop()

    def kill(self) -> None:
        """Cut all sockets off."""
        super().kill()
        self.wsgi_server.unregister_provider(self)
        if self._loop is not None:
            self._loop.abort_all()

    # Opening

    def get_url_rule(self) -> Rule:
        """Return where websockets are opened: WEBSOCKET_PATH."""
        return Rule(self._settings.path, methods=["GET"])

    def handle_request(self, request: Request) -> Response:
        """Open a websocket, or say why not."""
        environ = request.environ
        if not self._is_welcome(environ.get("HTTP_ORIGIN"), request.host):
            return Response("Error: this origin is not allowed\n", 403)
        connection, loop = environ.get(CONNECTION), self._loop
        if connection is None or loop is None:
            return Response("Error: this server has no websockets\n", 501)
        if len(self.sockets) >= self._settings.max_connections:
            return refuse_for_now("too many websockets")
        headers = [
            (name, environ[key].encode("latin-1", "replace").decode("latin-1"))
            for key, name in _HANDSHAKE.items()
            if key in environ
        ]
        if request.method != "GET" or environ.get("SERVER_PROTOCOL") != "HTTP/1.1":
            headers = []  # so it is no handshake, whatever it says of itself
        handshake = shake_hands(self._settings.path, headers, self._settings.max_size)
        if not handshake.accepted:
            return Response(handshake.body, handshake.status, handshake.headers)
        context_data = self.wsgi_server.context_data_from_headers(request)
        handshake.accept()
        sock, rest = connection.take_over()
        websocket = WebSocket(loop, sock, handshake.protocol, str(uuid.uuid4()))
        websocket.context = context_data
        self.add_websocket(websocket, context_data)
        websocket.send(self.serialize_event("connected", {"socket_id": websocket.socket_id}))
        loop.add(websocket, rest)
        return Response(status=101)  # for the access log: it is not sent

    def _is_welcome(self, origin: str | None, host: str) -> bool:
        if origin is None:
            return True  # no browser, so no page that acts in a user's name
        allowed = self._settings.origins
        if allowed is None:
            try:
                return urlsplit(origin).netloc.lower() == host.lower()
            except ValueError:
                return False
        return "*" in allowed or origin in allowed

    def add_websocket(self, websocket: WebSocket, data: dict[str, Any]) -> str:
        """Note a new socket, and return its id."""
        self.sockets[websocket.socket_id] = SocketInfo(websocket, data)
        self.subscriptions.add(Connection(websocket.socket_id, data))
        return websocket.socket_id

    def remove_socket(self, socket_id: str) -> None:
        """Forget a socket."""
        self.sockets.pop(socket_id, None)
        self.subscriptions.remove(socket_id)

    def _on_end(self, websocket: WebSocket) -> None:
        self.remove_socket(websocket.socket_id)

    # Frames

    def deserialize_ws_frame(self, payload: str | bytes) -> tuple[Any, Any, Any]:
        """Return what a message asks for: the method, its data and a correlation id.

        Args:
            payload: text, or the bytes of a binary message.

        Raises:
            MalformedRequest: it is no JSON, or names no method.
        """
        try:
            message = json.loads(payload)
        except (ValueError, RecursionError):
            raise MalformedRequest("Invalid JSON data") from None
        if not isinstance(message, dict) or not isinstance(message.get("method"), str):
            raise MalformedRequest("Invalid JSON data")
        return message["method"], message.get("data"), message.get("correlation_id")

    def serialize_for_ws(self, payload: Any) -> str:
        """Return a message that says `payload`."""
        return json.dumps(payload)

    def serialize_event(self, event: str, data: Any) -> str:
        """Return the message of an event."""
        return self.serialize_for_ws({"type": "event", "event": event, "data": data})

    def serialize_result(self, correlation_id: Any, result: Any) -> str:
        """Return the message of a result."""
        return self.serialize_for_ws(
            {"type": "result", "success": True, "data": result, "correlation_id": correlation_id}
        )

    def serialize_error(self, correlation_id: Any, error: BaseException) -> str:
        """Return the message of an error."""
        message = {"type": "result", "success": False, "error": serialize(error)}
        return self.serialize_for_ws({**message, "correlation_id": correlation_id})

    # Serving

    def _on_message(self, websocket: WebSocket) -> None:
        with websocket.lock:
            if websocket.serving or not websocket.unserved:  # a worker has found them already
                return
            websocket.serving = True
        self._serve_next(websocket)

    def _serve_next(self, websocket: WebSocket) -> None:
        # Stopped: the socket is closed with 1001, and whoever is not answered may ask elsewhere.
        with contextlib.suppress(ContainerStopped):
            self._line.put(partial(self._serve, websocket))

    def _serve(self, websocket: WebSocket) -> None:
        """Serve one message, and have the next one served; a job of the pool."""
        was_full = False
        try:
            with websocket.lock:
                was_full = len(websocket.unserved) >= MAX_UNSERVED
                payload = websocket.unserved.popleft()
            self.handle_websocket_request(websocket, payload)
        finally:
            with websocket.lock:
                websocket.serving = bool(websocket.unserved)
                goes_on = websocket.serving
            if was_full and self._loop is not None:
                self._loop.post(websocket)  # it may be read again
            if goes_on:
                self._serve_next(websocket)

    def handle_websocket_request(self, websocket: WebSocket, payload: str | bytes) -> None:
        """Call the method that a message asks for, and send what comes of it.

        So it is for a client that has left meanwhile: it may have asked for no answer.
        """
        correlation_id = None
        try:
            method, data, correlation_id = self.deserialize_ws_frame(payload)
            if not isinstance(data, dict | None):
                raise MalformedRequest("Invalid JSON data")
            provider = self._find_provider(method)
            provider.check_signature((websocket.socket_id,), data or {})
        except Exception as error:
            websocket.send(self.serialize_error(correlation_id, error))
            return
        provider.handle_message(websocket, data or {}, dict(websocket.context), correlation_id)

    def _find_provider(self, method: str) -> "WebSocketRpc":
        for provider in self.providers:
            if isinstance(provider, WebSocketRpc) and provider.method_name == method:
                return provider
        raise MethodNotFound


class WebSocketHub:
    """Sends events to websockets; injected into services. Any thread may call anything."""

    def __init__(self, server: WebSocketServer) -> None:
        self._server = server

    @property
    def connections(self) -> dict[str, Connection]:
        """The connections by the ids of their sockets."""
        return self._server.subscriptions.connections

    @property
    def subscriptions(self) -> dict[str, set[str]]:
        """The ids of the sockets that each channel has."""
        return self._server.subscriptions.channels

    def get_subscriptions(self, socket_id: str) -> list[str]:
        """Return the channels that a socket is subscribed to, sorted."""
        return self._server.subscriptions.subscriptions_of(socket_id)

    def subscribe(self, socket_id: str, channel: str) -> None:
        """Subscribe a socket to a channel; `ConnectionNotFound` if the socket is gone."""
        self._server.subscriptions.subscribe(socket_id, channel)

    def unsubscribe(self, socket_id: str, channel: str) -> None:
        """Unsubscribe a socket from a channel."""
        self._server.subscriptions.unsubscribe(socket_id, channel)

    def broadcast(self, channel: str, event: str, data: Any) -> None:
        """Send an event to all sockets that are subscribed to a channel."""
        message = self._server.serialize_event(event, data)
        for socket_id in self._server.subscriptions.subscribed_to(channel):
            self._send(socket_id, message)

    def unicast(self, socket_id: str, event: str, data: Any) -> bool:
        """Send an event to one socket; False if it is gone."""
        return self._send(socket_id, self._server.serialize_event(event, data))

    def _send(self, socket_id: str, message: str) -> bool:
        info = self._server.sockets.get(socket_id)
        return info is not None and info.socket.send(message)


class WebSocketHubProvider(DependencyProvider):
    """Injects the `WebSocketHub` of the container."""

    hub: WebSocketHub | None = None
    server = WebSocketServer()

    def setup(self) -> None:
        """Make the hub."""
        self.hub = WebSocketHub(self.server)

    def get_dependency(self, worker_ctx: WorkerContext) -> WebSocketHub | None:
        """Return the hub."""
        return self.hub


class WebSocketRpc(Entrypoint):
    """Lets websockets call a method, with the id of the socket and what the message says."""

    server = WebSocketServer()

    def setup(self) -> None:
        """Register the method."""
        self.server.register_provider(self)

    def stop(self) -> None:
        """Serve no more; the server has closed its line."""
        self.server.unregister_provider(self)

    def handle_message(
        self,
        websocket: WebSocket,
        data: Mapping[str, Any],
        context_data: dict[str, Any],
        correlation_id: Any,
    ) -> None:
        """Run a worker in this thread, which holds a slot, and send its outcome."""
        outcome = _Outcome(self.server, websocket, correlation_id)
        self.container.run_worker(
            self,
            (websocket.socket_id,),
            data,
            context_data=context_data,
            handle_result=partial(self.handle_result, outcome),
            settle=outcome.send,
        )

    def handle_result(
        self,
        outcome: "_Outcome",
        worker_ctx: WorkerContext,
        result: Any = None,
        exc_info: ExcInfo | None = None,
    ) -> tuple[Any, ExcInfo | None]:
        """Make the message of the outcome; a result that is no JSON is an error."""
        outcome.make(result, exc_info)
        return result, exc_info


class _Outcome:
    """The message that a worker's outcome makes, until it is sent."""

    def __init__(self, server: WebSocketServer, websocket: WebSocket, correlation_id: Any) -> None:
        self._server = server
        self._websocket = websocket
        self._correlation_id = correlation_id
        self._message: str | None = None

    def make(self, result: Any, exc_info: ExcInfo | None) -> None:
        if exc_info is None:
            self._message = self._server.serialize_result(self._correlation_id, result)
        else:
            self._message = self._server.serialize_error(self._correlation_id, exc_info[1])

    def send(self, worker_ctx: WorkerContext, result: Any, exc_info: ExcInfo | None) -> None:
        if self._message is not None:
            self._websocket.send(self._message)


rpc = WebSocketRpc.decorator
