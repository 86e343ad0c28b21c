"""How the configuration of a process comes together: file, environment, definitions.

For the commands only: whoever hosts a container in a program of their own configures it themselves.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from threadko.configuration.keys import KEYS, find_key
from threadko.configuration.loader import parse_define, parse_value
from threadko.exceptions import ConfigurationError

__all__ = [
    "ENVIRONMENT_PREFIX",
    "Source",
    "SourcedConfig",
    "merge_sources",
    "read_defines",
    "read_environment",
]

#: What a variable begins with that is an entry of the configuration.
ENVIRONMENT_PREFIX = "THREADKO_"


class Source(Enum):
    """Where a value comes from."""

    DEFAULT = "default"
    FILE = "file"
    ENVIRONMENT = "environment"
    DEFINE = "define"


@dataclass(frozen=True)
class SourcedConfig:
    """A configuration, and the source of each of its entries and of each default.

    `sources` has all of `values`, and with `Source.DEFAULT` each key that threadko reads and that
    nothing gives a value.
    """

    values: dict[str, Any]
    sources: dict[str, Source]

    def __repr__(self) -> str:
        # Without values, which may be passwords.
        return f"<SourcedConfig {', '.join(self.values) or 'empty'}>"


def read_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the entries that variables called `THREADKO_<KEY>` give to known keys.

    A variable that is set to nothing is as good as not set. Of two spellings of a key, the one in
    capitals counts.
    """
    entries: dict[str, Any] = {}
    for name in sorted(environ):  # capitals sort first
        key = find_key(name.removeprefix(ENVIRONMENT_PREFIX))
        if name.startswith(ENVIRONMENT_PREFIX) and key is not None and environ[name].strip():
            entries.setdefault(key, parse_value(environ[name], f"the environment variable {name}"))
    return entries


def read_defines(texts: Iterable[str]) -> dict[str, Any]:
    """Return the entries that texts like `KEY=VALUE` define; the last one of a key counts.

    Raises `ConfigurationError` if one cannot be read, or lacks a value that its key needs.
    """
    entries: dict[str, Any] = {}
    for text in texts:
        key, value = parse_define(text)
        if "=" not in text:
            _check_switch(key)
        _put(entries, key, value)
    return entries


def merge_sources(
    *,
    file: Mapping[str, Any] | None = None,
    environment: Mapping[str, Any] | None = None,
    defines: Mapping[str, Any] | None = None,
) -> SourcedConfig:
    """Return the entries of all sources, those of later parameters in place of earlier ones."""
    values = dict(file or {})
    sources = dict.fromkeys(values, Source.FILE)
    for source, entries in ((Source.ENVIRONMENT, environment), (Source.DEFINE, defines)):
        for key, value in (entries or {}).items():
            sources |= dict.fromkeys(_put(values, key, value), source)
    given = {find_key(key) for key in values}
    others = dict.fromkeys((key for key in KEYS if key not in given), Source.DEFAULT)
    return SourcedConfig(values, {**others, **sources})


def _put(entries: dict[str, Any], key: str, value: Any) -> list[str]:
    """Set an entry under all spellings that it has, else under this one; return them.

    The spelling stays, for code of the user may look for it.
    """
    known = find_key(key)
    spellings = [other for other in entries if known is not None and find_key(other) == known]
    spellings = spellings or [key]
    entries |= dict.fromkeys(spellings, value)
    return spellings


def _check_switch(key: str) -> None:
    known = KEYS.get(find_key(key) or "")
    if known is None:
        return
    try:
        known.check(known.name, True)
    except ConfigurationError:
        raise ConfigurationError(
            f"the definition of {key} has no value; give one, as in {key}=VALUE"
        ) from None
