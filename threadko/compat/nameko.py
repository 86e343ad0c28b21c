"""Lets an extension that imports nameko be used unchanged, where there is no nameko.

After `install()`, `nameko.extensions` and all other public modules *are* threadko's: the same
module objects, no copies, so that an extension's classes are of the kind that a container looks
for. It is for the program, at its beginning; a library that called it would decide for everybody.
Any thread may call anything: Python itself lets imports of one module come one after the other.
"""

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

from threadko.exceptions import ConfigurationError

__all__ = ["install", "uninstall"]

_THEIRS = "nameko"
_OURS = "threadko"

#: What nameko shows to others, and threadko has under the same names.
_PUBLIC = frozenset(
    (
        "amqp",
        "constants",
        "containers",
        "contextdata",
        "dependency_providers",
        "events",
        "exceptions",
        "extensions",
        "log_helpers",
        "messaging",
        "rpc",
        "runners",
        "serialization",
        "standalone",
        "testing",
        "timer",
        "utils",
        "web",
    )
)


class _Finder(MetaPathFinder, Loader):
    """Finds threadko's modules under nameko's names."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return how to load a module; None for all that is not nameko's."""
        top, _, rest = fullname.partition(".")
        if top != _THEIRS:
            return None
        if rest and (
            rest.partition(".")[0] not in _PUBLIC
            or importlib.util.find_spec(f"{_OURS}.{rest}") is None
        ):
            # Not None: then the next finder would load a second copy of a module, by its path.
            raise ModuleNotFoundError(
                f"threadko has no {fullname!r}: the extension cannot be used as it is",
                name=fullname,
            )
        return ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Leave it to Python to make a module, which is thrown away."""
        return None

    def exec_module(self, module: ModuleType) -> None:
        """Put threadko's module in the place of the new one."""
        # Not from `create_module`: the import system would write nameko's name into it.
        name = module.__name__
        sys.modules[name] = importlib.import_module(_OURS + name.removeprefix(_THEIRS))


_finder = _Finder()


def install() -> None:
    """Answer imports of nameko with threadko's modules, from now on; may be called twice.

    Raises:
        ConfigurationError: nameko is installed. Its extensions are for it, then.
    """
    if _finder in sys.meta_path:
        return
    if _THEIRS in sys.modules or importlib.util.find_spec(_THEIRS) is not None:
        raise ConfigurationError(
            "nameko is installed, and what imports it gets it: pip uninstall nameko, or install"
            " what needs it with pip install --no-deps"
        )
    sys.meta_path.insert(0, _finder)


def uninstall() -> None:
    """Undo `install()`; what has been imported stays as it is with whoever has it."""
    if _finder in sys.meta_path:
        sys.meta_path.remove(_finder)
        for name in list(sys.modules):
            if name.partition(".")[0] == _THEIRS:
                del sys.modules[name]
