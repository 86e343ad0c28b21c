"""A caller and a service made of plain messages, to see what threadko writes and to write worse."""

import json
import pickle
import uuid
from typing import Any

import msgpack
import yaml

from tests.support.amqp import (
    RawMessage,
    declare_queue,
    delete_queue,
    expect_message,
    get_message,
    open_channel,
    publish,
)
from tests.support.timing import TIMEOUT

__all__ = ["RawCaller", "RawService", "read_body"]


def read_body(properties: Any, body: bytes) -> Any:
    """Return the body of a message by its content type; JSON if that is unheard of."""
    readers: dict[str, Any] = {
        "application/x-python-serialize": pickle.loads,
        "application/x-yaml": yaml.safe_load,
        "application/x-msgpack": msgpack.unpackb,
    }
    return readers.get(properties.content_type, json.loads)(body)


class RawService:
    """Takes requests for a service name and answers when the test says so; a context manager."""

    def __init__(self, uri: str, exchange: str, name: str) -> None:
        self._uri = uri
        self._exchange = exchange
        with open_channel(uri) as channel:
            channel.exchange_declare(exchange, "topic", durable=True)  # as every caller does
        self.queue = declare_queue(
            uri, f"rpc-{name}", durable=True, exchange=exchange, routing_key=f"{name}.*"
        )

    def take(self, timeout: float = TIMEOUT) -> RawMessage:
        """Wait for a request."""
        return expect_message(self._uri, self.queue, timeout)

    def reply(self, request: RawMessage, result: Any = None, **properties: Any) -> None:
        """Answer a request; properties are pika's, and win over the right ones."""
        body = json.dumps({"result": result, "error": None}).encode()
        self.reply_raw(request, body, **properties)

    def reply_raw(self, request: RawMessage, body: bytes, **properties: Any) -> None:
        publish(
            self._uri,
            body,
            exchange=self._exchange,
            routing_key=request.properties.reply_to,
            **{
                "content_type": "application/json",
                "content_encoding": "utf-8",
                "correlation_id": request.properties.correlation_id,
                **properties,
            },
        )

    def __enter__(self) -> "RawService":
        return self

    def __exit__(self, *_: object) -> None:
        delete_queue(self._uri, self.queue)


class RawCaller:
    """Sends requests of any shape and takes the replies; a context manager."""

    def __init__(self, uri: str, exchange: str) -> None:
        self._uri = uri
        self._exchange = exchange
        self.reply_to = str(uuid.uuid4())
        self.queue = declare_queue(
            uri, f"replies-{self.reply_to}", exchange=exchange, routing_key=self.reply_to
        )

    def send(self, target: str, body: Any = None, **properties: Any) -> str:
        """Send a request to `service.method`; bytes go as they are. Returns its correlation id."""
        correlation_id = str(uuid.uuid4())
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        wanted = {
            "content_type": "application/json",
            "content_encoding": "utf-8",
            "correlation_id": correlation_id,
            "reply_to": self.reply_to,
            "headers": {},
            **properties,
        }
        publish(
            self._uri,
            content,
            exchange=self._exchange,
            routing_key=target,
            **{name: value for name, value in wanted.items() if value is not None},
        )
        return correlation_id

    def take_raw(self) -> RawMessage:
        """Wait for a reply."""
        return expect_message(self._uri, self.queue)

    def take(self) -> tuple[RawMessage, Any]:
        """Wait for a reply; returns it and its body, decoded."""
        reply = self.take_raw()
        return reply, read_body(reply.properties, reply.body)

    def ask(self, target: str, body: Any = None, **properties: Any) -> Any:
        """Send a request and return the body of its reply, decoded."""
        correlation_id = self.send(target, body, **properties)
        reply, answer = self.take()
        assert reply.properties.correlation_id == correlation_id
        return answer

    def left(self) -> RawMessage | None:
        """A reply that nobody has taken yet."""
        return get_message(self._uri, self.queue)

    def __enter__(self) -> "RawCaller":
        return self

    def __exit__(self, *_: object) -> None:
        delete_queue(self._uri, self.queue)
