"""Configuration as text: YAML files, and `KEY=VALUE` from the command line.

Error texts name files, lines and keys, never values: those may be passwords.
"""

import os
import pathlib
from typing import Any

import yaml

from threadko.exceptions import ConfigurationError

__all__ = ["load_file", "parse_define"]


def load_file(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the mapping in a YAML file; an empty file is an empty mapping.

    Raises `ConfigurationError` if the file cannot be read or holds anything else.
    """
    name = os.fspath(path)
    try:
        text = pathlib.Path(path).read_bytes()
    except OSError as exc:
        reason = exc.strerror or exc
        raise ConfigurationError(f"cannot read configuration file {name!r}: {reason}") from exc
    data = _parse(text, f"configuration file {name!r}")
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigurationError(
            f"configuration file {name!r} must hold a mapping of keys to values, "
            f"not a {type(data).__name__}"
        )
    for key in data:
        if not isinstance(key, str):
            raise ConfigurationError(
                f"configuration file {name!r}: the key {key!r} must be a string; put it in quotes"
            )
    return data


def parse_define(text: str) -> tuple[str, Any]:
    """Return key and value of `KEY=VALUE`, the value read as YAML.

    `KEY` alone is True, `KEY=` is None. Raises `ConfigurationError` if it cannot be read.
    """
    key, equals, value = text.partition("=")
    key = key.strip()
    if not key:
        raise ConfigurationError("a definition must be KEY=VALUE, and its key is missing")
    return key, _parse(value, f"the value defined for {key}") if equals else True


def _parse(text: str | bytes, source: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        line = "" if mark is None else f", line {mark.line + 1}"
        problem = exc.problem or exc.context
        raise ConfigurationError(f"{source} is not valid YAML{line}: {problem}") from exc
    except yaml.reader.ReaderError as exc:
        raise ConfigurationError(f"{source} is not valid YAML: {exc.reason}") from exc
    except RecursionError as exc:
        raise ConfigurationError(f"{source} is nested too deep") from exc
    except (ValueError, OverflowError, yaml.YAMLError) as exc:  # "2026-02-30", for one
        raise ConfigurationError(f"{source} is not valid YAML: {exc}") from exc
