"""What can be set for one consumer: checked where it is written down. Pure values, any thread."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from threadko.amqp.parameters import check_heartbeat
from threadko.exceptions import ConfigurationError

__all__ = ["ConsumerOptions"]

_MAX_PREFETCH = 0xFFFF


@dataclass(frozen=True)
class ConsumerOptions:
    """The options of a consumer, None for what is configured; hashable.

    Attributes:
        heartbeat: seconds.
        prefetch_count: messages that may be unsettled.
        accept: names of the serializers that are read.

    Raises:
        ConfigurationError: one of these cannot be used.
    """

    heartbeat: int | None = None
    prefetch_count: int | None = None
    accept: Sequence[str] | None = None

    def __post_init__(self) -> None:
        if self.heartbeat is not None:
            check_heartbeat(self.heartbeat)
        if self.prefetch_count is not None:
            _check_prefetch_count(self.prefetch_count)
        if self.accept is not None:
            _check_accept(self.accept)
            object.__setattr__(self, "accept", tuple(self.accept))

    @classmethod
    def read(cls, options: Mapping[str, Any]) -> "ConsumerOptions":
        """Return what keyword arguments mean.

        Raises:
            TypeError: there is no such option.
            ConfigurationError: a value cannot be used.
        """
        known = sorted(each.name for each in fields(cls))
        unknown = sorted(set(options) - set(known))
        if unknown:
            raise TypeError(f"no option is named {unknown[0]!r}, there are: {', '.join(known)}")
        return cls(**options)

    def __str__(self) -> str:
        given = ((each.name, getattr(self, each.name)) for each in fields(self))
        return ", ".join(f"{name}={value!r}" for name, value in given if value is not None)


def _check_prefetch_count(value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MAX_PREFETCH:
        raise ConfigurationError(
            f"prefetch_count must be a whole number from 0 to {_MAX_PREFETCH}, not {value!r}"
        )


def _check_accept(value: Any) -> None:
    # A generator would be at its end when the extension is cloned.
    is_list = isinstance(value, Collection) and not isinstance(value, str)
    if not is_list or not all(isinstance(name, str) for name in value):
        raise ConfigurationError(f"accept must be a list of names of serializers, not {value!r}")
