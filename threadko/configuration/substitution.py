"""Environment variables in a text: ``${NAME}`` and ``${NAME:default}``."""

import re
from collections.abc import Mapping

from threadko.exceptions import ConfigurationError

__all__ = ["OPENING", "substitute"]

OPENING = "${"

_UNCLOSED = "a ${ has no } to close it"
_HEAD = re.compile(r"\$\{([^\s${}:]+)([:}])")


def substitute(text: str, environ: Mapping[str, str]) -> str:
    """Return `text` with the values of variables in place of their names.

    A default may hold further variables, and braces in pairs. What is not set and has no default
    becomes nothing; what is set to nothing stays nothing. A value is put in as it is, never looked
    through for variables.

    Raises `ConfigurationError`, without any value in its text, if a brace is missing or what it
    opens with is no name.
    """
    replaced, _ = _read(text, 0, environ, in_default=False)
    return replaced


def _read(text: str, at: int, environ: Mapping[str, str], *, in_default: bool) -> tuple[str, int]:
    """Return the replaced text from `at` on, and the place after it.

    A default ends with the brace that closes its variable, everything else with the text.
    """
    parts = []
    depth = 0
    while at < len(text):
        if text.startswith(OPENING, at):
            part, at = _read_variable(text, at, environ)
            parts.append(part)
            continue
        char = text[at]
        at += 1
        if in_default and char == "}" and depth == 0:
            return "".join(parts), at
        depth += (char == "{") - (char == "}")
        parts.append(char)
    if in_default:
        raise ConfigurationError(_UNCLOSED)
    return "".join(parts), at


def _read_variable(text: str, at: int, environ: Mapping[str, str]) -> tuple[str, int]:
    head = _HEAD.match(text, at)
    if head is None:
        unclosed = "}" not in text[at:]
        raise ConfigurationError(_UNCLOSED if unclosed else "a ${ begins no ${NAME} or ${NAME:...}")
    name, end = head.groups()
    default, at = "", head.end()
    if end == ":":
        default, at = _read(text, at, environ, in_default=True)
    return environ.get(name, default), at
