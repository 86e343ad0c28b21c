"""One who calls: a link, a serializer and options, and what they make of a call.

Made once for each dependency or client; any thread may start calls with it. A request is encoded
in its caller's thread, and so is its reply decoded, when the result is asked for.
"""

import threading
from collections.abc import Callable, Mapping
from typing import Any

from threadko.amqp.message import decode_properties
from threadko.context import encode_headers
from threadko.exceptions import RemoteError
from threadko.rpc.calls import RawReply, RpcCall
from threadko.rpc.options import NO_OPTIONS, RequestOptions
from threadko.rpc.protocol import parse_reply, request_body
from threadko.rpc.replies import CallLink
from threadko.serialization import COMPRESSION_HEADER, Serialization, compress

__all__ = ["Caller"]


class Caller:
    """Starts calls over a link.

    Args:
        link: of the caller, or of several.
        serialization: how bodies are written, if the options say nothing else, and read.
        options: for all requests.

    Raises:
        ConfigurationError: the serializer of the options is not known.
    """

    def __init__(
        self,
        link: CallLink,
        serialization: Serialization,
        options: RequestOptions = NO_OPTIONS,
    ) -> None:
        if options.serializer is not None:
            serialization = serialization.using(options.serializer)
        self._link = link
        self._serialization = serialization
        self._options = options
        self._headers = dict(options.headers)

    def start(
        self,
        get_context: Callable[[], Mapping[str, Any]],
        service: str,
        method: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        timeout: float | None,
    ) -> RpcCall:
        """Encode a request in the caller's thread and send it; see ``CallLink.call``."""
        timeout = _check_timeout(timeout)
        encoded = self._serialization.encode(request_body(args, kwargs))
        headers = encode_headers(get_context())
        if self._headers:
            headers = {**self._headers, **headers}
        if self._options.compression is not None:
            name, body = compress(self._options.compression, encoded.body)
            headers[COMPRESSION_HEADER] = name
            encoded = encoded._replace(body=body)
        return self._link.call(
            service,
            method,
            encoded,
            headers,
            decode=self._decode,
            timeout=timeout,
            options=self._options,
        )

    def _decode(self, reply: RawReply) -> Any:
        """Return the result in a reply, or raise the error in it; in the thread that asks."""
        try:
            properties = decode_properties(reply.header)
            body = self._serialization.decode(
                reply.body,
                properties.content_type,
                properties.content_encoding,
                properties.headers and properties.headers.get(COMPRESSION_HEADER),
            )
        except ValueError as error:  # a DecodeError is one
            raise RemoteError("MalformedReply", str(error)) from error
        return parse_reply(body)


def _check_timeout(timeout: float | None) -> float | None:
    if timeout is None:
        return None
    is_number = isinstance(timeout, (int, float)) and not isinstance(timeout, bool)
    if not is_number or not timeout >= 0:
        raise ValueError(f"a timeout is a number of seconds or None, not {timeout!r}")
    return float(min(timeout, threading.TIMEOUT_MAX))
