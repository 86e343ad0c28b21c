"""threadko's web service: one route that answers at once, one that waits in C."""

import ctypes
from typing import Any

from threadko.web.handlers import http

_libc = ctypes.CDLL(None)


class Web:
    name = "bench_threadko_web"

    @http("GET", "/hello/<int:number>")
    def hello(self, request: Any, number: int) -> str:
        return f"hello {number}"

    @http("GET", "/wait")
    def wait(self, request: Any) -> str:
        _libc.usleep(50_000)  # as a driver written in C waits for its server
        return "waited"
