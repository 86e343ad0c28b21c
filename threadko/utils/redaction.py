"""What keeps secrets out of logs and error texts."""

import re

__all__ = ["REDACTED", "sanitize_url"]

#: What stands in the place of a secret.
REDACTED = "********"

_SCHEME = r"[A-Za-z][\w+.-]*://"

# A semicolon parts two addresses only before a scheme, for a password may contain one.
_NEXT_ADDRESS = re.compile(rf";(?=\s*{_SCHEME})")

# Not `urlsplit`, which refuses some odd addresses, and finds no password in others. Those are just
# the ones that appear in error texts, so this one takes all up to the last `@`, too much at worst.
_PASSWORD = re.compile(rf"^(\s*(?:{_SCHEME}|(?!{_SCHEME}))[^:@]*):.+@", re.DOTALL)


def sanitize_url(url: object) -> str:
    """Return an address, or several joined by `;` or in a list, with each password masked."""
    if isinstance(url, (list, tuple)):
        return ";".join(sanitize_url(item) for item in url)
    parts = _NEXT_ADDRESS.split(str(url))
    return ";".join(_PASSWORD.sub(rf"\1:{REDACTED}@", part) for part in parts)
