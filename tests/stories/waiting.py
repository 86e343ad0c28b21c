"""`python -m tests.stories.waiting FOLDER`: a gRPC and an HTTPS server that answer after a while.

In a process of their own, so that their threads are not those of the drivers. FOLDER holds the
certificate; each answers when as many seconds have passed as it is asked for.
"""

import http.server
import ssl
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc

_never = threading.Event()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        _never.wait(float(self.path.removeprefix("/")))
        self.send_response(200)
        self.send_header("Content-Length", "6")
        self.end_headers()
        self.wfile.write(b"waited")

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


def _wait(request: bytes, _context: Any) -> bytes:
    _never.wait(float(request))
    return b"waited"


def main(folder: str) -> None:
    """Serve until the input ends; tells both ports first."""
    with ThreadPoolExecutor(64) as pool:
        grpc_server = grpc.server(pool)
        handler = grpc.unary_unary_rpc_method_handler(_wait)
        grpc_server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("Waiting", {"wait": handler}),)
        )
        grpc_port = grpc_server.add_insecure_port("127.0.0.1:0")
        grpc_server.start()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(Path(folder) / "server.pem")
        https_server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        https_server.socket = context.wrap_socket(https_server.socket, server_side=True)
        threading.Thread(target=https_server.serve_forever, daemon=True).start()
        sys.stdout.write(f"ports {grpc_port} {https_server.server_address[1]}\n")
        sys.stdout.flush()
        sys.stdin.read()
        https_server.shutdown()
        grpc_server.stop(None).wait()


if __name__ == "__main__":
    main(sys.argv[1])
