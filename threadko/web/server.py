"""The web server of a container, and the listeners that all containers of a process share.

`register_provider` is called by entrypoints while they are set up; the hooks of starting and
stopping come from the container; requests come in the threads of the listener, from `start` on.
A container that stops answers 503 at once, gives its routes back when its last worker has ended,
and the last container at an address closes it.
"""

import contextlib
import logging
import os
import ssl
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Request, Response

from threadko.concurrency.deadline import Deadline
from threadko.concurrency.slots import Line
from threadko.configuration.settings import WebSettings
from threadko.exceptions import ConfigurationError
from threadko.extensions import ProviderCollector, SharedExtension
from threadko.web.addresses import BindAddress, UnixAddress, open_door, parse_address
from threadko.web.connection import NEW_SECONDS
from threadko.web.cors import Cors
from threadko.web.exchange import CONNECTION, EXCHANGE, Exchange
from threadko.web.gateway import ARRIVED
from threadko.web.listener import HttpListener
from threadko.web.parser import Limits
from threadko.web.routes import Routes
from threadko.web.wsgi import ALLOWED, Provider, WsgiApp

__all__ = ["BindAddress", "WebServer", "WsgiApp", "parse_address"]

_log = logging.getLogger(__name__)

_CLOSE_SECONDS = 2.0  # guessed: for the accept thread to leave its selector
_ANSWER_SECONDS = 1.0  # guessed: for answers that no worker gives, when all have ended


