"""Which pages of other origins may ask us: what `HTTP_CORS` says, as headers. No I/O."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

__all__ = ["Cors"]


@dataclass(frozen=True)
class Cors:
    """Answers the questions that browsers ask about pages of other origins.

    Args:
        origins: those that may; "*" among them for all.
        headers: request headers that they may send, beyond those that everybody may.
        exposed: response headers that they may read.
        credentials: whether cookies come along; browsers then want their origin named.
        max_age: seconds for which a browser may remember the answer.
    """

    origins: frozenset[str]
    headers: tuple[str, ...] = ()
    exposed: tuple[str, ...] = ()
    credentials: bool = False
    max_age: int = 600

    def answer(self, environ: Mapping[str, str]) -> dict[str, str]:
        """Return the headers to add to the response for a request."""
        origin = environ.get("HTTP_ORIGIN")
        everybody = "*" in self.origins
        found: dict[str, str] = {}
        if not everybody or self.credentials:
            found["Vary"] = "Origin"
        if origin is None or not (everybody or origin in self.origins):
            return found
        found["Access-Control-Allow-Origin"] = "*" if everybody and not self.credentials else origin
        if self.credentials:
            found["Access-Control-Allow-Credentials"] = "true"
        if self.exposed:
            found["Access-Control-Expose-Headers"] = ", ".join(self.exposed)
        return found

    def answer_preflight(
        self, environ: Mapping[str, str], methods: Iterable[str]
    ) -> dict[str, str]:
        """Return the headers that answer whether a request may be sent; see `answer`."""
        found = self.answer(environ)
        if (
            "Access-Control-Allow-Origin" in found
            and "HTTP_ACCESS_CONTROL_REQUEST_METHOD" in environ
        ):
            found["Access-Control-Allow-Methods"] = ", ".join(methods)
            found["Access-Control-Max-Age"] = str(self.max_age)
            if self.headers:
                found["Access-Control-Allow-Headers"] = ", ".join(self.headers)
        return found
