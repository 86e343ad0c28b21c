from threadko.contextdata import Language
from threadko.web.handlers import HttpRequestHandler
from threadko.web.server import WebServer


class LanguageServer(WebServer):
    """Hands the language of a request on, to this worker and all whom it calls."""

    def context_data_from_headers(self, request):
        language = request.accept_languages.best_match(["en", "de", "sv"])
        return {"language": language} if language else {}


class HttpEntrypoint(HttpRequestHandler):
    server = LanguageServer()


http = HttpEntrypoint.decorator


class Greeter:
    name = "web_greeter"

    language = Language()

    @http("GET", "/hello")
    def hello(self, request):
        greetings = {"de": "Hallo", "sv": "Hej"}
        return greetings.get(self.language, "Hello")
