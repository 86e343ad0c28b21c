from werkzeug.wrappers import Response

from threadko.web.handlers import http


class Service:
    name = "advanced_http_service"

    @http("GET", "/custom")
    def custom_response(self, request):
        return Response("payload", status=418, headers={"X-Kind": "teapot"})
