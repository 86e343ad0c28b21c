"""The WSGI application of one container: which handler answers, and what if none does.

Called by any number of threads; it holds nothing but routes.
"""

import logging
from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol

from werkzeug.exceptions import HTTPException, MethodNotAllowed
from werkzeug.routing import RequestRedirect, Rule
from werkzeug.wrappers import Request, Response
from werkzeug.wsgi import ClosingIterator

from threadko.utils.safelog import log_safely
from threadko.web.cors import Cors
from threadko.web.exchange import CONNECTION, EXCHANGE, refuse_for_now
from threadko.web.responses import response_from_exception
from threadko.web.routes import Routes

__all__ = ["ALLOWED", "Provider", "Server", "WsgiApp"]

_log = logging.getLogger(__name__)

#: Where an environ keeps the methods that its path takes, if several containers share them.
ALLOWED: Final = "threadko.allowed"

StartResponse = Callable[..., Any]


class Provider(Protocol):
    """Whoever answers requests: an entrypoint."""

    def get_url_rule(self) -> Rule:
        """Return what it answers."""

    def handle_request(self, request: Request) -> Response:
        """Answer a request."""


class Server(Protocol):
    """What the application asks its web server."""

    routes: Routes[Provider]
    cors: Cors | None

    @property
    def is_open(self) -> bool:
        """Whether requests are let in."""


class WsgiApp:
    """Answers the requests for the routes of one container.

    Args:
        server: has the routes.
    """

    def __init__(self, server: Server) -> None:
        self.server = server

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Answer as WSGI says."""
        request = Request(environ, populate_request=False)
        response = self._answer(request)
        if self.server.cors is not None:
            for name, value in self.server.cors.answer(environ).items():
                response.headers.setdefault(name, value)
        body: Iterable[bytes] = response(environ, start_response)
        exchange = environ.get(EXCHANGE)
        if exchange is None:
            return body
        if not exchange.streamed and CONNECTION not in environ:
            # A server of somebody else's, or a client of tests, which may close nothing.
            exchange.finish()
            return body
        # Not `call_on_close`, which a response that is returned again and again would collect.
        return ClosingIterator(body, exchange.finish)

    def _answer(self, request: Request) -> Response:
        try:
            match = self.server.routes.match(request.environ)
            if not self.server.is_open:
                return refuse_for_now()
            # An attribute of ours, for the handler to read.
            request.path_values = match.path_values  # type: ignore[attr-defined]
            return match.handler.handle_request(request)
        except RequestRedirect as redirect:
            return Response.from_app(redirect, request.environ)
        except MethodNotAllowed as error:
            if request.method == "OPTIONS":
                return self._answer_options(request.environ)
            return Response.from_app(error, request.environ)
        except HTTPException as error:
            return Response.from_app(error, request.environ)
        except Exception as error:
            log_safely(_log, logging.ERROR, "%s failed", request.path, exc_info=error)
            return response_from_exception(error)

    def _answer_options(self, environ: dict[str, Any]) -> Response:
        allowed = environ.get(ALLOWED) or self.server.routes.allowed(environ)
        methods = [*allowed, "OPTIONS"]
        headers = {"Allow": ", ".join(methods)}
        if self.server.cors is not None:
            headers |= self.server.cors.answer_preflight(environ, methods)
        return Response(status=204, headers=headers)
