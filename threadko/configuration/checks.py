"""What values a key may have.

Each check is called with the name of the key and the value that was given, and returns the value
to use or raises `ConfigurationError`.
"""

import logging
import re
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from threadko import constants
from threadko.exceptions import ConfigurationError

__all__ = [
    "Check",
    "CodecSettings",
    "MAX_WORKERS",
    "check_address",
    "check_cors",
    "check_flag",
    "check_heartbeat",
    "check_http_tls",
    "check_log_format",
    "check_login_method",
    "check_mapping",
    "check_max_workers",
    "check_mode",
    "check_name",
    "check_names",
    "check_path",
    "check_prefetch_count",
    "check_serializers",
    "check_stuck_warning",
    "check_texts",
    "check_tls",
    "check_uri",
    "check_url_path",
    "seconds",
    "whole_number",
]

_log = logging.getLogger(__name__)

_LARGEST = 1e15  # guessed: no number of anything here is larger
MAX_WORKERS = 10_000  # guessed: each is a thread, made when the service starts
#: What fits into the 16 bits that AMQP has for a heartbeat or a prefetch count.
_MAX_SHORT = 0xFFFF

Check = Callable[[str, Any], Any]


def _refuse(name: str, allowed: str, value: Any) -> ConfigurationError:
    return ConfigurationError(f"{name} must be {allowed}, not {reprlib.repr(value)}")


def _refuse_type(name: str, allowed: str, value: Any) -> ConfigurationError:
    """Like `_refuse` for values that may hold secrets."""
    return ConfigurationError(f"{name} must be {allowed}, not a {type(value).__name__}")


def _is_whole(value: Any) -> bool:
    # True is an int to Python, and never meant as one here.
    return _is_number(value) and value == int(value)


def _is_number(value: Any) -> bool:
    # Compared, for math.isfinite() overflows with a large int; NaN compares as False.
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and abs(value) <= _LARGEST


def whole_number(least: int, most: int | None = None, unit: str = "") -> Check:
    allowed = f"a whole number{unit}, {least} or more"
    if most is not None:
        allowed = f"a whole number{unit} from {least} to {most}"

    def check(name: str, value: Any) -> int:
        if not _is_whole(value) or value < least or (most is not None and value > most):
            raise _refuse(name, allowed, value)
        return int(value)

    return check


def seconds(*, zero: bool = False) -> Check:
    allowed = "a number of seconds, 0 or more" if zero else "a number of seconds above 0"

    def check(name: str, value: Any) -> float:
        if not _is_number(value) or value < 0 or (value == 0 and not zero):
            raise _refuse(name, allowed, value)
        return float(value)

    return check


def check_stuck_warning(name: str, value: Any) -> float | None:
    if value is None:
        return None
    result: float = seconds(zero=True)(name, value)
    return result or None


def check_heartbeat(name: str, value: Any) -> int:
    if value is None or value == 0:
        raise ConfigurationError(
            f"{name} must not be {value!r}: without heartbeats a dead connection is never "
            f"noticed; give a whole number of seconds, such as {constants.DEFAULT_HEARTBEAT}"
        )
    result: int = whole_number(1, _MAX_SHORT, " of seconds")(name, value)
    return result


def check_max_workers(name: str, value: Any) -> int:
    result: int = whole_number(0, MAX_WORKERS)(name, value)
    return result or constants.DEFAULT_MAX_WORKERS


def check_prefetch_count(name: str, value: Any) -> int | None:
    result: int = whole_number(0, _MAX_SHORT)(name, value)
    if result == 0:
        _log.warning(
            "%s is 0, which would let one consumer hoard its whole queue; "
            "twice the number of workers is used instead",
            name,
        )
        return None
    return result


def check_uri(name: str, value: Any) -> str | tuple[str, ...]:
    uris = value if isinstance(value, (list, tuple)) else (value,)
    if not uris or not all(isinstance(uri, str) and uri.strip() for uri in uris):
        what = "a URI such as amqp://user:password@host:5672/vhost, or a list of them"
        raise _refuse_type(name, what, value)
    stripped = tuple(uri.strip() for uri in uris)
    return stripped if len(stripped) > 1 else stripped[0]


