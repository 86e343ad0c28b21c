"""Every error that threadko raises, and the form in which errors travel.

The families say who has to act::

    ThreadkoError
    ├── ConfigurationError                          the operator
    │   ├── CommandError
    │   └── BrokerRefused                           (a BrokerError too)
    ├── BadRequest                                  the caller
    │   ├── MalformedRequest                        *
    │   ├── MethodNotFound                          *
    │   ├── IncorrectSignature                      *
    │   └── ConnectionNotFound
    ├── BrokerError                                 the world
    │   ├── BrokerRefused
    │   ├── BrokerBlocked
    │   ├── BrokerUnavailable
    │   ├── PublishFailed
    │   │   └── UndeliverableMessage
    │   └── ReplyQueueExpiredWithPendingReplies
    ├── RemoteError                                 the far side
    ├── LifecycleError                              this process
    │   ├── ContainerBeingKilled
    │   │   └── ContainerStopped
    │   └── WorkerPoolFull
    ├── RpcTimeout                                  (a TimeoutError too)
    ├── UnknownService
    ├── UnserializableValueError
    ├── EncodeError                                 (a ValueError too)
    ├── DecodeError                                 (a ValueError too)
    └── ExtensionNotFound                           (an AttributeError too)

    BaseException
    └── WorkerKilled                                raised in abandoned workers only

    * arrives at a caller as an instance of its own class; all others arrive as RemoteError

On the wire the errors that nameko knows carry nameko's module path, so that a nameko caller finds
them in its own registry.
"""

# ruff: noqa: N818 (most of the names are nameko's, and the others go with them)

import concurrent.futures
import io
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

__all__ = [
    "BadRequest",
    "BrokerBlocked",
    "BrokerError",
    "BrokerRefused",
    "BrokerUnavailable",
    "CommandError",
    "ConfigurationError",
    "ConnectionNotFound",
    "ContainerBeingKilled",
    "ContainerStopped",
    "DecodeError",
    "EncodeError",
    "ExtensionNotFound",
    "IncorrectSignature",
    "LifecycleError",
    "MalformedRequest",
    "MethodNotFound",
    "PublishFailed",
    "RemoteError",
    "ReplyQueueExpiredWithPendingReplies",
    "RpcTimeout",
    "ThreadkoError",
    "UndeliverableMessage",
    "UnknownService",
    "UnserializableValueError",
    "WorkerKilled",
    "WorkerPoolFull",
    "deserialize",
    "deserialize_to_instance",
    "get_module_path",
    "registry",
    "safe_for_serialization",
    "serialize",
]

ExceptionType = TypeVar("ExceptionType", bound=type[BaseException])

_OWN_PREFIX = f"{__name__}."
_NAMEKO_PREFIX = "nameko.exceptions."

#: The names that nameko's own module of exceptions has.
_KNOWN_TO_NAMEKO = frozenset(
    {
        "BadRequest",
        "CommandError",
        "ConfigurationError",
        "ConnectionNotFound",
        "ContainerBeingKilled",
        "ExtensionNotFound",
        "IncorrectSignature",
        "MalformedRequest",
        "MethodNotFound",
        "RemoteError",
        "ReplyQueueExpiredWithPendingReplies",
        "RpcTimeout",
        "UnknownService",
        "UnserializableValueError",
    }
)

# Guessed: far above what an error carries on purpose, far below what hurts a reply.
_MAX_ITEMS = 10_000
_MAX_DEPTH = 50
_MAX_REPR = 2_000

#: Classes that `deserialize` makes instances of, by module path.
registry: dict[str, type[BaseException]] = {}


def get_module_path(exc_type: type) -> str:
    """Return the dotted path of a class, as it travels in `exc_path`."""
    return f"{exc_type.__module__}.{exc_type.__name__}"


def deserialize_to_instance(exc_type: ExceptionType) -> ExceptionType:
    """Register an exception class, so that callers get an instance of it; a class decorator.

    Both sides must know the class under the same module path. It is made from the arguments of the
    remote instance, all of them turned into strings.
    """
    registry[get_module_path(exc_type)] = exc_type
    return exc_type


