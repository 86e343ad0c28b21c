"""RabbitMQ's management API, as far as tests ask for it.

A client keeps nothing but its address, so any thread may use it.
"""

import base64
import io
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import Any
from urllib.error import HTTPError

from threadko.exceptions import BrokerError, ConfigurationError
from threadko.utils.redaction import sanitize_url

__all__ = ["Client", "HTTPError"]

_SECONDS = 30.0


class Client:
    """The management API of a RabbitMQ. It is asked for its overview at once.

    Args:
        uri: where it is, such as `http://guest:guest@localhost:15672`.

    Raises:
        ConfigurationError: the address cannot be used, or the user is refused.
        BrokerError: nobody answers there.
    """

    def __init__(self, uri: str) -> None:
        parts = urllib.parse.urlsplit(uri)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigurationError(
                "the address of the management API cannot be used: it must be like"
                " http://guest:guest@localhost:15672"
            )
        self._shown = sanitize_url(uri)
        netloc = parts.netloc.rpartition("@")[2]
        self._url = f"{parts.scheme}://{netloc}{parts.path.rstrip('/')}/api"
        user = urllib.parse.unquote(parts.username or "guest")
        password = urllib.parse.unquote(parts.password or "guest")
        token = base64.b64encode(f"{user}:{password}".encode()).decode()
        self._headers = {"Authorization": f"Basic {token}", "Content-Type": "application/json"}
        # Without the proxies of the environment: the API of a test's broker is near.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        self._check()

    def _check(self) -> None:
        try:
            self._ask("GET", "overview")
        except HTTPError as error:
            if error.code >= 500:
                raise BrokerError(f"the management API at {self._shown} fails: {error}") from error
            raise ConfigurationError(
                f"the management API at {self._shown} refuses us ({error.code} {error.reason}):"
                " give a user with the tag 'management', and the address of the API itself"
            ) from error
        except (OSError, ValueError) as error:
            raise BrokerError(
                f"no management API at {self._shown} ({error}): enable it by `rabbitmq-plugins"
                " enable rabbitmq_management`, or give its address"
            ) from error

    def get_connections(self) -> Any:
        """Return all connections."""
        return self._ask("GET", "connections")

    def delete_connection(self, name: str) -> None:
        """Have the broker close a connection."""
        self._ask("DELETE", "connections", name)

    def get_exchanges(self, vhost: str) -> Any:
        """Return the exchanges of a vhost."""
        return self._ask("GET", "exchanges", vhost)

    def get_all_vhosts(self) -> Any:
        """Return all vhosts."""
        return self._ask("GET", "vhosts")

    def create_vhost(self, vhost: str) -> None:
        """Make a vhost."""
        self._ask("PUT", "vhosts", vhost)

    def delete_vhost(self, vhost: str) -> None:
        """Delete a vhost with all that is in it."""
        self._ask("DELETE", "vhosts", vhost)

    def set_vhost_permissions(
        self, vhost: str, username: str, configure: str, read: str, write: str
    ) -> None:
        """Say what a user may do in a vhost, by patterns of names."""
        body = {"configure": configure, "read": read, "write": write}
        self._ask("PUT", "permissions", vhost, username, body=body)

    def get_queue(self, vhost: str, name: str) -> Any:
        """Return one queue."""
        return self._ask("GET", "queues", vhost, name)

    def create_queue(self, vhost: str, name: str, **properties: Any) -> None:
        """Make a queue."""
        self._ask("PUT", "queues", vhost, name, body=properties)

    def get_queues(self, vhost: str) -> Any:
        """Return the queues of a vhost."""
        return self._ask("GET", "queues", vhost)

    def get_queue_bindings(self, vhost: str, name: str) -> Any:
        """Return the bindings of a queue."""
        return self._ask("GET", "queues", vhost, name, "bindings")

    def create_queue_binding(self, vhost: str, exchange: str, queue: str, routing_key: str) -> None:
        """Bind a queue to an exchange."""
        body = {"routing_key": routing_key}
        self._ask("POST", "bindings", vhost, "e", exchange, "q", queue, body=body)

    def publish(
        self,
        vhost: str,
        name: str,
        routing_key: str,
        payload: str,
        properties: Mapping[str, Any] | None = None,
    ) -> Any:
        """Publish a text to an exchange; the answer says whether a queue took it."""
        body = {
            "routing_key": routing_key,
            "payload": payload,
            "properties": dict(properties or {}),
            "payload_encoding": "string",
        }
        return self._ask("POST", "exchanges", vhost, name, "publish", body=body)

    def get_messages(self, vhost: str, name: str, count: int = 1, requeue: bool = False) -> Any:
        """Take messages from a queue, or look at them if they are to be put back."""
        body = {
            "count": count,
            "ackmode": "ack_requeue_true" if requeue else "ack_requeue_false",
            "encoding": "auto",
        }
        return self._ask("POST", "queues", vhost, name, "get", body=body)

    def _ask(self, method: str, *path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Return what the API answers, None if that is nothing; `HTTPError` if it refuses."""
        url = "/".join((self._url, *(urllib.parse.quote(part, safe="") for part in path)))
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data, self._headers, method=method)
        try:
            with self._opener.open(request, timeout=_SECONDS) as response:
                text = response.read()
        except HTTPError as error:
            # It holds the connection open; what it says is kept.
            with error:
                said = error.read()
            raise HTTPError(
                url, error.code, error.reason, error.headers, io.BytesIO(said)
            ) from None
        return json.loads(text) if text else None
