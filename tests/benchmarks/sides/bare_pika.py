"""An RPC echo, and an event, on the same wire with nothing but pika's select loop: the yardstick.

``bare_pika.py server AMQP_URI`` or ``bare_pika.py client AMQP_URI``. Straightforward code: each
message is decoded, answered and acked in its callback, as pika's own examples do it.
"""

import json
import os
import sys
import threading
import time
import uuid
from collections.abc import Callable
from functools import partial
from typing import Any

import pika
from pika.channel import Channel

from tests.benchmarks.workload import SPIN_LIMIT_SECONDS, Spinner
from tests.interop.lines import serve, tell

_EXCHANGE = "nameko-rpc"
_PREFETCH = 20  # threadko's: twice ten workers
_RUN = os.environ.get("BENCH_RUN", "")
_NAME = f"bench_bare_echo_{_RUN}"
_EVENTS = f"bench_bare pika_source_{_RUN}.events"
_EVENT_QUEUE = f"evt-bench_bare pika_source_{_RUN}-tick--bench_bare pika_echo_{_RUN}.on_tick"
_HEADERS = {"nameko.call_id_stack": ["standalone_rpc_client.0.0"]}


class Loop:
    """One SelectConnection with two channels: the first consumes, the second has confirms."""

    def __init__(self, uri: str, queue: str, key: str, arguments: dict[str, Any] | None) -> None:
        self._queue = queue
        self._key = key
        self._arguments = arguments
        self.consuming: Channel
        self.publishing: Channel
        self.connection = pika.SelectConnection(
            pika.URLParameters(uri), on_open_callback=self._on_connection
        )

    def _on_connection(self, connection: pika.SelectConnection) -> None:
        connection.channel(on_open_callback=self._on_consuming)

    def _on_consuming(self, channel: Channel) -> None:
        self.consuming = channel
        channel.exchange_declare(_EXCHANGE, "topic", durable=True)
        channel.queue_declare(self._queue, durable=True, arguments=self._arguments)
        channel.queue_bind(self._queue, _EXCHANGE, self._key, callback=self._on_bound)

    def _on_bound(self, _frame: Any) -> None:
        self.connection.channel(on_open_callback=self._on_publishing)

    def _on_publishing(self, channel: Channel) -> None:
        self.publishing = channel
        channel.confirm_delivery(self._on_confirm, callback=self._on_ready)

    def _on_confirm(self, _frame: Any) -> None:
        """A publish is confirmed; nobody waits for it."""

    def _on_ready(self, _frame: Any) -> None:
        raise NotImplementedError


class Server(Loop):
    """Echoes; ``compute`` spins in a thread beside the loop until ``release`` is called."""

    def __init__(self, uri: str) -> None:
        super().__init__(uri, f"rpc-{_NAME}", f"{_NAME}.*", None)
        self._spinner = Spinner()
        self._events = 0
        self._when_counted: tuple[int, Callable[[], None]] | None = None

    def _on_ready(self, _frame: Any) -> None:
        self.consuming.exchange_declare(_EVENTS, "topic", durable=True)
        self.consuming.queue_declare(_EVENT_QUEUE, durable=True)
        self.consuming.queue_bind(_EVENT_QUEUE, _EVENTS, "tick")
        self.consuming.basic_qos(prefetch_count=_PREFETCH)
        self.consuming.basic_consume(f"rpc-{_NAME}", self._on_request)
        self.consuming.basic_consume(_EVENT_QUEUE, self._on_event)

    def _on_event(
        self, channel: Channel, method: Any, _properties: pika.BasicProperties, body: bytes
    ) -> None:
        json.loads(body)
        self._events += 1
        channel.basic_ack(method.delivery_tag)
        self._check_count()

    def _check_count(self) -> None:
        if self._when_counted is not None and self._events >= self._when_counted[0]:
            count, answer = self._when_counted
            self._when_counted = None
            self._events -= count
            answer()

    def _on_request(
        self, channel: Channel, method: Any, properties: pika.BasicProperties, body: bytes
    ) -> None:
        argument = json.loads(body)["args"][0]
        if method.routing_key.endswith(".compute"):
            spin = partial(self._spinner.spin, SPIN_LIMIT_SECONDS)
            threading.Thread(target=spin, daemon=True).start()
        elif method.routing_key.endswith(".release"):
            self._spinner.release()
        answer = partial(self._answer, method.delivery_tag, properties, argument)
        if method.routing_key.endswith(".wait_events"):
            self._when_counted = argument, answer
            self._check_count()
        else:
            answer()

    def _answer(self, tag: int, properties: pika.BasicProperties, argument: Any) -> None:
        self.publishing.basic_publish(
            _EXCHANGE,
            properties.reply_to,
            json.dumps({"result": argument, "error": None}).encode(),
            pika.BasicProperties(
                content_type="application/json",
                content_encoding="utf-8",
                headers={},
                delivery_mode=2,
                priority=0,
                correlation_id=properties.correlation_id,
            ),
        )
        self.consuming.basic_ack(tag)


