"""HTTP/1.1 requests out of bytes: strict, bounded, and without I/O.

What two readers could understand differently is refused, since a proxy in front of us may be the
other reader: both lengths, doubled lengths, folded lines, bare newlines, blanks before a colon.
The whole body is read before anybody is told of a request, so no request can hide in the unread
body of another, and no sender that dawdles keeps a worker waiting.

For one thread at a time.
"""

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote_to_bytes

__all__ = ["Limits", "MalformedError", "Request", "RequestReader"]

_MAX_HEADERS: Final = 100
_MAX_CHUNK_LINE: Final = 1024  # guessed: a size in hex, and extensions that nobody sends
_MAX_REMEMBERED: Final = 512  # names of headers, each with what WSGI calls it

_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_REQUEST_LINE = re.compile(rf"({_TOKEN}) ([\x21-\x7e\x80-\xff]+) HTTP/([0-9])\.([0-9])")
_NAME = re.compile(_TOKEN)
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_BARE_NEWLINE = re.compile(rb"(?<!\r)\n|\r(?!\n|\Z)")
_HOST = re.compile(r"(?:[A-Za-z0-9\-._~%!$&'()*+,;=]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")
_ABSOLUTE = re.compile(r"https?://([^/?#]+)(.*)", re.IGNORECASE)
_LENGTH = re.compile(r"[0-9]{1,18}")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?")

#: Those that may stand once: a second one means that two readers may pick different ones.
_ONCE = frozenset(("CONTENT_LENGTH", "HTTP_HOST", "HTTP_TRANSFER_ENCODING", "CONTENT_TYPE"))

_WITHOUT_PREFIX = {"HTTP_CONTENT_LENGTH": "CONTENT_LENGTH", "HTTP_CONTENT_TYPE": "CONTENT_TYPE"}

# What WSGI calls a header, by its name as it was sent; None for a name that WSGI cannot tell from
# another. Only ever added to, by any thread.
_wsgi_names: dict[str, str | None] = {}


