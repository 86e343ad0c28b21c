"""The `http` entrypoint: a method that answers HTTP requests."""

import logging
from collections.abc import Mapping
from functools import partial
from typing import Any, cast

from werkzeug.routing import Rule
from werkzeug.wrappers import Request, Response

from threadko.extensions import Entrypoint, ExcInfo, WorkerContext
from threadko.utils.safelog import log_safely
from threadko.web.exchange import Exchange
from threadko.web.responses import check_head, response_from_exception, response_from_result
from threadko.web.routes import make_rule
from threadko.web.server import WebServer

__all__ = ["HttpRequestHandler", "http"]

_log = logging.getLogger(__name__)


class HttpRequestHandler(Entrypoint):
    """Answers requests with what a method returns; see `http`.

    Args:
        method: an HTTP method, or several with commas.
        url: a werkzeug rule, such as `/orders/<int:number>`.
        kwargs: `expected_exceptions` and `sensitive_arguments`.
    """

    server = WebServer()

    def __init__(self, method: str, url: str, **kwargs: Any) -> None:
        self.method = method
        self.url = url
        super().__init__(**kwargs)

    def __repr__(self) -> str:
        if not self.is_bound():
            return f"<{type(self).__name__} {self.method} {self.url}>"
        return f"{self.container.service_name}.{self.method_name}"

    def get_url_rule(self) -> Rule:
        """Return the rule of the requests that come here."""
        return make_rule(self.method, self.url)

    @classmethod
    def _declare(cls, method: Any, entrypoint: Entrypoint) -> Any:
        # So that the decorator says what is wrong. A rule of a subclass's own may not be known yet.
        if cls.get_url_rule is HttpRequestHandler.get_url_rule:
            cast(HttpRequestHandler, entrypoint).get_url_rule()
        return super()._declare(method, entrypoint)

    def setup(self) -> None:
        """Register the route."""
        self.server.register_provider(self)

    def stop(self) -> None:
        """Answer no more; the server has closed its line."""
        self.server.unregister_provider(self)

    def get_entrypoint_parameters(
        self, request: Request
    ) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
        """Return the arguments and keyword arguments of the method."""
        return (request,), request.path_values  # type: ignore[attr-defined]  # set by `wsgi`

    def handle_request(self, request: Request) -> Response:
        """Run the method in a worker, and return the response."""
        try:
            context_data = self.server.context_data_from_headers(request)
            args, kwargs = self.get_entrypoint_parameters(request)
            self.check_signature(args, kwargs)
        except Exception as error:
            log_safely(_log, logging.ERROR, "%s could not begin", self.url, exc_info=error)
            return self.response_from_exception(error)
        exchange = self.server.begin_exchange(request, self)
        handle_result = partial(self.handle_result, exchange)
        return exchange.run(args, kwargs, context_data, handle_result)

    def handle_result(
        self,
        exchange: Exchange,
        worker_ctx: WorkerContext,
        result: Any = None,
        exc_info: ExcInfo | None = None,
    ) -> tuple[Any, ExcInfo | None]:
        """Make the response, inside the worker."""
        exchange.response = None
        if exc_info is None:
            response = self.response_from_result(result)
        else:
            response = self.response_from_exception(exc_info[1])
        check_head(response.status, response.headers)
        exchange.response = response
        return result, exc_info

    def response_from_result(self, result: Any) -> Response:
        """Return the response for what the method returned."""
        return response_from_result(result)

    def response_from_exception(self, exc: BaseException) -> Response:
        """Return the response for what the method raised."""
        return response_from_exception(exc, self.expected_exceptions)


http = HttpRequestHandler.decorator
