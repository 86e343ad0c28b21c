"""How to log in: the mechanisms that ``LOGIN_METHOD`` names. Pure functions, any thread."""

from typing import Any

import pika
import pika.credentials

from threadko.amqp.tables import encode_table
from threadko.exceptions import ConfigurationError

__all__ = ["LOGIN_METHODS", "check_login_method", "make_credentials"]

LOGIN_METHODS = ("PLAIN", "AMQPLAIN", "EXTERNAL")


class _AmqplainCredentials(pika.PlainCredentials):  # type: ignore[misc]  # pika has no types
    """User and password as a table, the mechanism of old brokers."""

    TYPE = "AMQPLAIN"

    def response_for(self, start: Any) -> tuple[str | None, bytes | None]:
        """Return the mechanism and what to send for it; nothing if the broker has it not."""
        if self.TYPE.encode() not in pika.compat.as_bytes(start.mechanisms).split():
            return None, None
        table = encode_table({"LOGIN": self.username, "PASSWORD": self.password})
        return self.TYPE, table[4:]  # without its length, which the frame says


def check_login_method(name: str | None) -> str:
    """Return the name of a mechanism, PLAIN for None.

    Raises:
        ConfigurationError: there is no such mechanism.
    """
    found = "PLAIN" if name is None else name
    if not isinstance(found, str) or found.upper() not in LOGIN_METHODS:
        raise ConfigurationError(
            f"LOGIN_METHOD must be one of {', '.join(LOGIN_METHODS)}, not {found!r}"
        )
    return found.upper()


def make_credentials(method: str, user: str, password: str) -> Any:
    """Return what pika logs in with; EXTERNAL takes the name from the client's certificate."""
    if method == "EXTERNAL":
        return pika.credentials.ExternalCredentials()
    if method == "AMQPLAIN":
        return _AmqplainCredentials(user, password)
    return pika.PlainCredentials(user, password)
