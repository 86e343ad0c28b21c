"""Which queues a message goes to: exchanges and bindings. No I/O, no messages."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

__all__ = ["Binding", "EXCHANGE_TYPES", "Exchange", "Target", "matches_headers", "matches_topic"]

EXCHANGE_TYPES = ("direct", "fanout", "headers", "topic")


@dataclass(frozen=True)
class Target:
    """Where a binding leads: `kind` is `queue` or `exchange`."""

    kind: str
    name: str


@dataclass(frozen=True)
class Binding:
    """From an exchange to a target."""

    target: Target
    key: str
    arguments: tuple[tuple[str, Any], ...] = ()


def freeze(value: Any) -> Any:
    """Return a table's value as something that can be compared and hashed.

    True is not 1, as it is in Python, and text is text whether it can be read or not.
    """
    if isinstance(value, Mapping):
        items = ((freeze(key), freeze(each)) for key, each in value.items())
        return tuple(sorted(items, key=lambda item: str(item[0])))
    if isinstance(value, list):
        return tuple(map(freeze, value))
    if isinstance(value, bool):
        return "bool", value
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    return value


@dataclass(eq=False)
class Exchange:
    """An exchange, and what is bound to it, in the order of binding."""

    name: str
    type: str = "direct"
    durable: bool = True
    auto_delete: bool = False
    internal: bool = False
    arguments: Mapping[str, Any] = field(default_factory=dict)
    bindings: dict[Binding, None] = field(default_factory=dict)
    was_bound: bool = False
    _by_key: dict[str, dict[Binding, None]] = field(default_factory=dict)
    _by_target: dict[Target, dict[Binding, None]] = field(default_factory=dict)

    def bind(self, binding: Binding) -> None:
        """Add a binding; one that is there already is not doubled."""
        if binding not in self.bindings:
            self.bindings[binding] = None
            self.was_bound = True
            self._by_key.setdefault(binding.key, {})[binding] = None
            self._by_target.setdefault(binding.target, {})[binding] = None

    def unbind(self, binding: Binding) -> None:
        """Take a binding away, if it is there."""
        if binding in self.bindings:
            del self.bindings[binding]
            _discard(self._by_key, binding.key, binding)
            _discard(self._by_target, binding.target, binding)

    def unbind_target(self, target: Target) -> bool:
        """Take away all bindings that lead to a target; return whether there were any."""
        found = list(self._by_target.get(target, ()))
        for binding in found:
            self.unbind(binding)
        return bool(found)

    @property
    def is_abandoned(self) -> bool:
        """Whether it is to go, since its last binding has."""
        return self.auto_delete and self.was_bound and not self.bindings

    def route(self, key: str, headers: Callable[[], Mapping[str, Any]]) -> Iterable[Target]:
        """Return the targets of a message; some may be there more than once.

        Args:
            headers: called for the message's headers, by exchanges that look at them.
        """
        if self.type == "direct":
            return [binding.target for binding in self._by_key.get(key, ())]
        if self.type == "fanout":
            return [binding.target for binding in self.bindings]
        if self.type == "topic":
            found: list[Target] = []
            for pattern, bindings in self._by_key.items():
                if matches_topic(pattern, key):
                    found += [binding.target for binding in bindings]
            return found
        table = headers()
        return [each.target for each in self.bindings if matches_headers(each.arguments, table)]


def _discard(index: dict[Any, dict[Binding, None]], key: Any, binding: Binding) -> None:
    del index[key][binding]
    if not index[key]:
        del index[key]


@lru_cache(maxsize=4096)
def matches_topic(pattern: str, key: str) -> bool:
    """Whether a routing key fits: `*` is one word between dots, `#` any number of words."""
    return _match(_split(pattern), _split(key))


def _split(text: str) -> tuple[str, ...]:
    return tuple(text.split(".")) if text else ()


def _match(pattern: tuple[str, ...], words: tuple[str, ...]) -> bool:
    # reachable[i]: whether the pattern so far fits the first i words
    reachable = [True] + [False] * len(words)
    for part in pattern:
        if part == "#":
            for index in range(len(words)):
                reachable[index + 1] = reachable[index + 1] or reachable[index]
        else:
            for index in range(len(words), 0, -1):
                reachable[index] = reachable[index - 1] and part in ("*", words[index - 1])
            reachable[0] = False
    return reachable[-1]


def matches_headers(arguments: tuple[tuple[str, Any], ...], headers: Mapping[str, Any]) -> bool:
    """Whether a message's headers fit a binding's arguments, all of them or any."""
    wanted = dict(arguments)
    mode = wanted.pop("x-match", "all")
    if not str(mode).endswith("-with-x"):
        wanted = {key: value for key, value in wanted.items() if not key.startswith("x-")}
    hits = (
        key in headers and (value is None or freeze(headers[key]) == value)
        for key, value in wanted.items()
    )
    if str(mode).startswith("any"):
        return any(hits)
    return all(hits)
