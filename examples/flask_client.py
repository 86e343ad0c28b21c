"""A Flask application that calls services: its requests share one client.

flask --app flask_client run
gunicorn --threads 16 flask_client:app
"""

import os

from flask import Flask

from threadko.standalone.rpc import ClusterRpcClient

CONFIG = {"AMQP_URI": os.environ.get("AMQP_URI", "amqp://guest:guest@localhost:5672/")}

# Connected for the life of the process. A process that is forked later gets a client of its own.
client = ClusterRpcClient(config=CONFIG, timeout=30)
cluster = client.start()
app = Flask(__name__)


@app.get("/prices/<int:number>")
def price(number):
    return {"price": cluster.quotes.price(number)}