def check_login_method(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise _refuse_type(name, "PLAIN, AMQPLAIN or EXTERNAL", value)
    return value


def check_tls(name: str, value: Any) -> Any:
    if isinstance(value, (str, int, float)) and not isinstance(value, bool):
        raise _refuse_type(name, "true or a mapping of options", value)
    return value


def check_name(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise _refuse(name, "a name", value)
    return value


def check_path(name: str, value: Any) -> str:
    if not isinstance(value, str) or not all(map(str.isidentifier, value.split("."))):
        raise _refuse(name, "a dotted path such as package.module.Class", value)
    return value


def check_names(name: str, value: Any) -> tuple[str, ...]:
    is_list = isinstance(value, (list, tuple)) and len(value) > 0
    if not is_list or not all(isinstance(item, str) and item for item in value):
        raise _refuse(name, "a list of serializer names, such as [json]", value)
    return tuple(value)


def check_flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise _refuse(name, "true or false", value)
    return value


def check_address(name: str, value: Any) -> str | int:
    is_port = isinstance(value, int) and not isinstance(value, bool)
    if not is_port and (not isinstance(value, str) or not value):
        raise _refuse(name, "[host:]port, [IPv6 address]:port or unix:/path", value)
    return value  # type: ignore[no-any-return]  # just looked at


def check_log_format(name: str, value: Any) -> str:
    if value not in ("text", "json"):
        raise _refuse(name, "text or json", value)
    return str(value)


def check_url_path(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value.startswith("/"):
        raise _refuse(name, "a path that begins with /", value)
    return value


def check_mode(name: str, value: Any) -> int:
    text = str(value)
    if isinstance(value, bool) or not re.fullmatch("0?[0-7]{3}", text):
        raise _refuse(name, "three octal digits such as '660', in quotes", value)
    return int(text, 8)


def check_http_tls(name: str, value: Any) -> dict[str, str]:
    entries = check_mapping(name, value)
    known = ("certfile", "keyfile", "password")
    for key, each in entries.items():
        if key not in known or not isinstance(each, str):
            raise ConfigurationError(f"{name} takes text for {', '.join(known)}, not {key!r}")
    if "certfile" not in entries:
        raise ConfigurationError(f"{name} needs the certfile")
    return entries


def check_cors(name: str, value: Any) -> dict[str, Any]:
    entries = check_mapping(name, value)
    known: dict[str, Check] = {
        "origins": check_texts,
        "headers": check_texts,
        "exposed": check_texts,
    }
    known |= {"credentials": check_flag, "max_age": whole_number(0)}
    for key in entries:
        if key not in known:
            raise ConfigurationError(f"{name} has no {key}, only {', '.join(known)}")
    if "origins" not in entries:
        raise ConfigurationError(f"{name} needs the origins that may ask")
    return {key: known[key](f"{name}: {key}", each) for key, each in entries.items()}


def check_texts(name: str, value: Any) -> tuple[str, ...]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, (list, tuple)) or not all(isinstance(item, str) for item in texts):
        raise _refuse(name, "a text or a list of texts", value)
    return tuple(texts)


def check_mapping(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise _refuse_type(name, "a mapping whose keys are strings", value)
    return dict(value)


@dataclass(frozen=True)
class CodecSettings:
    """One entry of `SERIALIZERS`: two dotted paths, and the properties of what they write."""

    name: str
    encoder: str
    decoder: str
    content_type: str
    content_encoding: str = "utf-8"


def check_serializers(name: str, value: Any) -> tuple[CodecSettings, ...]:
    entries = check_mapping(name, value)
    return tuple(_check_codec(f"{name}: {key}", key, entries[key]) for key in entries)


def _check_codec(place: str, name: str, value: Any) -> CodecSettings:
    required = ("encoder", "decoder", "content_type")
    given = check_mapping(place, value)
    for key in given:
        if key not in (*required, "content_encoding"):
            raise ConfigurationError(
                f"{place} has no {key}, only {', '.join(required)} and content_encoding"
            )
    for key in required:
        check_name(f"{place}: {key}", given.get(key))
    codec = CodecSettings(name, **given)
    _check_encoding(f"{place}: content_encoding", codec.content_encoding)
    return codec


def _check_encoding(name: str, value: Any) -> None:
    allowed = "a character encoding such as utf-8, or binary"
    if not isinstance(value, str):
        raise _refuse(name, allowed, value)
    if value.lower() not in ("binary", "ascii-8bit"):
        try:
            "".encode(value)
        except (LookupError, ValueError):
            raise _refuse(name, allowed, value) from None
