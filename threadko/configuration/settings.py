"""The settings of each part, taken from the configuration.

They are taken at the edge, when an extension is set up; the code below is passed values.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from threadko.configuration.checks import CodecSettings
from threadko.configuration.keys import KEYS

__all__ = [
    "BrokerSettings",
    "CodecSettings",
    "ContainerSettings",
    "EventSettings",
    "HealthSettings",
    "ProcessSettings",
    "RpcSettings",
    "RunnerSettings",
    "SerializationSettings",
    "WebSettings",
    "WebSocketSettings",
]


class _Reader:
    """The values of one configuration, by the names of the table."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        # All at once: another thread may replace the configuration while it is read.
        entries = [(key, value) for key, value in config.items() if isinstance(key, str)]
        self._entries = {key.lower(): value for key, value in entries}
        self._entries |= {key.lower(): value for key, value in entries if key in KEYS}

    def __getitem__(self, name: str) -> Any:
        return KEYS[name].read(self._entries)


@dataclass(frozen=True)
class BrokerSettings:
    """How to reach the broker, and what to demand of it."""

    uri: str | tuple[str, ...]
    ssl: Any
    login_method: str | None
    heartbeat: int
    publish_timeout: float
    publish_window: int
    start_timeout: float | None
    consumer_watchdog: float
    max_message_size: int

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "BrokerSettings":
        """Return the settings in a configuration; `ConfigurationError` if a value is wrong."""
        values = _Reader(config)
        return cls(
            uri=values["AMQP_URI"],
            ssl=values["AMQP_SSL"],
            login_method=values["LOGIN_METHOD"],
            heartbeat=values["HEARTBEAT"],
            publish_timeout=values["PUBLISH_TIMEOUT"],
            publish_window=values["PUBLISH_WINDOW"],
            start_timeout=values["BROKER_START_TIMEOUT"],
            consumer_watchdog=values["CONSUMER_WATCHDOG"],
            max_message_size=values["MAX_MESSAGE_SIZE"],
        )

    def __repr__(self) -> str:
        # Without the URI, which may hold a password.
        return f"<BrokerSettings heartbeat={self.heartbeat}>"


@dataclass(frozen=True)
class EventSettings:
    """How the exchanges and queues of events are made."""

    auto_delete_exchanges: bool
    declare_exchanges: bool
    queue_arguments: Mapping[str, Any]

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "EventSettings":
        """Return the settings in a configuration; `ConfigurationError` if a value is wrong."""
        values = _Reader(config)
        return cls(
            auto_delete_exchanges=values["AUTO_DELETE_EVENT_EXCHANGES"],
            declare_exchanges=values["DECLARE_EVENT_EXCHANGES"],
            queue_arguments=values["EVENT_QUEUE_ARGUMENTS"],
        )


@dataclass(frozen=True)
class ContainerSettings:
    """How much a container does at once."""

    max_workers: int
    prefetch_count: int
    parent_calls_tracked: int
    shutdown_timeout: float
    stuck_warning: float | None

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "ContainerSettings":
        """Return the settings in a configuration; `ConfigurationError` if a value is wrong."""
        values = _Reader(config)
        max_workers = values["max_workers"]
        return cls(
            max_workers=max_workers,
            prefetch_count=values["PREFETCH_COUNT"] or 2 * max_workers,
            parent_calls_tracked=values["parent_calls_tracked"],
            shutdown_timeout=values["SHUTDOWN_TIMEOUT"],
            stuck_warning=values["STUCK_WARNING"],
        )


@dataclass(frozen=True)
class SerializationSettings:
    """How messages are written and which are read."""

    serializer: str
    accept: tuple[str, ...]
    serializers: tuple[CodecSettings, ...]
    max_message_size: int

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "SerializationSettings":
        """Return the settings in a configuration; `ConfigurationError` if a value is wrong."""
        values = _Reader(config)
        serializer = values["serializer"]
        return cls(
            serializer=serializer,
            accept=values["ACCEPT"] or (serializer,),
            serializers=values["SERIALIZERS"],
            max_message_size=values["MAX_MESSAGE_SIZE"],
        )


