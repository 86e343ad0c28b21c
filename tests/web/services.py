"""A service that several rooms are tested with."""

import threading

from tests.support.timing import TIMEOUT
from threadko.web.handlers import http

FINE = b"GET /echo?fine HTTP/1.1\r\nHost: a\r\n\r\n"


class Echo:
    name = "echo"
    meeting = threading.Barrier(4)

    @http("GET,POST", "/echo")
    def echo(self, request):
        detail = request.get_data() or request.query_string
        return request.method.encode() + b" " + request.path.encode() + b" " + detail

    @http("GET", "/meet")
    def meet(self, request):
        self.meeting.wait(TIMEOUT)
        return "met"


def url(address, path="/echo"):
    return f"http://{address}{path}"
