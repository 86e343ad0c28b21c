"""An entrypoint of one's own: it asks a web service for messages, again and again."""

import json
import urllib.request
from functools import partial

from threadko.extensions import Entrypoint


class HttpQueue(Entrypoint):
    """Calls a method with each message of a queue that is reached over HTTP.

    GET answers with a message and its id, once there is one; DELETE takes it off the queue.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.url = None

    def setup(self):
        self.url = self.container.config["QUEUE_URL"]

    def start(self):
        # An exception that leaves this thread ends the container.
        self.container.spawn_managed_thread(self.run, identifier="HttpQueue.run")

    def run(self):
        while not self.container.stopping.is_set():
            message = self.receive()
            if message is not None:
                self.handle_message(message)

    def receive(self):
        try:
            with urllib.request.urlopen(self.url, timeout=10) as answer:
                return json.load(answer)
        except (OSError, ValueError):  # not there, or nothing to read
            self.container.stopping.wait(0.1)
            return None

    def handle_message(self, message):
        # Waits while all workers are busy, and raises ContainerStopped when the service stops.
        self.container.spawn_worker(
            self, (message["body"],), {}, handle_result=partial(self.handle_result, message["id"])
        )

    def handle_result(self, message_id, worker_ctx, result, exc_info):
        if exc_info is None:
            request = urllib.request.Request(f"{self.url}/{message_id}", method="DELETE")
            urllib.request.urlopen(request, timeout=10).close()
        return result, exc_info


http_queue = HttpQueue.decorator


class Printer:
    name = "printer"

    @http_queue
    def show(self, body):
        print("got", body)
