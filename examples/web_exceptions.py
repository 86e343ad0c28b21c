import json

from werkzeug.wrappers import Response

from threadko.exceptions import BadRequest, safe_for_serialization
from threadko.web.handlers import HttpRequestHandler


class InvalidArgumentsError(Exception):
    code = "INVALID_ARGUMENTS"


class NotFoundError(Exception):
    code = "NOT_FOUND"


class HttpEntrypoint(HttpRequestHandler):
    """Answers errors as JSON, with a status for each kind that is known."""

    statuses = (
        (InvalidArgumentsError, 422),
        (NotFoundError, 404),
        (BadRequest, 400),
    )

    def response_from_exception(self, exc):
        for kind, status in self.statuses:
            if isinstance(exc, kind):
                body = {
                    "error": getattr(exc, "code", "BAD_REQUEST"),
                    "message": safe_for_serialization(exc),
                }
                return Response(json.dumps(body), status=status, mimetype="application/json")
        return super().response_from_exception(exc)


http = HttpEntrypoint.decorator


class Service:
    name = "http_service"

    @http("GET", "/known")
    def known(self, request):
        raise InvalidArgumentsError("Argument `foo` is required.")

    @http("GET", "/missing/<name>")
    def missing(self, request, name):
        raise NotFoundError(name)

    @http("GET", "/unknown")
    def unknown(self, request):
        raise RuntimeError("the client does not see this")
