"""The pages of the API reference, the count of what is documented, and the tables of keys.

There is one page for each module that users import, made anew for each build, so a new module or
name cannot be forgotten. ``sphinx.ext.coverage`` does not serve: it passes over names that a module
hands on from another, which most of the public ones are.
"""

import importlib
import inspect
import pkgutil

import threadko
from threadko.configuration.keys import SECTIONS

# What is imported by users. Of these packages every module, of the others those that are named;
# the rooms behind the faces are ours.
OPEN_PACKAGES = ("threadko.compat", "threadko.contrib", "threadko.standalone", "threadko.testing")
OPEN_MODULES = (
    "threadko.amqp.consume",
    "threadko.amqp.publish",
    "threadko.utils.concurrency",
    "threadko.utils.retry",
    "threadko.web.handlers",
    "threadko.web.server",
    "threadko.web.websocket",
)
INTERNAL = ("threadko.__main__", "threadko.cli", "threadko.concurrency", "threadko.context")


def find_public_modules():
    """Return the dotted names of all modules that users import from, sorted."""
    found = {"threadko", *OPEN_MODULES}
    for package, path in [("threadko", threadko.__path__)]:
        found |= {info.name for info in pkgutil.iter_modules(path, f"{package}.")}
    for package in OPEN_PACKAGES:
        if package in found:
            path = importlib.import_module(package).__path__
            found |= {info.name for info in pkgutil.iter_modules(path, f"{package}.")}
    return sorted(name for name in found.difference(INTERNAL) if find_names(name))


def find_names(module):
    """Return the public names of a module: those in its ``__all__``."""
    return list(getattr(importlib.import_module(module), "__all__", ()))


def find_homes():
    """Return for each object that stands under several paths the one under which it is described.

    That is the module which defines it if users import from that, else the first.
    """
    homes = {}
    modules = find_public_modules()
    for module in modules:
        for name in find_names(module):
            value = getattr(importlib.import_module(module), name)
            if hasattr(value, "__qualname__"):
                own = value.__module__ if value.__module__ in modules else module
                # Not under an alias, if it has a name of its own there.
                name = value.__qualname__ if value.__qualname__ in find_names(own) else name
                homes.setdefault(id(value), f"{own}.{name}")
    return homes


def make_page(module, homes):
    """Return the page of one module: what its docstring says, then each name."""
    parts = [f"{module}\n{'=' * len(module)}\n\n.. automodule:: {module}\n   :no-members:\n"]
    for name in find_names(module):
        value = getattr(importlib.import_module(module), name)
        home = homes.get(id(value), f"{module}.{name}")
        if home == f"{module}.{name}":
            kind = "class" if inspect.isclass(value) else "data"
            kind = "function" if inspect.isroutine(value) else kind
            parts.append(f".. auto{kind}:: {home}\n")
        else:
            role = "class" if inspect.isclass(value) else "func"
            parts.append(f".. rubric:: {name}\n\nThe same as :py:{role}:`{home}`.\n")
    return "\n".join(parts)


def write_pages(folder):
    """Write one page for each public module, and touch none that is as it should be."""
    folder.mkdir(exist_ok=True)
    homes = find_homes()
    pages = {module: make_page(module, homes) for module in find_public_modules()}
    toctree = "".join(f"   {module}\n" for module in pages)
    pages["index"] = (
        "API reference\n=============\n\nEvery public name, under the path that it is imported"
        f" from.\n\n.. toctree::\n   :maxdepth: 1\n\n{toctree}"
    )
    for path in folder.glob("*.rst"):
        if path.stem not in pages:
            path.unlink()
    for name, text in pages.items():
        path = folder / f"{name}.rst"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def iter_documentable(module, homes):
    """Yield each public name with what it names: of the module, then of its classes of ours."""
    for name in find_names(module):
        value = getattr(importlib.import_module(module), name)
        home = homes.get(id(value), f"{module}.{name}")
        yield home, value
        if inspect.isclass(value) and value.__module__.startswith("threadko."):
            for key, member in vars(value).items():
                is_method = isinstance(member, (staticmethod, classmethod, property))
                if not key.startswith("_") and (is_method or inspect.isfunction(member)):
                    yield f"{home}.{key}", getattr(value, key)


def find_public():
    """Return all public names with what they name."""
    homes = find_homes()
    public = {}
    for module in find_public_modules():
        public.update(iter_documentable(module, homes))
    return public


def find_undocumented(public, known):
    """Return the public names that are not among the known ones, or have no docstring.

    Of constants a docstring cannot be asked.
    """
    return [
        name
        for name, value in public.items()
        if name not in known
        or ((inspect.isroutine(value) or inspect.isclass(value)) and not inspect.getdoc(value))
    ]


def make_key_table(section):
    """Return the table of the configuration's keys in a section, as the source of a page."""
    lines = [".. list-table::", "   :header-rows: 1", "   :widths: 24 16 20 60", ""]
    rows = [("key", "type", "default", "meaning")]
    rows += [
        (f"``{key.name}``", key.type, key.default_doc or format_default(key.default), key.doc)
        for key in SECTIONS[section]
    ]
    for first, *others in rows:
        lines += [f"   * - {first}", *(f"     - {cell}" for cell in others)]
    return "\n".join(lines) + "\n"


def format_default(value):
    """Return a default as it would stand in a file, as the source of a page."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return f"``{str(value).lower()}``"
    if isinstance(value, str) and value.isdigit():
        return f'``"{value}"``'
    return f"``{value}``"
