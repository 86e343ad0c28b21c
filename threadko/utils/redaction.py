"""What keeps secrets, and the tricks of strangers, out of logs and error texts."""

import contextlib
import copy
import datetime
import decimal
import inspect
import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

__all__ = [
    "REDACTED",
    "get_redacted_args",
    "mask_secrets",
    "one_line",
    "sanitize_url",
    "split_urls",
]

#: What stands in the place of a secret.
REDACTED = "********"

_MAX_LINE = 500  # characters of what a stranger wrote; guessed

_SCHEME = r"[A-Za-z][\w+.-]*://"

# A semicolon parts two addresses only before a scheme, for a password may contain one.
_NEXT_ADDRESS = re.compile(rf";(?=\s*{_SCHEME})")

# Not `urlsplit`, which refuses some odd addresses, and finds no password in others. Those are just
# the ones that appear in error texts, so this one takes all up to the last `@`, too much at worst.
_PASSWORD = re.compile(rf"^(\s*(?:{_SCHEME}|(?!{_SCHEME}))[^:@]*):.+@", re.DOTALL)


def split_urls(urls: str) -> list[str]:
    """Return the addresses in a text that joins them by `;`."""
    return _NEXT_ADDRESS.split(urls)


def sanitize_url(url: object) -> str:
    """Return an address, or several joined by `;` or in a list, with each password masked."""
    if isinstance(url, (list, tuple)):
        return ";".join(sanitize_url(item) for item in url)
    parts = split_urls(str(url))
    return ";".join(_PASSWORD.sub(rf"\1:{REDACTED}@", part) for part in parts)


# A name that says so itself; not "keyfile" or "routing_key".
_SECRET_NAME = re.compile(
    r"passw|pwd|passphrase|secret|token|credential"
    r"|(?:api|private|access|signing|encryption|account)[_-]?key$",
    re.IGNORECASE,
)
_ADDRESS_BEGINS = re.compile(_SCHEME)


def mask_secrets(value: Any, name: str = "") -> Any:
    """Return plain data (mappings, lists, scalars) with what looks like a secret masked.

    That is the value of a key whose name says so, as `password`, `db_secret` or `API_KEY`, at any
    depth, and the password in an address. Nothing that is not there is masked: None and "" stay.
    """
    if isinstance(value, Mapping):
        if _SECRET_NAME.search(name):
            return {key: mask_secrets(each, name) for key, each in value.items()}
        return {key: mask_secrets(each, str(key)) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [mask_secrets(each, name) for each in value]
    if value is None or value == "":
        return value
    if _SECRET_NAME.search(name):
        return REDACTED
    if isinstance(value, str) and _ADDRESS_BEGINS.search(value):
        return sanitize_url(value)
    return value


def one_line(text: object) -> str:
    """Return what a stranger wrote as it may stand in a log: one printable line of decent length.

    A line end would forge a record of its own, and a lone surrogate is refused by most files.
    """
    line = str(text)
    if len(line) > _MAX_LINE:
        line = f"{line[:_MAX_LINE]}..."
    if line.isprintable():
        return line
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in line)


class _Entrypoint(Protocol):
    @property
    def container(self) -> Any: ...

    @property
    def method_name(self) -> str: ...

    @property
    def sensitive_arguments(self) -> str | Iterable[str]: ...


# What has no inside: a path that goes on below it leads nowhere, and hides nothing.
_SCALARS = (
    str,
    bytes,
    bytearray,
    int,
    float,
    complex,
    type(None),
    datetime.date,
    datetime.time,
    datetime.timedelta,
    decimal.Decimal,
    uuid.UUID,
)

_PATH = re.compile(r"[^.\[\]]+(?:\.[^.\[\]]+|\[[^\[\]]+\])*")
_STEP = re.compile(r"\[([^\[\]]+)\]|([^.\[\]]+)")
_INDEX = re.compile(r"-?\d+", re.ASCII)


