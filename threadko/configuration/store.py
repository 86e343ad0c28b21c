"""The configuration of the process, which any thread may read and write at any time.

The entries stand in a dict that is never changed, only replaced: a reader takes no lock and sees
all of a change or nothing of it. Only `dict(config)` and `{**config}` go entry by entry, and raise
`KeyError` if one is removed meanwhile; `config.data` and `config.items()` are of one moment.
"""

import copy
import functools
import threading
from collections.abc import (
    Callable,
    ItemsView,
    Iterator,
    KeysView,
    Mapping,
    MutableMapping,
    ValuesView,
)
from typing import Any, TypeVar, cast

__all__ = ["Config", "ConfigPatch", "config"]

Function = TypeVar("Function", bound=Callable[..., Any])

_MISSING = object()


class Config(MutableMapping[str, Any]):
    """A mapping of configuration keys; reads never block."""

    def __init__(self, data: Mapping[str, Any] | None = None, /, **entries: Any) -> None:
        # Serialises writers, so that none of two changes made at once is lost; readers need not.
        self._write_lock = threading.Lock()
        self._data: dict[str, Any] = {**_snapshot(data or {}), **entries}

    @property
    def data(self) -> dict[str, Any]:
        """All entries as they are now, as a dict of the caller's own."""
        return dict(self._data)

    def setup(self, config: Mapping[str, Any]) -> None:
        """Replace all entries by those of `config`."""
        data = _snapshot(config)
        with self._write_lock:
            self._data = data

    def update(self, *mappings: Any, **entries: Any) -> None:
        """Add or replace entries, all at once; the arguments are those of `dict`."""
        if len(mappings) > 1:
            raise TypeError(f"update() takes at most one mapping, not {len(mappings)}")
        # The caller's mapping may be slow, or this very object: read it before taking the lock.
        new = {**_snapshot(mappings[0] if mappings else {}), **entries}
        with self._write_lock:
            self._data = {**self._data, **new}

    def patch(self, context_config: Mapping[str, Any], clear: bool = False) -> "ConfigPatch":
        """Return a patch that adds entries for a while, in place of all others if `clear`.

        A context manager, a decorator, or an object to `start()` and `stop()`.
        """
        return ConfigPatch(self, context_config, clear)

    def copy(self) -> "Config":
        """Return another configuration with the same entries."""
        return Config(self._data)

    def pop(self, key: str, default: Any = _MISSING) -> Any:
        """Remove an entry and return its value, or `default` if there is none."""
        with self._write_lock:
            data = dict(self._data)
            value = data.pop(key, default)
            self._data = data
        if value is _MISSING:
            raise KeyError(key)
        return value

    def popitem(self) -> tuple[str, Any]:
        """Remove and return the entry that was added last."""
        with self._write_lock:
            data = dict(self._data)
            item = data.popitem()
            self._data = data
        return item

    def setdefault(self, key: str, default: Any = None) -> Any:
        """Return the value of `key`, which becomes `default` if there is none."""
        with self._write_lock:
            if key not in self._data:
                self._data = {**self._data, key: default}
            return self._data[key]

    def clear(self) -> None:
        """Remove all entries."""
        self.setup({})

    def keys(self) -> KeysView[str]:
        """Return the keys as they are now."""
        return self._data.keys()

    def items(self) -> ItemsView[str, Any]:
        """Return the entries as they are now."""
        return self._data.items()

    def values(self) -> ValuesView[Any]:
        """Return the values as they are now."""
        return self._data.values()

    def __getitem__(self, key: str) -> Any:
        return self._data[key]

    def __setitem__(self, key: str, value: Any) -> None:
        with self._write_lock:
            self._data = {**self._data, key: value}

    def __delitem__(self, key: str) -> None:
        self.pop(key)

    def __iter__(self) -> Iterator[str]:
        return iter(self._data)

    def __len__(self) -> int:
        return len(self._data)

    def __contains__(self, key: object) -> bool:
        return key in self._data

    def __or__(self, other: Mapping[str, Any]) -> dict[str, Any]:
        return {**self._data, **_snapshot(other)} if isinstance(other, Mapping) else NotImplemented

    def __ror__(self, other: Mapping[str, Any]) -> dict[str, Any]:
        return {**_snapshot(other), **self._data} if isinstance(other, Mapping) else NotImplemented

    def __ior__(self, other: Any) -> "Config":  # type: ignore[misc]  # the same object
        self.update(other)
        return self

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mapping):
            return NotImplemented
        return self._data == _snapshot(other)

    __hash__ = None  # type: ignore[assignment]  # how Python says it

    def __reduce__(self) -> tuple[type["Config"], tuple[dict[str, Any]]]:
        return Config, (self._data,)

    def __repr__(self) -> str:
        # Keys only: values hold passwords.
        return f"<Config {', '.join(map(str, self._data)) or 'empty'}>"


class ConfigPatch:
    """Entries that stand in a configuration for a while; `stop` brings back what was there."""

    def __init__(self, config: Config, entries: Mapping[str, Any], clear: bool) -> None:
        self._config = config
        self._entries = entries
        self._clear = clear
        # Several, because a decorated function may call itself.
        self._backups: list[dict[str, Any]] = []

    def start(self) -> None:
        """Put the entries in place."""
        # Copied deeply, so that a change inside a nested value is undone too.
        backup = {key: _deep_copy(value) for key, value in self._config.items()}
        if self._clear:
            self._config.setup(self._entries)
        else:
            self._config.update(self._entries)
        self._backups.append(backup)

    def stop(self) -> None:
        """Bring back the entries that were there before `start`."""
        if not self._backups:
            raise RuntimeError("this configuration patch has not been started")
        self._config.setup(self._backups.pop())

    def __enter__(self) -> None:
        self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def __call__(self, fn: Function) -> Function:
        """Return `fn` wrapped, so that the patch is in place during each call."""

        @functools.wraps(fn)
        def patched(*args: Any, **kwargs: Any) -> Any:
            with self:
                return fn(*args, **kwargs)

        return cast(Function, patched)


def _snapshot(mapping: Any) -> dict[str, Any]:
    return mapping.data if isinstance(mapping, Config) else dict(mapping)


def _deep_copy(value: Any) -> Any:
    try:
        return copy.deepcopy(value)
    except (TypeError, copy.Error):  # a lock or an SSL context, say: it has no inside to change
        return value


#: The configuration of the process.
config = Config()
