"""Dispatching events from programs that are no services.

A dispatcher may be used by any number of threads at once. It has no state but its options; the
connection is made for the first event, shared by all publishers of the process that name the same
broker, and ends with the last of them.
"""

from collections.abc import Mapping
from types import TracebackType
from typing import Any

from threadko.amqp.publish import Publisher
from threadko.configuration import config as global_config
from threadko.configuration.given import as_config
from threadko.configuration.settings import BrokerSettings
from threadko.events import check_event_type, get_event_exchange
from threadko.serialization import Serialization

__all__ = ["EventDispatcher", "event_dispatcher", "get_event_exchange"]


class EventDispatcher:
    """Dispatches events in the name of any service: `dispatch("service", "event_type", data)`.

    Each call returns when the broker has the event.

    Args:
        uri: the broker, or several nodes of one; the configured one if None. As in nameko 2 it may
            be a configuration, which names one by `AMQP_URI`.
        config: read in place of the global configuration.
        options: those of `threadko.amqp.publish.Publisher`, such as `ssl`, `login_method`,
            `serializer`, `headers`, `heartbeat` and `mandatory`; None is the configured one.

    Raises:
        TypeError: there is no such option, or there are two configurations.
        ConfigurationError: an option cannot be used.
    """

    def __init__(
        self,
        uri: Any = None,
        *,
        config: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        first = as_config(uri)
        if first is not None:
            if config is not None:
                raise TypeError("the configuration is given twice")
            uri, config = None, first
        self._config: Mapping[str, Any] = global_config if config is None else config
        broker = BrokerSettings.from_config(self._config)
        for name in ("exchange", "routing_key"):
            options.pop(name, None)
        given = {name: value for name, value in options.items() if value is not None}
        configured = {
            "ssl": broker.ssl,
            "login_method": broker.login_method,
            "serialization": Serialization.from_config(self._config),
            "heartbeat": broker.heartbeat,
            "window": broker.publish_window,
            "max_message_size": broker.max_message_size,
            "timeout": broker.publish_timeout,
        }
        self._publisher = Publisher(broker.uri if uri is None else uri, **{**configured, **given})

    def __call__(
        self,
        service_name: str,
        event_type: str,
        event_data: Any,
        *,
        delay: float | None = None,
    ) -> None:
        """Dispatch an event, and return when the broker has it.

        Args:
            delay: seconds that the broker keeps it before handlers get it.

        Raises:
            EncodeError: the data cannot be sent.
            UndeliverableMessage: the option `mandatory` is set, and no queue takes it.
            PublishFailed: it was refused, or not confirmed in time: whether it arrived is unknown.
            RuntimeError: the dispatcher was closed.
        """
        check_event_type(event_type)
        self._publisher.publish(
            event_data,
            exchange=get_event_exchange(service_name, self._config),
            routing_key=event_type,
            delay=delay,
        )

    def close(self) -> None:
        """Dispatch no more; the connection ends when nobody else uses it.

        Events that other threads are dispatching are waited for by those, not by this.
        """
        self._publisher.close()

    def __enter__(self) -> "EventDispatcher":
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


#: The name that nameko has for it.
event_dispatcher = EventDispatcher