class Client(Loop):
    """Keeps a window of requests in flight. ``measure`` is for the main thread."""

    def __init__(self, uri: str) -> None:
        self._reply_to = str(uuid.uuid4())
        queue = f"rpc.reply-bench_bare-{self._reply_to}"
        super().__init__(uri, queue, self._reply_to, {"x-expires": 300_000})
        self.ready = threading.Event()
        self._pending: dict[str, Callable[[], None]] = {}
        self._confirmed: Callable[[], None] | None = None

    def _on_confirm(self, _frame: Any) -> None:
        if self._confirmed is not None:
            self._confirmed()

    def _on_ready(self, _frame: Any) -> None:
        self.consuming.basic_consume(self._queue, self._on_reply)
        self.publishing.add_on_return_callback(self._on_return)
        self.ready.set()

    def measure(self, request: dict[str, Any]) -> dict[str, Any]:
        """Run one measurement on the loop; returns ``{"calls", "elapsed"}``."""
        if request["workload"] == "events":
            return self._measure_events(request["seconds"])
        seconds = request["seconds"]
        computing = request["workload"] == "in flight, computing"
        window = 1 if request["workload"] == "sequential" else request["window"]
        done = threading.Event()
        counted: dict[str, Any] = {"calls": 0}

        def begin() -> None:
            if computing:
                self._send("compute", None, lambda: None)
            counted["began"] = time.monotonic()
            for _ in range(window):
                self._send("echo", "hello", answered)

        def answered() -> None:
            counted["calls"] += 1
            counted["elapsed"] = time.monotonic() - counted["began"]
            if counted["elapsed"] < seconds:
                self._send("echo", "hello", answered)
            elif not self._pending:
                if computing:
                    self._send("release", None, done.set)
                else:
                    done.set()

        self.connection.ioloop.add_callback_threadsafe(begin)
        if not done.wait(seconds + 60):
            raise RuntimeError(f"{len(self._pending)} calls are not answered")
        return {"calls": counted["calls"], "elapsed": counted["elapsed"]}

    def _measure_events(self, seconds: float) -> dict[str, Any]:
        """Publish an event whenever the one before is confirmed, until all are handled."""
        done = threading.Event()
        counted: dict[str, Any] = {"calls": 0}

        def begin() -> None:
            counted["began"] = time.monotonic()
            self._confirmed = confirmed
            self._publish_event(0)

        def confirmed() -> None:
            counted["calls"] += 1
            if time.monotonic() - counted["began"] < seconds:
                self._publish_event(counted["calls"])
            else:
                self._confirmed = None
                self._send("wait_events", counted["calls"], handled)

        def handled() -> None:
            counted["elapsed"] = time.monotonic() - counted["began"]
            done.set()

        self.connection.ioloop.add_callback_threadsafe(begin)
        if not done.wait(seconds + 60):
            raise RuntimeError("the events are not handled")
        return {"calls": counted["calls"], "elapsed": counted["elapsed"]}

    def _publish_event(self, number: int) -> None:
        self.publishing.basic_publish(
            _EVENTS,
            "tick",
            json.dumps(number).encode(),
            pika.BasicProperties(
                content_type="application/json",
                content_encoding="utf-8",
                headers={},
                delivery_mode=2,
                priority=0,
            ),
        )

    def _send(self, method: str, argument: Any, answered: Callable[[], None]) -> None:
        correlation_id = str(uuid.uuid4())
        self._pending[correlation_id] = answered
        self.publishing.basic_publish(
            _EXCHANGE,
            f"{_NAME}.{method}",
            json.dumps({"args": [argument], "kwargs": {}}).encode(),
            pika.BasicProperties(
                content_type="application/json",
                content_encoding="utf-8",
                headers=_HEADERS,
                delivery_mode=2,
                priority=0,
                correlation_id=correlation_id,
                reply_to=self._reply_to,
            ),
            mandatory=True,
        )

    def _on_reply(
        self, channel: Channel, method: Any, properties: pika.BasicProperties, body: bytes
    ) -> None:
        json.loads(body)
        channel.basic_ack(method.delivery_tag)
        self._pending.pop(properties.correlation_id)()

    def _on_return(self, *_returned: Any) -> None:
        raise RuntimeError("the echo server is gone")


def main(role: str, uri: str) -> None:
    """Serve until the process is ended, or measure until the input ends."""
    if role == "server":
        Server(uri).connection.ioloop.start()
        return
    client = Client(uri)
    threading.Thread(target=client.connection.ioloop.start, daemon=True).start()
    if not client.ready.wait(30):
        raise RuntimeError("the bare client got no connection")
    broker = client.connection.server_properties.get("version", "unknown")
    tell({"ready": True, "version": pika.__version__, "broker": broker})
    serve(client.measure)


if __name__ == "__main__":
    main(*sys.argv[1:])