class WebServer(ProviderCollector, SharedExtension):
    """Serves the routes of one container, on a listener that it may share with others.

    To override: `get_wsgi_app` and `context_data_from_headers`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.routes: Routes[Provider] = Routes()
        self.cors: Cors | None = None
        self.wsgi_app: Callable[..., Iterable[bytes]] | None = None
        self.is_open = False
        #: Where requests wait for a slot; there from `setup` on.
        self.line: Line | None = None
        self._shared: _SharedListener | None = None

    def __repr__(self) -> str:
        if not self.is_bound():
            return f"<{type(self).__name__}>"
        return f"the service {self.container.service_name!r}"

    def setup(self) -> None:
        """Read the settings."""
        self._settings = WebSettings.from_config(self.container.config)
        self._address = parse_address(self._settings.address)
        if self._settings.cors is not None:
            allowed = dict(self._settings.cors)
            self.cors = Cors(frozenset(allowed.pop("origins")), **allowed)
        self.line = self.container.open_line("http")

    @property
    def bind_addr(self) -> BindAddress | UnixAddress:
        """Where it listens; before that, where it will."""
        if self._shared is not None:
            return self._shared.listener.door.address
        return parse_address(WebSettings.from_config(self.container.config).address)

    def get_wsgi_app(self) -> Callable[..., Iterable[bytes]]:
        """Return the WSGI application of this container; override it to wrap that."""
        return WsgiApp(self)

    def context_data_from_headers(self, request: Request) -> dict[str, Any]:
        """Return the context data for a worker; none, unless this is overridden."""
        return {}

    def start(self) -> None:
        """Listen; requests get 503 until the container is open.

        Raises:
            ConfigurationError: a route is there twice, or nobody can listen there.
        """
        for provider in self.providers:
            self.routes.add(self, provider.get_url_rule(), provider)
        self.wsgi_app = self.get_wsgi_app()
        self._shared = _join(self, self._address, self._settings)
        name = self.container.service_name
        scheme = "http" if self._settings.tls is None else "https"
        _log.info("service %s listens on %s://%s", name, scheme, self.bind_addr)

    def open(self) -> None:
        """Let requests in."""
        self.is_open = True

    def cancel(self) -> None:
        """Answer 503; the last one at an address closes it."""
        self.is_open = False
        if self.line is not None:
            self.line.close()
        if self._shared is not None:
            self._shared.close_for(self, Deadline(_CLOSE_SECONDS))

    def stop(self) -> None:
        """Take the routes away."""
        super().stop()
        if self._shared is not None:
            self._shared.leave(self, _ANSWER_SECONDS)

    def kill(self) -> None:
        """Break off the requests that are being answered, and leave."""
        super().kill()
        self.is_open = False
        if self.line is not None:
            self.line.close()
        shared = self._shared
        if shared is not None:
            shared.listener.abort(self._owns)
            shared.close_for(self, Deadline(_CLOSE_SECONDS), patience=0)
            shared.leave(self)

    def _owns(self, exchange: Any) -> bool:
        return isinstance(exchange, Exchange) and exchange.container is self.container

    def begin_exchange(self, request: Request, entrypoint: Any) -> Exchange:
        """Return what a request runs in; it has to have a worker by HTTP_QUEUE_TIMEOUT."""
        waited = time.monotonic() - request.environ.get(ARRIVED, time.monotonic())
        deadline = Deadline(max(0.0, self._settings.queue_timeout - waited))
        assert self.line is not None  # requests come after `start`
        former = request.environ.get(EXCHANGE)
        if former is not None:
            former.finish()  # a middleware asks again
        exchange = Exchange(self.container, self.line, entrypoint, deadline)
        request.environ[EXCHANGE] = exchange
        connection = request.environ.get(CONNECTION)
        if connection is not None:
            connection.exchange = exchange
        return exchange

    @property
    def threads(self) -> int:
        """How many threads of the listener this container accounts for."""
        return self.container.max_workers + self._settings.waiters


class _SharedListener:
    """A listener and the web servers that share it. `_lock` guards all."""

    def __init__(self, address: BindAddress | UnixAddress, settings: WebSettings) -> None:
        self.address = address
        self._limits = _limits_of(settings)
        self._routes: Routes[WebServer] = Routes()
        self._members: list[WebServer] = []  # replaced, never changed
        self._awake: set[WebServer] = set()  # those that have not begun to stop
        self._present: set[WebServer] = set()  # those that have not stopped
        tls = None if settings.tls is None else _make_context(settings.tls)
        door = open_door(address, settings.socket_mode)
        try:
            self.listener = HttpListener(
                door,
                self._answer,
                limits=Limits(settings.max_header_size, settings.max_body_size),
                request_timeout=settings.request_timeout,
                idle_timeout=settings.idle_timeout,
                max_connections=settings.max_connections,
                tls=tls,
            )
        except BaseException:
            door.close()
            raise

    def check(self, settings: WebSettings) -> None:
        """Refuse a container that wants other limits than those that are here."""
        if _limits_of(settings) != self._limits:
            raise ConfigurationError(
                f"the services at {self.address} must agree on HTTP_TLS, the timeouts and limits"
                " of HTTP; give them one configuration, or an address each"
            )

    def add(self, member: WebServer) -> None:
        for provider in member.providers:
            try:
                self._routes.add(member, provider.get_url_rule(), member)
            except ConfigurationError:
                self._routes.remove(member)
                raise
        self._awake.add(member)
        self._present.add(member)
        self._set_members([*self._members, member])

    def close_for(
        self, member: WebServer, deadline: Deadline, patience: float = NEW_SECONDS
    ) -> None:
        with _lock:
            self._awake.discard(member)
            is_last = not self._awake
            if is_last and _listeners.get(self.address) is self:
                del _listeners[self.address]
                _closing[self.address] = self
        if not is_last:
            return
        self.listener.close_door(deadline, patience)
        with _lock:
            if _closing.get(self.address) is self and self.listener.is_closed:
                del _closing[self.address]
                _lock.notify_all()

    def leave(self, member: WebServer, timeout: float = 0) -> None:
        with _lock:
            self._present.discard(member)
            is_last = not self._present
            if self._awake:
                self._routes.remove(member)
                self._set_members([each for each in self._members if each is not member])
            # Else the door is closed, and who has come through it is told that the service stops:
            # that there is no such page would be wrong.
        if is_last:
            self.listener.end(timeout)

    def _set_members(self, members: list[WebServer]) -> None:
        self._members = members
        self.listener.threads.set_limit(sum(each.threads for each in members))

    def _answer(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        try:
            member = self._find_member(environ)
        except HTTPException as error:
            response = Response.from_app(error, environ)
            return response(environ, start_response)
        app = member.wsgi_app
        assert app is not None
        return app(environ, start_response)

    def _find_member(self, environ: dict[str, Any]) -> WebServer:
        """Return the container whose application is to answer, or raise what is to be answered."""
        members = self._members
        if len(members) == 1:
            return members[0]
        # An application sees the requests for the routes of its own container alone.
        try:
            return self._routes.match(environ).handler
        except HTTPException:
            allowed = environ["REQUEST_METHOD"] == "OPTIONS" and self._routes.allowed(environ)
            if not allowed:
                raise
        # The methods of a path may be those of several containers. Whether a page may send one of
        # them is said by the container that takes it.
        environ[ALLOWED] = allowed
        wanted = environ.get("HTTP_ACCESS_CONTROL_REQUEST_METHOD", allowed[0])
        for method in (wanted, allowed[0]):
            with contextlib.suppress(HTTPException):
                return self._routes.match({**environ, "REQUEST_METHOD": method}).handler
        return members[0]  # the routes have changed meanwhile


_lock = threading.Condition()  # guards both dictionaries and the members of each listener
_listeners: dict[BindAddress | UnixAddress, _SharedListener] = {}
_closing: dict[BindAddress | UnixAddress, _SharedListener] = {}  # their sockets are open still


def _forget_all() -> None:
    """In a forked child: the listeners serve the parent, and nobody will release that lock."""
    global _lock
    _lock = threading.Condition()
    _listeners.clear()
    _closing.clear()


os.register_at_fork(after_in_child=_forget_all)


def _join(
    member: WebServer, address: BindAddress | UnixAddress, settings: WebSettings
) -> _SharedListener:
    with _lock:
        # If it takes too long, it is the system that says that the address is taken.
        _lock.wait_for(lambda: address not in _closing, 2 * _CLOSE_SECONDS)
        shared = _listeners.get(address)
        if shared is not None:
            shared.check(settings)
            shared.add(member)
            return shared
        shared = _SharedListener(address, settings)
        try:
            shared.add(member)
        except BaseException:
            shared.listener.door.close()
            raise
        # Port 0 is a new port each time it is asked for.
        if not (isinstance(address, BindAddress) and address.port == 0):
            _listeners[address] = shared
    try:
        shared.listener.start()
    except BaseException:
        shared.close_for(member, Deadline(_CLOSE_SECONDS))
        shared.leave(member)
        raise
    return shared


def _limits_of(settings: WebSettings) -> tuple[Any, ...]:
    return (
        settings.max_header_size,
        settings.max_body_size,
        settings.request_timeout,
        settings.idle_timeout,
        settings.max_connections,
        settings.tls,
    )


def _make_context(tls: Any) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(tls["certfile"], tls.get("keyfile"), tls.get("password") or "")
    except (OSError, ValueError) as error:
        files = " and ".join(str(tls[key]) for key in ("certfile", "keyfile") if tls.get(key))
        raise ConfigurationError(f"HTTP_TLS: {files} cannot be loaded: {error}") from error
    return context
