import json

from threadko.web.handlers import http


class HttpService:
    name = "http_service"

    @http("GET", "/get/<int:value>")
    def get_method(self, request, value):
        return json.dumps({"value": value})

    @http("POST", "/post")
    def do_post(self, request):
        return f"received: {request.get_data(as_text=True)}"

    @http("GET,PUT,POST,DELETE", "/multi")
    def do_multi(self, request):
        return request.method

    @http("GET", "/privileged")
    def forbidden(self, request):
        return 403, "Forbidden"

    @http("GET", "/headers")
    def redirect(self, request):
        return 201, {"Location": "https://www.example.com/widget/1"}, ""
