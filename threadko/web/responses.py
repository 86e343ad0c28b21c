"""From what a handler returns or raises to a response. No I/O; any thread."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from werkzeug.datastructures import Headers
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response

from threadko.exceptions import BadRequest, serialize

__all__ = ["check_head", "response_from_exception", "response_from_result"]

_STATUS = re.compile(r"[2-9][0-9]{2}(?: [\t\x20-\x7e\x80-\xff]*)?")
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_LENGTH = re.compile(r"[0-9]+")

_INTERNAL = "Error: internal server error\n"


def response_from_result(result: Any) -> Response:
    """Return the response for what a handler returned.

    Args:
        result: text, bytes, an iterator of them (sent as it comes), `(status, body)`,
            `(status, headers, body)`, or a werkzeug `Response`.

    Raises:
        TypeError: it is none of these.
    """
    if isinstance(result, Response):
        return result
    status: int | str = 200
    headers: Mapping[str, str] | Headers | Iterable[tuple[str, str]] | None = None
    body = result
    if isinstance(result, tuple):
        if len(result) == 3:
            status, headers, body = result
        elif len(result) == 2:
            status, body = result
        else:
            raise TypeError(
                f"a tuple of {len(result)} is no response, but (status, body) is, and"
                " (status, headers, body)"
            )
    if isinstance(status, bool) or not isinstance(status, (int, str)):
        raise TypeError(f"the status of a response must be an int or a str, not {status!r}")
    if headers is not None and not isinstance(headers, (Mapping, Headers, list, tuple)):
        raise TypeError(
            f"the headers of a response must be a mapping or a list of pairs, not {headers!r}"
        )
    if not isinstance(body, (str, bytes, Iterator)):
        raise TypeError(
            "the body of a response must be text, bytes or an iterator of them, not"
            f" {type(body).__name__}"
        )
    return Response(body, status=status, headers=Headers(headers))


def check_head(status: str, headers: Iterable[tuple[str, str]]) -> None:
    """Refuse what would be another response, or several, to whoever reads it.

    Raises:
        ValueError: the status is none, or a header cannot be sent as it is.
    """
    if not _STATUS.fullmatch(status):
        raise ValueError(f"the status of a response must be 200 to 999, not {status!r}")
    for name, value in headers:
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name of a header")
        if not _VALUE.fullmatch(value):
            raise ValueError(f"the header {name} cannot have the value {value!r}")
        lower = name.lower()
        if lower == "transfer-encoding":
            raise ValueError("how a body is transferred is the server's: no Transfer-Encoding")
        if lower == "content-length" and not _LENGTH.fullmatch(value):
            raise ValueError(f"the Content-Length must be a number, not {value!r}")


def response_from_exception(
    error: BaseException,
    expected: type[BaseException] | tuple[type[BaseException], ...] = (),
) -> Response:
    """Return the response for what a handler raised.

    Those that are expected, and every `BadRequest`, are the client's fault, and told: 400.
    werkzeug's exceptions are responses of their own. Of all others nothing is told: 500.
    """
    if isinstance(error, HTTPException):
        return Response.from_app(error, _NO_ENVIRON)
    if isinstance(error, (BadRequest, *_as_tuple(expected))):
        told = serialize(error)
        return Response(f"Error: {told['exc_type']}: {told['value']}\n", status=400)
    return Response(_INTERNAL, status=500)


#: What werkzeug's exceptions need of a request to become a response: nothing.
_NO_ENVIRON: dict[str, Any] = {"REQUEST_METHOD": "GET"}


def _as_tuple(
    kinds: type[BaseException] | tuple[type[BaseException], ...],
) -> tuple[type[BaseException], ...]:
    return kinds if isinstance(kinds, tuple) else (kinds,)
