"""Publishing from any program: `Publisher`, for any thread and many at once.

A publisher has nothing but its options, which never change; the connection is shared with all
publishers of the process that name the same broker, and no thread owns it.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields
from typing import Any

from threadko.amqp.delays import delay_before_exchange, to_milliseconds
from threadko.amqp.entities import Exchange, Queue, as_exchange, as_queue
from threadko.amqp.message import MAX_EXPIRATION, Properties, read_delivery_mode
from threadko.amqp.parameters import BrokerParameters
from threadko.amqp.publishing import PublishLink
from threadko.amqp.shared import Borrowed
from threadko.exceptions import ConfigurationError, EncodeError
from threadko.serialization import COMPRESSION_HEADER, Encoded, Serialization, compress

__all__ = ["Publisher", "check_options", "check_values"]

#: Those that travel with the message as they are given.
_PLAIN_PROPERTIES = tuple(
    each.name for each in fields(Properties) if each.name not in ("headers", "expiration")
)

_OPTIONS = (
    *("exchange", "routing_key", "headers", "extra_headers", "serializer", "compression"),
    *("mandatory", "expiration", "declare", "retry", "retry_policy", "use_confirms", "timeout"),
    "delay",
    *_PLAIN_PROPERTIES,
)


class Publisher:
    """Publishes messages, each confirmed by the broker before `publish` returns.

    Options come from the class, the constructor and the call; the later wins. `headers` are
    merged and `declare` is joined instead; `extra_headers` win over all other headers. A subclass
    may set other defaults. There is no way to do without confirms: `use_confirms` has no effect.

    Args:
        amqp_uri: the broker, or several nodes of one.
        serializer: for the payload, such as `json`, the configured one if None; `raw` takes text
            and bytes as they are.
        compression: such as `gzip`; none if None.
        delivery_mode: 1 or "transient", 2 or "persistent".
        mandatory: whether a message that no queue takes is an `UndeliverableMessage`.
        expiration: seconds after which the broker drops the message if nobody has taken it.
        declare: exchanges and queues that are declared before.
        retry: whether a message is sent again, within `timeout`, when the connection is lost
            before its confirm; it may then arrive twice. `max_retries: 0` in `retry_policy` is
            the same as False.
        ssl: as `AMQP_SSL`.
        login_method: PLAIN, AMQPLAIN or EXTERNAL.
        serialization: other serializers than those of the global configuration.
        heartbeat: seconds.
        window: messages that may be unconfirmed at once; who would exceed it waits.
        max_message_size: bytes that a body may have.
        link: to publish on, in place of the connection that the publishers of a process share.
        publish_kwargs: `exchange`, `routing_key`, `headers`, `timeout` (seconds for a publish in
            all), `delay` (seconds that the broker keeps the message before it goes to its
            exchange; not together with `expiration`), and the properties of AMQP.

    Raises:
        TypeError: there is no such option.
        ConfigurationError: the broker's address, or what goes with it, cannot be used.
    """

    use_confirms = True
    delivery_mode: int | str = 2
    mandatory = False
    priority = 0
    expiration: float | None = None
    delay: float | None = None
    serializer: str | None = None
    compression: str | None = None
    retry = True
    retry_policy: Mapping[str, Any] = {"max_retries": 3}
    declare: Sequence[Any] = ()
    timeout: float | None = None

    def __init__(
        self,
        amqp_uri: str | Sequence[str],
        use_confirms: bool | None = None,
        serializer: str | None = None,
        compression: str | None = None,
        delivery_mode: int | str | None = None,
        mandatory: bool | None = None,
        priority: int | None = None,
        expiration: float | None = None,
        declare: Sequence[Any] | None = None,
        retry: bool | None = None,
        retry_policy: Mapping[str, Any] | None = None,
        ssl: Any = None,
        login_method: str | None = None,
        *,
        serialization: Serialization | None = None,
        heartbeat: int = 20,
        window: int = 1000,
        max_message_size: int = 16 * 1024 * 1024,
        link: PublishLink | None = None,
        **publish_kwargs: Any,
    ) -> None:
        given = {
            "use_confirms": use_confirms,
            "serializer": serializer,
            "compression": compression,
            "delivery_mode": delivery_mode,
            "mandatory": mandatory,
            "priority": priority,
            "expiration": expiration,
            "declare": declare,
            "retry": retry,
            "retry_policy": retry_policy,
            **publish_kwargs,
        }
        check_options(given)
        check_values(given)
        _check_count("window", window)
        _check_count("max_message_size", max_message_size)
        self.amqp_uri = amqp_uri
        self._given = {name: value for name, value in given.items() if value is not None}
        self._serialization = serialization or Serialization.from_config()
        self._lend: Callable[[], AbstractContextManager[PublishLink]]
        self._give_back: Callable[[], object] = lambda: None
        if link is not None:
            self._lend = lambda: nullcontext(link)
            return
        parameters = BrokerParameters.from_uri(
            amqp_uri,
            heartbeat,
            connection_name="threadko publisher",
            ssl=ssl,
            login_method=login_method,
        )
        key = (repr(amqp_uri), repr(ssl), login_method, heartbeat, window, max_message_size)
        borrowed = Borrowed(key, parameters, window=window, max_message_size=max_message_size)
        self._lend, self._give_back = borrowed.lent, borrowed.close

    def close(self) -> None:
        """Publish no more; its connection ends when no other publisher shares it.

        Without this, that is when the publisher is forgotten, and an exception of `publish` keeps
        it in mind. Publishes that are under way end first. Where a `link` was given, that is for
        its owner to close.
        """
        self._give_back()

    def publish(self, payload: Any, **kwargs: Any) -> None:
        """Publish a message and wait until the broker has confirmed it.

        Raises:
            TypeError: there is no such option.
            EncodeError: the payload or a property cannot be sent.
            UndeliverableMessage: it is mandatory, and no queue would have it.
            PublishFailed: it was refused, or not confirmed in time: whether it arrived is unknown.
            RuntimeError: the publisher was closed.
        """
        check_options(kwargs)
        check_values(kwargs)
        options = self._merge(kwargs)
        headers = dict(options["headers"])
        encoded = self._encode(payload, options)
        body = encoded.body
        if options["compression"] is not None:
            headers[COMPRESSION_HEADER], body = compress(options["compression"], body)
        values = {name: options[name] for name in _PLAIN_PROPERTIES if name in options}
        if options["delivery_mode"] is not None:
            values["delivery_mode"] = read_delivery_mode(options["delivery_mode"])
        values["content_type"] = encoded.content_type
        values["content_encoding"] = encoded.content_encoding
        properties = Properties(
            headers=headers, expiration=_milliseconds(options["expiration"]), **values
        )
        exchange = _read_exchange(options.get("exchange"))
        declare = [_read_entity(each) for each in options["declare"]]
        if exchange.name and not isinstance(options.get("exchange"), str):
            declare.append(exchange)
        target, declare_first = exchange.name, []
        if options["delay"] is not None:
            if options["expiration"] is not None:
                # It would count from now on, end the delay before its time, and then be lost.
                raise ConfigurationError("a message with a delay can have no expiration")
            waiting = delay_before_exchange(exchange.name, to_milliseconds(options["delay"]))
            # Its own exchange must be there when the time has come.
            declare_first = [*declare, waiting]
            target, declare = waiting.name, []
        with self._lend() as link:
            link.publish(
                body,
                properties,
                exchange=target,
                routing_key=options.get("routing_key") or "",
                mandatory=bool(options["mandatory"]),
                retry=bool(options["retry"]) and options["retry_policy"].get("max_retries") != 0,
                declare=declare,
                declare_first=declare_first,
                timeout=options["timeout"],
            )

    def _merge(self, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        call = {name: value for name, value in kwargs.items() if value is not None}
        defaults = {name: getattr(self, name) for name in _DEFAULTS}
        merged = {**defaults, **self._given, **call}
        merged["headers"] = {
            **self._given.get("headers", {}),
            **call.get("headers", {}),
            **self._given.get("extra_headers", {}),
            **call.get("extra_headers", {}),
        }
        own = self._given.get("declare", self.declare)
        merged["declare"] = [*own, *call.get("declare", ())]
        return merged

    def _encode(self, payload: Any, options: Mapping[str, Any]) -> Encoded:
        content_type = options.get("content_type")
        if content_type is not None and isinstance(payload, (str, bytes)):
            # Somebody else has encoded it already.
            encoding = options.get("content_encoding") or (
                "utf-8" if isinstance(payload, str) else "binary"
            )
            body = payload.encode(encoding) if isinstance(payload, str) else payload
            return Encoded(content_type, encoding, body)
        serializer = options["serializer"]
        if serializer is None or serializer == self._serialization.serializer:
            return self._serialization.encode(payload)
        return self._serialization.using(serializer).encode(payload)


_DEFAULTS = (
    *("delivery_mode", "mandatory", "priority", "expiration", "serializer", "compression"),
    *("retry", "retry_policy", "timeout", "delay"),
)


def check_options(options: Mapping[str, Any]) -> None:
    """Raise `TypeError` if one of these is no option of a publisher."""
    unknown = sorted(set(options) - set(_OPTIONS))
    if unknown:
        there_are = ", ".join(sorted(_OPTIONS))
        raise TypeError(f"no option is named {unknown[0]!r}, there are: {there_are}")


def check_values(options: Mapping[str, Any]) -> None:
    """Raise `ConfigurationError` if one of these options cannot be used."""
    for name in ("headers", "extra_headers", "retry_policy"):
        value = options.get(name)
        if value is not None and not isinstance(value, Mapping):
            raise ConfigurationError(f"{name} must be a mapping, not {value!r}")
    declare = options.get("declare")
    if declare is not None and not isinstance(declare, (list, tuple, set, frozenset)):
        raise ConfigurationError(f"declare must be a list of exchanges and queues, not {declare!r}")
    mode = options.get("delivery_mode")
    if mode is not None:
        read_delivery_mode(mode)
    timeout = options.get("timeout")
    is_number = isinstance(timeout, (int, float)) and not isinstance(timeout, bool)
    if timeout is not None and not (is_number and timeout > 0):
        raise ConfigurationError(f"timeout must be seconds above 0, not {timeout!r}")


def _check_count(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigurationError(f"{name} must be a whole number above 0, not {value!r}")


def _milliseconds(seconds: Any) -> str | None:
    if seconds is None:
        return None
    is_number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
    if not is_number or not 0 <= seconds <= MAX_EXPIRATION / 1000:
        limit = MAX_EXPIRATION // 1000
        raise EncodeError(f"expiration must be seconds from 0 to {limit}, not {seconds!r}")
    return str(int(seconds * 1000))


def _read_exchange(value: Any) -> Exchange:
    if value is None or isinstance(value, str):
        return Exchange(value or "")
    return as_exchange(value)


def _read_entity(value: Any) -> Exchange | Queue:
    if isinstance(value, (Exchange, Queue)):
        return value
    return as_queue(value) if hasattr(value, "routing_key") else as_exchange(value)