def get_redacted_args(entrypoint: _Entrypoint, /, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """Return the arguments of a call by name, without the instance, the sensitive ones masked.

    What is sensitive is said by `entrypoint.sensitive_arguments`: `name`, or a path below it, as
    `name.key`, `name[key]`, `name.key[0]`. Keys and indexes that are not there are ignored, and so
    is a path below a number or a string. On a path, mappings and sequences are shown as `dict`,
    `list` and `tuple`, and any other object is masked as a whole. A name that is no parameter is
    looked for among the arguments that `**kwargs` takes.

    The arguments themselves are never changed. Those of the result are deep copies, except where
    one cannot be copied.

    Raises:
        TypeError: the method does not take these arguments.
        ValueError: a sensitive argument is no such path.
    """
    sensitive = entrypoint.sensitive_arguments
    specs = (sensitive,) if isinstance(sensitive, str) else sensitive
    paths = [_parse_path(spec, entrypoint.method_name) for spec in specs if spec]
    method = getattr(entrypoint.container.service_cls, entrypoint.method_name)
    call_args, rest_name = _bind(method, {path[0] for path in paths}, args, kwargs)
    for path in paths:
        if path[0] in call_args:
            call_args = _mask(call_args, path)
        elif rest_name is not None:
            call_args = _mask(call_args, [rest_name, *path])
    return {name: _copy(value) for name, value in call_args.items()}


def _parse_path(spec: str, method_name: str) -> list[str]:
    steps = [(key or name).strip("'\"") for key, name in _STEP.findall(spec)]
    if not _PATH.fullmatch(spec) or not steps[0].isidentifier():
        raise ValueError(
            f"sensitive_arguments of {method_name}: {spec!r} is no path such as name.key[0]"
        )
    return steps


def _bind(
    method: Any, names: set[str], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[dict[str, Any], str | None]:
    """Return the arguments by name, and the name of the parameter that takes all other keywords."""
    signature = inspect.signature(method, follow_wrapped=False)
    bound = signature.bind(None, *args, **kwargs)
    if not names.issubset(signature.parameters):
        # The wrapper of a decorated method seldom has the names that its author thought of.
        inner = inspect.signature(method)
        with contextlib.suppress(TypeError):
            bound, signature = inner.bind(None, *args, **kwargs), inner
    bound.apply_defaults()
    call_args = dict(bound.arguments)
    parameters = list(signature.parameters.values())
    first = parameters[0]  # the instance, whatever it is called
    if first.kind is first.VAR_POSITIONAL:
        call_args[first.name] = call_args[first.name][1:]
    else:
        del call_args[first.name]
    keywords = [item.name for item in parameters if item.kind is item.VAR_KEYWORD]
    return call_args, keywords[0] if keywords else None


def _mask(value: Any, path: Sequence[str]) -> Any:
    """Return `value` with what is at the path masked; only what lies on the path is made anew."""
    if not path:
        return REDACTED
    if isinstance(value, _SCALARS):
        return value
    # Objects of any kind may stand here, and none may spoil a worker that only wants to log.
    try:
        if isinstance(value, Mapping):
            return _mask_in_mapping(value, path[0], path[1:])
        if isinstance(value, Sequence):
            return _mask_in_sequence(value, path[0], path[1:])
    except Exception:
        return REDACTED
    return REDACTED


def _mask_in_mapping(mapping: Mapping[Any, Any], step: str, rest: Sequence[str]) -> Any:
    found = [key for key in mapping if _is_named(key, step)]
    if not found:
        return mapping
    return {key: mapping[key] for key in mapping} | {k: _mask(mapping[k], rest) for k in found}


def _is_named(key: Any, step: str) -> bool:
    return step in (key, str(key)) or (isinstance(key, bytes) and key == step.encode())


def _mask_in_sequence(sequence: Sequence[Any], step: str, rest: Sequence[str]) -> Any:
    items = list(sequence)
    fields = getattr(sequence, "_fields", ())  # of a named tuple
    if step in fields:
        index = fields.index(step)
    elif _INDEX.fullmatch(step):
        index = int(step)
    else:
        return sequence
    if not -len(items) <= index < len(items):
        return sequence
    items[index] = _mask(items[index], rest)
    return tuple(items) if isinstance(sequence, tuple) else items


def _copy(value: Any) -> Any:
    # Copying runs code of the user's classes, so it may fail in any way: with a lock inside, say.
    try:
        return copy.deepcopy(value)
    except Exception:
        return value