class ThreadkoError(Exception):
    """The root of all errors that threadko raises."""


class ConfigurationError(ThreadkoError):
    """Something that the operator set is missing or wrong."""


class CommandError(ConfigurationError):
    """A command was given what it cannot work with."""


class BadRequest(ThreadkoError):
    """The caller asked for something that cannot be done as asked."""


@deserialize_to_instance
class MalformedRequest(BadRequest):
    """A request could not be read, or lacks `args` or `kwargs`."""


@deserialize_to_instance
class MethodNotFound(BadRequest):
    """The service has no entrypoint of that name."""


@deserialize_to_instance
class IncorrectSignature(BadRequest):
    """The arguments do not fit the method."""


class ConnectionNotFound(BadRequest):
    """No websocket has that identifier."""


class BrokerError(ThreadkoError):
    """The broker, or the way to it, failed."""


class BrokerRefused(BrokerError, ConfigurationError):
    """The broker refused for a reason that trying again does not mend."""


class BrokerBlocked(BrokerError):
    """The broker accepts no messages for now, because it is short of memory or disk."""


class BrokerUnavailable(BrokerError):
    """The broker was not there within `BROKER_START_TIMEOUT`."""


class PublishFailed(BrokerError):
    """A message was not confirmed in time; unless the text says more, its fate is unknown."""


class UndeliverableMessage(PublishFailed):
    """A mandatory message was returned, because no queue is bound for it."""


class ReplyQueueExpiredWithPendingReplies(BrokerError):
    """The reply queue was lost while calls waited for replies in it."""


class RemoteError(ThreadkoError):
    """The remote method raised an exception whose class is not registered here.

    `exc_type` is the name of the remote class (None if it was not sent), `value` its text.
    """

    def __init__(self, exc_type: str | None = None, value: Any = "") -> None:
        self.exc_type = exc_type
        self.value = value
        super().__init__(f"{exc_type} {value}")

    def __reduce__(self) -> tuple[type["RemoteError"], tuple[str | None, Any]]:
        return type(self), (self.exc_type, self.value)


class LifecycleError(ThreadkoError):
    """A container or client of this process is not in a state to do this."""


class ContainerBeingKilled(LifecycleError):
    """The container takes no work any more, because it is being killed."""


class ContainerStopped(ContainerBeingKilled):
    """The container takes no work any more, because it stops or has stopped."""


class WorkerPoolFull(LifecycleError):
    """A worker asked its own full container for another worker, which would wait for itself."""


class WorkerKilled(BaseException):
    """Wakes an abandoned worker; a BaseException, so that `except Exception` lets it through."""


if sys.version_info >= (3, 11):
    _StandardTimeout = TimeoutError
else:

    class _StandardTimeout(TimeoutError, concurrent.futures.TimeoutError):
        """Both of the classes that Python 3.10 has for one thing."""


class RpcTimeout(ThreadkoError, _StandardTimeout):
    """No reply came in time; the call may or may not have been executed."""


class UnknownService(ThreadkoError):
    """No queue exists for requests to that service."""

    def __init__(self, service_name: str) -> None:
        self._service_name = service_name
        super().__init__(service_name)

    def __str__(self) -> str:
        return f"Unknown service `{self._service_name}`"


class UnserializableValueError(ThreadkoError):
    """A method returned a value that its serializer cannot encode.

    `repr_value` is the value's repr, cut where it is very long.
    """

    def __init__(self, value: object) -> None:
        try:
            text = repr(value)
        except Exception:
            text = "[__repr__ failed]"
        self.repr_value = text if len(text) <= _MAX_REPR else f"{text[:_MAX_REPR]}..."
        super().__init__()

    def __str__(self) -> str:
        return f"Unserializable value: `{self.repr_value}`"


class EncodeError(ThreadkoError, ValueError):
    """A value cannot be encoded for the wire."""


class DecodeError(ThreadkoError, ValueError):
    """Bytes from the wire cannot be decoded, or their content type is not accepted."""


class ExtensionNotFound(ThreadkoError, AttributeError):
    """A container or service has no such extension."""


