"""A Flask application with a service inside: what the service hears, the pages show.

python flask_host.py [PORT]
"""

import os
import sys
import threading

from flask import Flask
from werkzeug.serving import make_server

from threadko.containers import Observer, ServiceContainer
from threadko.rpc import rpc

CONFIG = {"AMQP_URI": os.environ.get("AMQP_URI", "amqp://guest:guest@localhost:5672/")}

stock = {}
stock_lock = threading.Lock()  # guards stock: workers and requests are threads of one process
app = Flask(__name__)


class Stock:
    name = "stock"

    @rpc
    def put(self, item, amount):
        with stock_lock:
            stock[item] = stock.get(item, 0) + amount


@app.get("/stock/<item>")
def show(item):
    with stock_lock:
        return {"amount": stock.get(item, 0)}


def main(port=5000):
    container = ServiceContainer(Stock, config=CONFIG)
    server = make_server("127.0.0.1", port, app, threaded=True)

    def tell(container, error):
        """The application ends with its service."""
        print("ended well" if error is None else f"ended by {error!r}", flush=True)
        threading.Thread(target=server.shutdown).start()  # waits for serve_forever

    container.observers.add(Observer(on_death=tell))
    container.start()
    print(f"serving on port {server.port}", flush=True)
    try:
        server.serve_forever()
    finally:
        container.stop()
        server.server_close()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
