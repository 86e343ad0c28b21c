"""Entrypoints: what fires a method of a service, declared by decorating the method."""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import FunctionType
from typing import Any, Final, TypeVar, cast, overload

from threadko.exceptions import IncorrectSignature
from threadko.extensions.base import Extension
from threadko.extensions.interface import Container, ExcInfo
from threadko.extensions.worker import WorkerContext

__all__ = [
    "ENTRYPOINT_EXTENSIONS_ATTR",
    "Entrypoint",
    "is_entrypoint",
    "register_entrypoint",
]

#: Where a function keeps the entrypoints that were declared on it. Not nameko's name: a service
#: must not be picked up by the wrong one of two frameworks.
ENTRYPOINT_EXTENSIONS_ATTR: Final = "threadko_entrypoints"

Method = TypeVar("Method", bound=Callable[..., Any])


class Entrypoint(Extension):
    """Fires a method of a service.

    Args:
        expected_exceptions: exceptions of the method that are the caller's fault; they are logged
            as warnings.
        sensitive_arguments: arguments of the method that tools must not show.
    """

    #: The method, once bound.
    method_name: str = cast(str, None)
    expected_exceptions: type[BaseException] | tuple[type[BaseException], ...] = ()
    sensitive_arguments: str | Iterable[str] = ()

    _signature: "_Signature | None" = None

    def __init__(
        self,
        expected_exceptions: type[BaseException] | Iterable[type[BaseException]] = (),
        sensitive_arguments: str | Iterable[str] = (),
        **kwargs: Any,
    ) -> None:
        expected = (
            (expected_exceptions,)
            if isinstance(expected_exceptions, type)
            else tuple(expected_exceptions)
        )
        for item in expected:
            # Found out here, or it would be found out while an exception is being logged.
            if not (isinstance(item, type) and issubclass(item, BaseException)):
                raise TypeError(f"expected_exceptions takes exception classes, not {item!r}")
        self.expected_exceptions = expected
        self.sensitive_arguments = sensitive_arguments
        super().__init__(**kwargs)

    # The parameter has nameko's name for this kind of extension.
    def bind(self, container: Container, method_name: str) -> Any:  # type: ignore[override]
        """Return a clone that fires the method of that name."""
        instance = super().bind(container)
        instance.method_name = method_name
        return instance

    def check_signature(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Raise `IncorrectSignature` if the method does not take these arguments."""
        signature = self._signature
        if signature is None:
            # Not in `bind`: test tools bind entrypoints to methods that they put in later.
            function = getattr(self.container.service_cls, self.method_name)
            signature = self._signature = _Signature(function)
        signature.check(args, kwargs)

    def settle(
        self, worker_ctx: WorkerContext, result: Any = None, exc_info: ExcInfo | None = None
    ) -> None:
        """Let the outcome of a worker leave; called after every `worker_result`.

        Not called for a worker that was abandoned. For entrypoints of one's own: acknowledge what
        came in, or delete it from its queue.
        """

    @overload
    @classmethod
    def decorator(cls, method: Method, /) -> Method: ...

    @overload
    @classmethod
    def decorator(cls, *args: Any, **kwargs: Any) -> Callable[[Method], Method]: ...

    @classmethod
    def decorator(cls, *args: Any, **kwargs: Any) -> Any:
        """Declare an entrypoint on a method: `@rpc`, or `@rpc(...)` with constructor arguments.

        The method itself stays as it is, so several can be declared on one method.

        Raises:
            TypeError: what is decorated is no plain method, or is `async def`.
        """
        if len(args) == 1 and not kwargs and isinstance(args[0], _DECORATED):
            return cls._declare(args[0], cls())

        def declare(method: Any) -> Any:
            return cls._declare(method, cls(*args, **kwargs))

        return declare

    @classmethod
    def _declare(cls, method: Any, entrypoint: "Entrypoint") -> Any:
        if not isinstance(method, FunctionType):
            raise TypeError(
                f"{cls.__name__} can be declared on plain methods only, not on {method!r}"
            )
        register_entrypoint(method, entrypoint)
        return method


_DECORATED = (FunctionType, staticmethod, classmethod)


class _Signature:
    """What a method takes, worked out once.

    The usual call is accepted by counting and comparing names. Only what that does not accept goes
    through `inspect`, which is some thirty times slower, and finds the words for the error.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        # A decorated method takes what its wrapper takes.
        self._exact = inspect.signature(function, follow_wrapped=False)
        parameters = list(self._exact.parameters.values())[1:]
        self._simple = all(item.kind is item.POSITIONAL_OR_KEYWORD for item in parameters)
        self._order = [item.name for item in parameters]
        self._names = frozenset(self._order)
        self._required = frozenset(item.name for item in parameters if item.default is item.empty)

    def check(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        if self._simple and len(args) <= len(self._order):
            given = self._order[: len(args)]
            if (
                self._names.issuperset(kwargs)
                and not any(name in kwargs for name in given)
                and self._required.difference(given).issubset(kwargs)
            ):
                return
        try:
            self._exact.bind(None, *args, **kwargs)
        except TypeError as error:
            raise IncorrectSignature(self._explain(args, kwargs, error)) from None

    def _explain(self, args: Sequence[Any], kwargs: Mapping[str, Any], error: TypeError) -> str:
        """Return the words that a call would fail with, which nameko sends as well."""
        try:
            inspect.getcallargs(self._function, None, *args, **kwargs)
        except TypeError as usual:
            return str(usual)
        # Positional-only arguments, which `getcallargs` does not know.
        return f"{self._function.__name__}() {error}"


def register_entrypoint(fn: Callable[..., Any], entrypoint: Entrypoint) -> None:
    """Note on a function that `entrypoint` fires it.

    Raises:
        TypeError: the function is `async def`, which no worker thread would ever await.
    """
    if inspect.iscoroutinefunction(fn) or inspect.isasyncgenfunction(fn):
        raise TypeError(
            f"{fn.__qualname__} is 'async def'; entrypoints are plain methods that run in a"
            f" worker thread, so declare it with 'def'"
        )
    # A list, since a set would lose the order of declaration.
    entrypoints = fn.__dict__.setdefault(ENTRYPOINT_EXTENSIONS_ATTR, [])
    if not any(known is entrypoint for known in entrypoints):
        entrypoints.append(entrypoint)


def is_entrypoint(value: object) -> bool:
    """Whether `value` is an entrypoint."""
    return issubclass(type(value), Entrypoint)
