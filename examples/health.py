"""A program of its own that hosts a service, and tells a supervisor how that is."""

import os
from functools import partial

import requests

from threadko.health import HealthServer, find_hangs, find_troubles
from threadko.rpc import rpc
from threadko.runners import ServiceRunner


class Service:
    name = "healthy_service"

    @rpc
    def hello(self):
        return "hello"


runner = ServiceRunner(config={"AMQP_URI": os.environ.get("AMQP_URI")})
runner.add_service(Service)
server = HealthServer(
    "127.0.0.1:0",
    live=partial(find_hangs, runner.containers, hung_timeout=1800),
    ready=partial(find_troubles, runner.containers),
)
server.start()
before = requests.get(f"http://{server.address}/ready", timeout=10)
runner.start()
live = requests.get(f"http://{server.address}/live", timeout=10)
print(before.status_code, before.text.strip())
print(live.status_code, live.text.strip())
runner.stop()
server.close()
