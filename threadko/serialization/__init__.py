"""Values to bodies and back, by serializer name and content type; and bodies made smaller."""

from threadko.serialization.codecs import (
    JSON,
    content_type_of,
    is_known,
    register,
    registry,
)
from threadko.serialization.compression import (
    COMPRESSION_HEADER,
    check_compression,
    compress,
    decompress,
)
from threadko.serialization.registry import Codec, Encoded, Registry
from threadko.serialization.serialization import Serialization, SerializationConfig, setup

__all__ = [
    "COMPRESSION_HEADER",
    "Codec",
    "Encoded",
    "JSON",
    "Registry",
    "Serialization",
    "SerializationConfig",
    "check_compression",
    "compress",
    "content_type_of",
    "decompress",
    "is_known",
    "register",
    "registry",
    "setup",
]
