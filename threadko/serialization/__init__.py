"""Values to bodies and back, by serializer name and content type."""

from threadko.serialization.codecs import (
    content_type_of,
    decode,
    encode,
    encode_as,
    is_known,
    register,
    registry,
)
from threadko.serialization.registry import Encoded, Registry

__all__ = [
    "Encoded",
    "Registry",
    "content_type_of",
    "decode",
    "encode",
    "encode_as",
    "is_known",
    "register",
    "registry",
]
