"""Context data in the headers of messages. Plain functions, for any thread."""

from collections.abc import Mapping
from typing import Any

from threadko.constants import HEADER_PREFIX
from threadko.context import decode_headers, encode_headers

__all__ = ["decode_from_headers", "encode_to_headers"]


def encode_to_headers(
    context_data: Mapping[str, Any] | None, prefix: str = HEADER_PREFIX
) -> dict[str, Any]:
    """Return context data as headers `<prefix>.<key>`; None values are left out."""
    return encode_headers(context_data, prefix)


def decode_from_headers(headers: Any, prefix: str = HEADER_PREFIX) -> dict[str, Any]:
    """Return the context data in headers. Those without the prefix are no context data."""
    return decode_headers(headers, prefix)