class MalformedError(Exception):
    """A request that is answered with `status`, and is the last on its connection."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


@dataclass(frozen=True)
class Limits:
    """The bytes that a request may have: its head, in all, and its body."""

    head: int = 32 * 1024
    body: int = 16 * 1024 * 1024


@dataclass
class Request:
    """A request that was read in full.

    `path` is decoded, each byte a character (as in WSGI's PATH_INFO); `headers` are by the names
    that WSGI has for them.
    """

    method: str
    target: str = field(repr=False)
    path: str
    query: str = field(repr=False)  # this and more may hold secrets
    version: int
    keep_alive: bool
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)


class RequestReader:
    """Takes bytes as they come and gives requests as they are complete."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._buffer = bytearray()
        self._searched = 0
        self._request: Request | None = None  # its head is read, its body is not
        self._body: _Body | None = None
        self._expects = False
        self._skipped = False  # an empty line; there may be one

    @property
    def begun(self) -> bool:
        """Whether a part of a request is there that is not complete."""
        return bool(self._buffer) or self._request is not None

    def feed(self, data: bytes) -> None:
        """Take bytes in."""
        self._buffer += data

    def take_rest(self) -> bytes:
        """Return the bytes behind the last request, for a protocol that is no HTTP."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        return rest

    def ask_continue(self) -> bool:
        """Whether the client waits for "100 Continue"; true once for a request."""
        asked, self._expects = self._expects, False
        return asked and not self._buffer

    def next(self) -> Request | None:
        """Return the next request, None as long as it is not complete.

        Raises:
            MalformedError: what came is no request, or breaks a limit.
        """
        if self._request is None and not self._read_head():
            return None
        request = self._request
        assert request is not None
        if self._body is not None:
            if not self._body.read(self._buffer):
                return None
            request.body = bytes(self._body.content)
        self._request = self._body = None
        self._expects = self._skipped = False
        self._searched = 0
        return request

    def _read_head(self) -> bool:
        buffer = self._buffer
        if not self._searched and not self._skipped and buffer[:2] == b"\r\n":
            del buffer[:2]  # an empty line before a request, as old clients send after a body
            self._skipped = True
        if not buffer:
            return False
        end = buffer.find(b"\r\n\r\n", self._searched)
        if end < 0:
            self._check_partial_head()
            self._searched = max(0, len(buffer) - 3)
            return False
        if end + 4 > self._limits.head:
            raise _too_large(buffer, self._limits.head)
        head = buffer[:end].decode("latin-1")
        del buffer[: end + 4]
        self._request, self._body, self._expects = _parse_head(head, self._limits)
        return True

    def _check_partial_head(self) -> None:
        """Refuse at once what can become no request, however it goes on."""
        buffer = self._buffer
        if len(buffer) >= self._limits.head:
            raise _too_large(buffer, self._limits.head)
        if _BARE_NEWLINE.search(buffer, max(0, self._searched - 1)):
            raise MalformedError(400, "lines must end with CR LF")
        if not _NAME.match(chr(buffer[0])) and buffer != b"\r":
            raise MalformedError(400, "this is no HTTP request")


def _too_large(buffer: bytearray, limit: int) -> MalformedError:
    if b"\r\n" not in buffer[:limit]:
        return MalformedError(414, "the request line is too long")
    return MalformedError(431, "the headers are too large")


def _parse_head(head: str, limits: Limits) -> "tuple[Request, _Body | None, bool]":
    lines = head.split("\r\n")
    if _CONTROLS.search(head) or any("\r" in line or "\n" in line for line in lines):
        raise MalformedError(400, "a control character, or a line that does not end with CR LF")
    request = _parse_request_line(lines[0])
    if len(lines) - 1 > _MAX_HEADERS:
        raise MalformedError(431, f"more than {_MAX_HEADERS} headers")
    headers = request.headers
    for line in lines[1:]:
        _add_header(headers, line)
    if request.version == 11 and "HTTP_HOST" not in headers:
        raise MalformedError(400, "the Host header is missing")
    absolute = _ABSOLUTE.fullmatch(request.target)
    if absolute is not None:
        headers["HTTP_HOST"] = absolute[1]
    if not _HOST.fullmatch(headers.get("HTTP_HOST", "")):
        raise MalformedError(400, "the Host header is malformed")
    tokens = {item.strip().lower() for item in headers.get("HTTP_CONNECTION", "").split(",")}
    request.keep_alive = "close" not in tokens if request.version == 11 else "keep-alive" in tokens
    body = _find_body(request, limits)
    expects = headers.get("HTTP_EXPECT")
    if expects is None or request.version == 10:
        return request, body, False
    if expects.lower() != "100-continue":
        raise MalformedError(417, "only 100-continue can be expected")
    return request, body, body is not None


def _parse_request_line(line: str) -> Request:
    found = _REQUEST_LINE.fullmatch(line)
    if found is None:
        raise MalformedError(400, "the request line is malformed")
    method, target, major, minor = found.groups()
    if (major, minor) not in (("1", "0"), ("1", "1")):
        raise MalformedError(505, "only HTTP/1.0 and HTTP/1.1 are spoken here")
    local = target
    if not target.startswith("/"):
        absolute = _ABSOLUTE.fullmatch(target)
        if absolute is not None:
            local = absolute[2]
            local = local if local.startswith("/") else f"/{local}"
        elif target != "*" or method != "OPTIONS":
            raise MalformedError(400, "the target of a request must be a path")
    if "#" in local:
        raise MalformedError(400, "a path has no fragment")
    path, _, query = local.partition("?")
    if "%" in path:
        path = unquote_to_bytes(path.encode("latin-1")).decode("latin-1")
        if _CONTROLS.search(path) or "\r" in path or "\n" in path:
            raise MalformedError(400, "a control character in the path")
    return Request(method, target, path, query, 10 + int(minor), keep_alive=False)


def _add_header(headers: dict[str, str], line: str) -> None:
    if line[:1] in (" ", "\t"):
        raise MalformedError(400, "a header that is folded over lines")
    sent_name, colon, value = line.partition(":")
    if not colon:
        raise MalformedError(400, "a header without a colon")
    try:
        name = _wsgi_names[sent_name]
    except KeyError:
        name = _find_wsgi_name(sent_name)
    if name is None:
        return
    value = value.strip(" \t")
    if name not in headers:
        headers[name] = value
    elif name in _ONCE:
        raise MalformedError(400, f"the header {sent_name} is there twice")
    else:
        headers[name] += f"{'; ' if name == 'HTTP_COOKIE' else ', '}{value}"


def _find_wsgi_name(sent_name: str) -> str | None:
    if not _NAME.fullmatch(sent_name):
        raise MalformedError(400, "the name of a header is malformed")
    name: str | None = None
    if "_" not in sent_name:  # else X_Y would pass for X-Y, which a proxy may have checked
        name = "HTTP_" + sent_name.upper().replace("-", "_")
        name = _WITHOUT_PREFIX.get(name, name)
    if len(_wsgi_names) < _MAX_REMEMBERED:
        _wsgi_names[sent_name] = name
    return name


def _find_body(request: Request, limits: Limits) -> "_Body | None":
    headers = request.headers
    length = headers.get("CONTENT_LENGTH")
    coding = headers.get("HTTP_TRANSFER_ENCODING")
    if coding is not None:
        if length is not None or request.version == 10:
            raise MalformedError(400, "Transfer-Encoding with Content-Length, or in HTTP/1.0")
        if coding.lower() != "chunked":
            raise MalformedError(501, "the only transfer coding is chunked")
        del headers["HTTP_TRANSFER_ENCODING"]  # what is handed on has been decoded
        return _ChunkedBody(limits.body)
    if length is None:
        return None
    if not _LENGTH.fullmatch(length):
        raise MalformedError(400, "the Content-Length is no number")
    if int(length) > limits.body:
        raise MalformedError(413, f"a body has at most {limits.body} bytes")
    return _SizedBody(int(length)) if int(length) else None


class _Body(ABC):
    """A body that is being read."""

    def __init__(self) -> None:
        self.content = bytearray()

    @abstractmethod
    def read(self, buffer: bytearray) -> bool:
        """Take what belongs to the body out of the buffer; True when it is complete."""


class _SizedBody(_Body):
    def __init__(self, length: int) -> None:
        super().__init__()
        self._missing = length

    def read(self, buffer: bytearray) -> bool:
        part = buffer[: self._missing]
        del buffer[: self._missing]
        self.content += part
        self._missing -= len(part)
        return not self._missing


class _ChunkedBody(_Body):
    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit
        self._missing = 0  # of the chunk that is being read
        self._after_chunk = False
        self._trailers: int | None = None  # how many were read; None before them

    def read(self, buffer: bytearray) -> bool:
        while self._trailers is None:
            if self._missing:
                part = buffer[: self._missing]
                del buffer[: self._missing]
                self.content += part
                self._missing -= len(part)
                if self._missing:
                    return False
                self._after_chunk = True
            if self._after_chunk:
                if not b"\r\n".startswith(bytes(buffer[:2])):
                    raise MalformedError(400, "a chunk is longer than its size")
                if len(buffer) < 2:
                    return False
                del buffer[:2]
                self._after_chunk = False
            line = _take_line(buffer)
            if line is None:
                return False
            self._begin_chunk(line)
        return self._read_trailers(buffer)

    def _begin_chunk(self, line: bytes) -> None:
        found = _CHUNK_SIZE.fullmatch(line)
        if found is None:
            raise MalformedError(400, "the size of a chunk is malformed")
        self._missing = int(found[1], 16)
        if not self._missing:
            self._trailers = 0
        elif len(self.content) + self._missing > self._limit:
            raise MalformedError(413, f"a body has at most {self._limit} bytes")

    def _read_trailers(self, buffer: bytearray) -> bool:
        """Read what may stand behind the last chunk; nobody is told of it."""
        assert self._trailers is not None
        while True:
            line = _take_line(buffer)
            if line is None:
                return False
            if not line:
                return True
            self._trailers += 1
            text = line.decode("latin-1")
            if self._trailers > _MAX_HEADERS:
                raise MalformedError(431, f"more than {_MAX_HEADERS} trailers")
            if _CONTROLS.search(text) or "\r" in text or "\n" in text:
                raise MalformedError(400, "a control character in a trailer")
            _add_header({}, text)


def _take_line(buffer: bytearray) -> bytes | None:
    end = buffer.find(b"\r\n")
    if end < 0 and _BARE_NEWLINE.search(buffer):
        raise MalformedError(400, "lines must end with CR LF")
    if end > _MAX_CHUNK_LINE or (end < 0 and len(buffer) > _MAX_CHUNK_LINE):
        raise MalformedError(400, "a line between chunks is too long")
    if end < 0:
        return None
    line = bytes(buffer[:end])
    del buffer[: end + 2]
    return line