@dataclass(frozen=True)
class RpcSettings:
    """Where RPC requests go, and how long a call may take."""

    exchange: str
    timeout: float | None
    queue_arguments: Mapping[str, Any]

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "RpcSettings":
        """Return the settings in a configuration; `ConfigurationError` if a value is wrong."""
        values = _Reader(config)
        return cls(
            exchange=values["rpc_exchange"],
            timeout=values["RPC_TIMEOUT"],
            queue_arguments=values["RPC_QUEUE_ARGUMENTS"],
        )


@dataclass(frozen=True)
class WebSettings:
    """Where HTTP is served, and what a client may ask for."""

    address: str | int
    socket_mode: int
    max_header_size: int
    max_body_size: int
    request_timeout: float
    idle_timeout: float
    queue_timeout: float
    max_connections: int
    waiters: int
    tls: Mapping[str, str] | None
    cors: Mapping[str, Any] | None

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "WebSettings":
        """Return the settings in a configuration; `ConfigurationError` if a value is wrong."""
        values = _Reader(config)
        return cls(
            address=values["WEB_SERVER_ADDRESS"],
            socket_mode=values["HTTP_SOCKET_MODE"],
            max_header_size=values["HTTP_MAX_HEADER_SIZE"],
            max_body_size=values["HTTP_MAX_BODY_SIZE"],
            request_timeout=values["HTTP_REQUEST_TIMEOUT"],
            idle_timeout=values["HTTP_IDLE_TIMEOUT"],
            queue_timeout=values["HTTP_QUEUE_TIMEOUT"],
            max_connections=values["HTTP_MAX_CONNECTIONS"],
            waiters=values["HTTP_WAITERS"],
            tls=values["HTTP_TLS"],
            cors=values["HTTP_CORS"],
        )

    def __repr__(self) -> str:
        # Without TLS, which may hold a password.
        return f"<WebSettings {self.address}>"


@dataclass(frozen=True)
class WebSocketSettings:
    """Where websockets are opened, and what they may do."""

    path: str
    origins: tuple[str, ...] | None
    max_size: int
    queue: int
    ping: float
    max_connections: int

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "WebSocketSettings":
        """Return the settings in a configuration; `ConfigurationError` if a value is wrong."""
        values = _Reader(config)
        return cls(
            path=values["WEBSOCKET_PATH"],
            origins=values["WEBSOCKET_ORIGINS"],
            max_size=values["WEBSOCKET_MAX_SIZE"],
            queue=values["WEBSOCKET_QUEUE"],
            ping=values["WEBSOCKET_PING"],
            max_connections=values["HTTP_MAX_CONNECTIONS"],
        )


@dataclass(frozen=True)
class ProcessSettings:
    """What `threadko run` sets for the whole process."""

    switch_interval: float
    logging: Mapping[str, Any] | None
    log_format: str
    shutdown_timeout: float

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "ProcessSettings":
        """Return the settings in a configuration; `ConfigurationError` if a value is wrong."""
        values = _Reader(config)
        return cls(
            switch_interval=values["SWITCH_INTERVAL"],
            logging=values["LOGGING"],
            log_format=values["LOG_FORMAT"],
            shutdown_timeout=values["SHUTDOWN_TIMEOUT"],
        )


@dataclass(frozen=True)
class HealthSettings:
    """Where it is told whether services are well, and when they are not."""

    address: str | int | None
    hung_timeout: float

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "HealthSettings":
        """Return the settings in a configuration; `ConfigurationError` if a value is wrong."""
        values = _Reader(config)
        return cls(address=values["HEALTH_ADDRESS"], hung_timeout=values["HEALTH_HUNG_TIMEOUT"])


@dataclass(frozen=True)
class RunnerSettings:
    """What is settled before there are containers."""

    container_cls: str | None

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "RunnerSettings":
        """Return the settings in a configuration; `ConfigurationError` if a value is wrong."""
        return cls(container_cls=_Reader(config)["SERVICE_CONTAINER_CLS"])
