"""Objects by dotted path, as configuration names them."""

import importlib
from typing import Any

__all__ = ["import_from_path"]


def import_from_path(path: str | None) -> Any:
    """Return the module, class or function that a dotted path names; None for None.

    Raises `ImportError` if there is no such thing. What a module raises while it is imported is
    passed on as it is.
    """
    if path is None:
        return None
    names = path.split(".")
    if not all(name.isidentifier() for name in names):
        raise ImportError(f"{path!r} is not a dotted path")
    found, rest = _import_longest(names)
    for name in rest:
        try:
            found = getattr(found, name)
        except AttributeError as exc:
            raise ImportError(f"{path!r} cannot be found: no {name!r} in {found!r}") from exc
    return found


def _import_longest(names: list[str]) -> tuple[Any, list[str]]:
    """Import the longest part of the path that is a module; return it and the names left over."""
    module: Any = None
    for count in range(1, len(names) + 1):
        module_path = ".".join(names[:count])
        try:
            module = importlib.import_module(module_path)
        except ModuleNotFoundError as exc:
            # A module that exists but lacks one of its own imports must say so itself.
            if exc.name != module_path:
                raise
            if module is None:
                raise ImportError(f"{'.'.join(names)!r} cannot be found: {exc}") from exc
            return module, names[count - 1 :]
    return module, []