class _SafeCopy:
    """One conversion to strings, lists and dicts, bounded in breadth and depth."""

    def __init__(self) -> None:
        self._items_left = _MAX_ITEMS
        self._path: list[int] = []

    def value(self, value: object) -> Any:
        try:
            if isinstance(value, str) or not isinstance(value, Iterable):
                return self._text(value)
            if isinstance(value, (bytes, bytearray, io.IOBase)):
                return repr(value)  # a file's items are its content, and reading them can block
            if id(value) in self._path or len(self._path) >= _MAX_DEPTH:
                return "[...]"
        except BaseException:  # even `__class__` can be a property that raises
            return "[__unicode__ failed]"
        self._path.append(id(value))
        try:
            if isinstance(value, Mapping):
                return {self._key(key): self.value(item) for key, item in self._pairs(value)}
            return [self.value(item) for item in self._bounded(value)]
        except BaseException:
            return self._text(value)
        finally:
            self._path.pop()

    def _key(self, key: object) -> str:
        safe = self.value(key)
        return safe if isinstance(safe, str) else self._text(key)

    def _pairs(self, value: Mapping[Any, Any]) -> Iterator[tuple[Any, Any]]:
        for key in self._bounded(value):
            yield key, value[key]

    def _bounded(self, value: Iterable[Any]) -> Iterator[Any]:
        for item in value:
            if self._items_left <= 0:
                return
            self._items_left -= 1
            yield item

    @staticmethod
    def _text(value: object) -> str:
        try:
            # `str.__str__` gives a plain str where a subclass was given
            text = str.__str__(value if isinstance(value, str) else str(value))
            # A lone surrogate could not be encoded later, when no error can be reported any more.
            return text.encode("utf-8", "backslashreplace").decode("utf-8")
        except BaseException:
            return "[__unicode__ failed]"


def safe_for_serialization(value: object) -> Any:
    """Return a copy of `value` made of strings, lists and dicts, which any serializer can encode.

    Never raises: what has no text becomes a placeholder, what is endless or cyclic is cut.
    """
    return _SafeCopy().value(value)


def serialize(exc: BaseException) -> dict[str, Any]:
    """Return the form in which an exception travels in a reply; never raises."""
    exc_type = type(exc)
    exc_path = get_module_path(exc_type)
    if exc_type.__module__ == __name__ and exc_type.__name__ in _KNOWN_TO_NAMEKO:
        exc_path = f"{_NAMEKO_PREFIX}{exc_type.__name__}"
    try:
        args = safe_for_serialization(exc.args)
    except BaseException:  # `args` can be a property of the user's class
        args = []
    return {
        "exc_type": exc_type.__name__,
        "exc_path": exc_path,
        "exc_args": args if isinstance(args, list) else [args],
        "value": safe_for_serialization(exc),
    }


def deserialize(data: Any) -> Exception:
    """Return the exception that a reply's `error` describes; never raises.

    An instance of the registered class if there is one and it can be made from the arguments, else
    a `RemoteError`. `data` comes from the wire and may be anything.
    """
    if not isinstance(data, Mapping):
        return RemoteError(None, safe_for_serialization(data))
    exc_type = _find_registered(data.get("exc_path"))
    if exc_type is not None:
        args = data.get("exc_args")
        try:
            instance = exc_type(*(args if isinstance(args, (list, tuple)) else ()))
        except (Exception, SystemExit, GeneratorExit):
            instance = None  # the constructor is the user's, and wants other arguments
        if isinstance(instance, Exception):  # no far side may end the caller's thread
            return instance
    name = data.get("exc_type")
    value = data.get("value")
    return RemoteError(None if name is None else str(name), "" if value is None else value)


def _find_registered(exc_path: object) -> type[BaseException] | None:
    if not isinstance(exc_path, str):
        return None
    if exc_path.startswith(_NAMEKO_PREFIX):
        own_path = _OWN_PREFIX + exc_path.removeprefix(_NAMEKO_PREFIX)
        return registry.get(exc_path) or registry.get(own_path)
    return registry.get(exc_path)
