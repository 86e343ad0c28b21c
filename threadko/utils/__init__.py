"""Small tools that need nothing but the standard library."""

from threadko.utils.imports import import_from_path
from threadko.utils.redaction import REDACTED, get_redacted_args, sanitize_url

__all__ = ["REDACTED", "get_redacted_args", "import_from_path", "sanitize_url"]
