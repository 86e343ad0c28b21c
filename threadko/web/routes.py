"""Which handler answers a request: the routes of all containers on one address. No I/O.

Any thread may call anything: routes are looked up in a map that is replaced, never changed.
"""

import re
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from werkzeug.exceptions import HTTPException
from werkzeug.routing import Map, Rule

from threadko.exceptions import ConfigurationError

__all__ = ["Match", "Routes", "make_rule", "read_methods"]

Handler = TypeVar("Handler")

#: The methods of a rule that names none.
_ALL: Final = frozenset(("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))

_VARIABLE: Final = re.compile(r"(<(?:[^:<>]*:)?)[^<>:]*>")


@dataclass(frozen=True)
class Match(Generic[Handler]):
    """The handler of a request, and what its path says."""

    handler: Handler
    path_values: Mapping[str, Any]


@dataclass(frozen=True)
class _Route(Generic[Handler]):
    owner: object
    methods: frozenset[str]
    shape: object
    rule: Rule
    handler: Handler


def read_methods(methods: str) -> frozenset[str]:
    """Return the methods in a list with commas; `ConfigurationError` if there is none."""
    if not isinstance(methods, str):
        raise ConfigurationError(f"HTTP methods are text, such as 'GET,POST', not {methods!r}")
    found = frozenset(each.strip().upper() for each in methods.split(",") if each.strip())
    if not found or not all(each.isalpha() for each in found):
        raise ConfigurationError(
            f"an HTTP method such as 'GET', or several with commas, is wanted, not {methods!r}"
        )
    return found


class Routes(Generic[Handler]):
    """The routes on one address.

    GET comes with HEAD. OPTIONS is answered by whoever asks `allowed`, unless a route takes it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards _routes and the replacing of _map
        self._routes: list[_Route[Handler]] = []
        self._map = Map()

    def __len__(self) -> int:
        return len(self._routes)

    def add(self, owner: object, rule: Rule, handler: Handler) -> None:
        """Add a route; its owner takes all of its own away with `remove`.

        Raises:
            ConfigurationError: the rule is none, or another route takes one of its methods.
        """
        url = rule.rule
        route = _Route(owner, _read_rule_methods(rule), _blur(rule), rule, handler)
        with self._lock:
            for known in self._routes:
                twice = sorted(known.methods & route.methods)
                if known.shape == route.shape and twice:
                    raise ConfigurationError(
                        f"{twice[0]} {url} is there twice: by {known.handler!r} and {handler!r}"
                    )
            self._map = _make_map([*self._routes, route])
            self._routes.append(route)

    def remove(self, owner: object) -> None:
        """Take away all routes of an owner."""
        with self._lock:
            self._routes = [route for route in self._routes if route.owner is not owner]
            self._map = _make_map(self._routes)

    def match(self, environ: dict[str, Any]) -> Match[Handler]:
        """Return who answers a request.

        Raises:
            HTTPException: werkzeug's NotFound, MethodNotAllowed or RequestRedirect.
        """
        adapter = self._map.bind_to_environ(environ)
        # Whoever asks for a websocket is told by the handler, not by the map.
        handler, values = adapter.match(websocket=False)
        return Match(handler, values)

    def allowed(self, environ: dict[str, Any]) -> list[str]:
        """Return the methods that the path of a request takes; none if no route has it."""
        try:
            return sorted(self._map.bind_to_environ(environ).allowed_methods())
        except HTTPException:
            return []


def make_rule(methods: str, url: str) -> Rule:
    """Return the rule for a list of methods and a URL; `ConfigurationError` if it is none."""
    found = read_methods(methods)
    try:
        return Rule(url, methods=found)
    except Exception as error:
        raise ConfigurationError(f"{url!r} is no URL rule: {error}") from error


def _read_rule_methods(rule: Rule) -> frozenset[str]:
    # Those that werkzeug adds by itself are nobody's claim.
    methods = rule.methods
    if methods is None:
        return _ALL
    return frozenset(methods - {"HEAD"} if "GET" in methods else methods)


def _blur(rule: Rule) -> object:
    """Return what two rules that take the same requests have in common."""
    return rule.host, rule.subdomain, _VARIABLE.sub(r"\1>", rule.rule)


def _make_map(routes: Iterable[_Route[Handler]]) -> Map:
    found = Map()
    for route in routes:
        try:
            rule = route.rule.empty()
            rule.endpoint = route.handler
            found.add(rule)
        except Exception as error:  # werkzeug makes Python of a rule, and compiles that
            raise ConfigurationError(f"{route.rule.rule!r} is no URL rule: {error}") from error
    return found
