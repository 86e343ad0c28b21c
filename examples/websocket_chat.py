import threading
from pathlib import Path

from werkzeug.wrappers import Response

from threadko.extensions import DependencyProvider
from threadko.web.handlers import http
from threadko.web.websocket import WebSocketHubProvider, rpc

PAGE = Path(__file__).with_suffix(".html")


class Names(DependencyProvider):
    """Who is who, for all workers of the container."""

    def setup(self):
        self.lock = threading.Lock()
        self.names = {}

    def get_dependency(self, worker_ctx):
        return self

    def set(self, socket_id, name):
        with self.lock:
            self.names[socket_id] = name

    def get(self, socket_id):
        with self.lock:
            return self.names.get(socket_id, "somebody")


class ChatService:
    name = "chat_service"

    hub = WebSocketHubProvider()
    names = Names()

    @http("GET", "/")
    def page(self, request):
        return Response(PAGE.read_text(encoding="utf-8"), mimetype="text/html")

    @rpc
    def join(self, socket_id, name):
        self.names.set(socket_id, name)
        self.hub.subscribe(socket_id, "everybody")
        return f"Hello, {name}!"

    @rpc
    def say(self, socket_id, text):
        said = {"name": self.names.get(socket_id), "text": text}
        self.hub.broadcast("everybody", "said", said)
