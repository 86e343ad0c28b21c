"""The service classes that `module[:Class]` names, and what is wrong if there are none."""

import ast
import importlib
import inspect
import os
import sys
import sysconfig
import traceback
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import click
from click.shell_completion import CompletionItem

from threadko.cli.options import UserError
from threadko.extensions import ENTRYPOINT_EXTENSIONS_ATTR

__all__ = [
    "complete_services",
    "find_source_folders",
    "import_services",
    "put_first_on_path",
]


def put_first_on_path(folder: str) -> None:
    """Let modules in the folder win over installed ones, as they do for `python -m`."""
    if sys.path[:1] not in ([folder], [""]):
        sys.path.insert(0, folder)


def import_services(targets: Iterable[str]) -> list[type]:
    """Return the classes named, each once, in the order given.

    A module alone stands for the classes with entrypoints that are defined in it. Raises
    `UserError`.
    """
    found: dict[type, None] = {}
    for target in targets:
        found.update(dict.fromkeys(_import_target(target)))
    return list(found)


def _import_target(target: str) -> list[type]:
    module_name, colon, class_name = target.partition(":")
    _check_form(target, module_name, class_name, has_colon=bool(colon))
    module = _import_module(module_name)
    if colon:
        return [_get_class(module, class_name)]
    return _find_services(module)


def _check_form(target: str, module_name: str, class_name: str, *, has_colon: bool) -> None:
    path = Path(module_name)
    if path.suffix == ".py" or os.sep in module_name:
        dotted = ".".join(part for part in path.with_suffix("").parts if part not in (".", os.sep))
        suggestion = f"{dotted}:{class_name}" if has_colon else dotted
        raise UserError(f"{target!r} is a file, and a module is wanted: try {suggestion!r}")
    names = module_name.split(".") + ([class_name] if has_colon else [])
    if not all(name.isidentifier() for name in names):
        raise UserError(f"{target!r} is not of the form module or module:Class")


def _import_module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as exc:
        # "a.b" is also missing if "a" is; anything else is missing inside a module that exists.
        if exc.name is not None and f"{name}.".startswith(f"{exc.name}."):
            raise _no_such_module(name, exc) from exc
        raise _failed_import(name, exc) from exc
    except (Exception, SystemExit) as exc:
        raise _failed_import(name, exc) from exc


def _no_such_module(name: str, exc: ModuleNotFoundError) -> UserError:
    if "is not a package" in str(exc):
        parent, _, rest = str(exc.name).rpartition(".")
        return UserError(
            f"no module named {name!r}: {parent!r} is a module, not a package; for a class in it,"
            f" try '{parent}:{rest}'"
        )
    return UserError(
        f"no module named {name!r}: looked in {Path.cwd()} first, then where Python looks; "
        "run threadko in the folder that holds it"
    )


def _failed_import(name: str, exc: BaseException) -> UserError:
    text = traceback.format_exception_only(type(exc), exc)[-1].strip()
    return UserError(f"cannot import {name!r}: {text} ({_find_place(exc)})")


def _find_place(exc: BaseException) -> str:
    """Return file and line of the innermost frame that is the user's own."""
    if isinstance(exc, SyntaxError) and exc.filename:
        return f"{exc.filename}:{exc.lineno}"
    frames = traceback.extract_tb(exc.__traceback__)
    own = [frame for frame in frames if not _is_foreign(frame.filename)] or frames[-1:]
    return f"{own[-1].filename}:{own[-1].lineno}"


def _is_foreign(filename: str) -> bool:
    paths = sysconfig.get_paths()
    package = str(Path(__file__).parents[1])
    folders = (paths["stdlib"], paths["purelib"], paths["platlib"], package)
    return filename.startswith(("<", *(f"{folder}{os.sep}" for folder in folders)))


def _get_class(module: ModuleType, name: str) -> type:
    try:
        found = getattr(module, name)
    except AttributeError:
        services = [service.__name__ for service in _iter_services(module)]
        hint = f"; it has {', '.join(services)}" if services else ""
        raise UserError(f"no class {name!r} in module {module.__name__!r}{hint}") from None
    if not isinstance(found, type):
        kind = type(found).__name__
        raise UserError(f"{module.__name__}:{name} is a {kind}, and a service is a class")
    return found


def _find_services(module: ModuleType) -> list[type]:
    services = list(dict.fromkeys(_iter_services(module)))
    own = [service for service in services if service.__module__ == module.__name__]
    if own:
        return own
    text = f"no service in module {module.__name__!r}: no class defined there has an entrypoint"
    if services:
        name = services[0].__name__
        text += f"; imported ones do not count, so name one: {module.__name__}:{name}"
    else:
        text += ", such as a method with @rpc"
    raise UserError(text)


def _iter_services(module: ModuleType) -> Iterable[type]:
    for value in vars(module).values():
        if isinstance(value, type) and any(map(_is_entrypoint_method, _iter_static(value))):
            yield value


def _iter_static(cls: type) -> Iterable[Any]:
    """Yield what the attributes of a class hold, without running any property."""
    seen: set[str] = set()
    for owner in cls.__mro__:
        for name, value in vars(owner).items():
            if name not in seen:
                seen.add(name)
                yield value.__func__ if isinstance(value, (staticmethod, classmethod)) else value


def _is_entrypoint_method(value: Any) -> bool:
    return inspect.isfunction(value) and bool(getattr(value, ENTRYPOINT_EXTENSIONS_ATTR, None))


def find_source_folders(error: BaseException | None = None) -> list[str]:
    """Return the folders of all modules that are the user's own, for watching them.

    `error` is what an import has failed with: the file that it is about has become no module.
    """
    files = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    while error is not None:
        if isinstance(error, SyntaxError):
            files.append(error.filename)
        files.extend(frame.filename for frame in traceback.extract_tb(error.__traceback__))
        error = error.__cause__
    own = {str(Path(file).parent) for file in files if file and not _is_foreign(file)}
    return sorted({*own, str(Path.cwd())})


def complete_services(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Return modules in the folder, or behind a colon the classes of one; nothing is imported."""
    module, colon, begun = incomplete.rpartition(":")
    if colon:
        return [CompletionItem(f"{module}:{name}") for name in _iter_classes(module, begun)]
    package, _, begun = incomplete.rpartition(".")
    folder = Path(*package.split(".")) if package else Path()
    prefix = f"{package}." if package else ""
    names = [path.stem for path in folder.glob("*.py")]
    names += [path.parent.name for path in folder.glob("*/__init__.py")]
    found = sorted(name for name in names if name.isidentifier() and name.startswith(begun))
    return [CompletionItem(f"{prefix}{name}") for name in found if name != "__init__"]


def _iter_classes(module: str, begun: str) -> Iterable[str]:
    path = Path(*module.split("."))
    for file in (path.with_suffix(".py"), path / "__init__.py"):
        try:
            tree = ast.parse(file.read_bytes())
        except (OSError, SyntaxError, ValueError):
            continue
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and node.name.startswith(begun):
                yield node.name
