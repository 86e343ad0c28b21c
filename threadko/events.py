"""Events: what happened in one service, told to whoever listens.

Each service has a topic exchange of its own, `<service>.events`; the type of an event is its
routing key. A handler's queue says who shares the events: all instances of a service, all handlers
of the event, or nobody. Threads meet here as in `messaging`.
"""

import uuid
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from threadko.amqp.entities import Exchange, Queue
from threadko.configuration.settings import EventSettings
from threadko.exceptions import ConfigurationError, EncodeError
from threadko.extensions import Container, WorkerContext
from threadko.messaging import Consumer, Publisher, Retry

__all__ = [
    "BROADCAST",
    "EventDispatcher",
    "EventHandler",
    "EventHandlerConfigurationError",
    "Retry",
    "SERVICE_POOL",
    "SINGLETON",
    "check_event_type",
    "event_handler",
    "get_event_exchange",
]

#: One instance of each service handles an event.
SERVICE_POOL: Final = "service_pool"
#: One handler in the whole fleet handles an event.
SINGLETON: Final = "singleton"
#: Every instance of the service handles an event.
BROADCAST: Final = "broadcast"

_HANDLER_TYPES = (SERVICE_POOL, SINGLETON, BROADCAST)

#: Of quorum queues alone, which a broker does not make to go with their consumers.
_QUORUM_ARGUMENTS = frozenset(
    (
        "x-dead-letter-strategy",
        "x-delivery-limit",
        "x-max-in-memory-bytes",
        "x-max-in-memory-length",
        "x-queue-type",
        "x-quorum-initial-group-size",
        "x-quorum-target-group-size",
    )
)


class EventHandlerConfigurationError(ConfigurationError):
    """The options of an event handler contradict each other."""


def get_event_exchange(service_name: str, config: Mapping[str, Any] | None = None) -> Exchange:
    """Return the exchange of a service's events, as the configuration wants it.

    Args:
        config: the default settings count if None.
    """
    settings = EventSettings.from_config(config or {})
    return Exchange(
        f"{service_name}.events",
        type="topic",
        durable=True,
        auto_delete=settings.auto_delete_exchanges,
        no_declare=not settings.declare_exchanges,
    )


def check_event_type(event_type: object) -> None:
    """Raise `EncodeError` unless this can be the type of an event."""
    if not isinstance(event_type, str) or not event_type:
        raise EncodeError(f"the type of an event must be a name, not {event_type!r}")


class EventDispatcher(Publisher):
    """Injects `dispatch(event_type, event_data, *, delay=None)`, for events of this service.

    It returns when the broker has the event. `delay` is the seconds that the broker keeps it
    before handlers get it.

    Args:
        publisher_options: as of `Publisher`; `exchange` and `routing_key` have no effect.
    """

    def __init__(self, **publisher_options: Any) -> None:
        options = dict(publisher_options)
        for name in ("exchange", "routing_key"):
            options.pop(name, None)
        super().__init__(None, **options)

    def setup(self) -> None:
        """Make what all workers dispatch with."""
        self.exchange = get_event_exchange(self.container.service_name, self.container.config)
        super().setup()

    def get_dependency(self, worker_ctx: WorkerContext) -> Callable[..., None]:
        """Return `dispatch`, which sends the worker's context along."""
        return partial(self._dispatch, worker_ctx)

    def _dispatch(
        self,
        worker_ctx: WorkerContext,
        event_type: str,
        event_data: Any,
        *,
        delay: float | None = None,
    ) -> None:
        check_event_type(event_type)
        self._publish(worker_ctx, event_data, routing_key=event_type, delay=delay)


class EventHandler(Consumer):
    """Calls a method with the data of each event; see `event_handler`.

    Args:
        source_service: whose events.
        event_type: which of them; `*` stands for one word between dots, `#` for any number.
        handler_type: SERVICE_POOL, SINGLETON or BROADCAST.
        reliable_delivery: keep events while no handler is there. With BROADCAST it needs a
            `broadcast_identifier` that stays the same when the instance is started again.
        requeue_on_error: as of `Consumer`, as are all other options.

    Raises:
        ConfigurationError: one of these cannot be used, or not with another.
    """

    def __init__(
        self,
        source_service: str,
        event_type: str,
        handler_type: str = SERVICE_POOL,
        reliable_delivery: bool = True,
        requeue_on_error: bool = False,
        **kwargs: Any,
    ) -> None:
        self.source_service = source_service
        self.event_type = event_type
        self.handler_type = handler_type
        self.reliable_delivery = reliable_delivery
        for name in ("source_service", "event_type"):
            value = getattr(self, name)
            if not isinstance(value, str) or not value:
                raise EventHandlerConfigurationError(f"{name} must be a name, not {value!r}")
        if handler_type not in _HANDLER_TYPES:
            raise EventHandlerConfigurationError(
                f"handler_type must be one of {', '.join(_HANDLER_TYPES)}, not {handler_type!r}"
            )
        # Its own queue is known when it is bound.
        super().__init__(
            Queue(f"evt-{source_service}-{event_type}"),
            requeue_on_error=requeue_on_error,
            **kwargs,
        )
        if self.dead_letter and handler_type == BROADCAST and not reliable_delivery:
            raise EventHandlerConfigurationError(
                "dead_letter needs a queue that lasts: use reliable_delivery"
            )

    @property
    def broadcast_identifier(self) -> str | None:
        """What tells one instance's queue from another's; None unless it is a broadcast.

        A new one for each start. Override it with a name that stays the same, the host's say, for
        reliable delivery.
        """
        if self.handler_type != BROADCAST:
            return None
        if self.reliable_delivery:
            raise EventHandlerConfigurationError(
                "a broadcast with reliable_delivery needs a queue that is found again: override"
                " broadcast_identifier with something like the host's name, or give"
                " reliable_delivery=False"
            )
        return uuid.uuid4().hex

    # The parameter has nameko's name for this kind of extension.
    def bind(self, container: Container, method_name: str) -> Any:  # type: ignore[override]
        """Return a clone that fires the method of that name."""
        instance = super().bind(container, method_name)
        # Asked once: each answer may be another one.
        instance.queue = instance.make_queue(instance.broadcast_identifier)
        return instance

    def make_queue(self, broadcast_identifier: str | None) -> Queue:
        """Return the queue that this handler's events come from."""
        container = self.container
        stem = f"evt-{self.source_service}-{self.event_type}"
        own = f"{stem}--{container.service_name}.{self.method_name}"
        arguments = dict(EventSettings.from_config(container.config).queue_arguments)
        if not self.reliable_delivery:
            arguments = {k: v for k, v in arguments.items() if k not in _QUORUM_ARGUMENTS}
        name = {
            SERVICE_POOL: own,
            SINGLETON: stem,
            BROADCAST: f"{own}-{broadcast_identifier}",
        }[self.handler_type]
        return Queue(
            name,
            exchange=get_event_exchange(self.source_service, container.config),
            routing_key=self.event_type,
            durable=True,
            auto_delete=not self.reliable_delivery,
            exclusive=self.handler_type == BROADCAST and not self.reliable_delivery,
            arguments=arguments,
        )


event_handler = EventHandler.decorator
