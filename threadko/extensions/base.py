"""Extensions: declared once on a class, cloned and bound for each container.

A declaration is a prototype that only remembers its arguments. Binding calls the class again with
them, so that no two containers share state; `__init__` therefore runs more than once and must do
nothing but keep values. Members are found by looking into `__dict__` alone: a property or another
descriptor of the user's is never run by looking for extensions.

====================  ==========================================================================
setup, start, ready   the thread that starts the container, once each, in this order
open                  the same thread, when every extension of the container is ready
cancel, stop          the thread that stops the container
kill                  any thread, at any time after `setup` was called; must not block
find_trouble,
answer_ping           any thread, while the container runs; must not block
====================  ==========================================================================
"""

from collections.abc import Callable, Iterator
from typing import Any, TypeVar, cast

from threadko.extensions.interface import Container

__all__ = [
    "Extension",
    "SharedExtension",
    "declared_members",
    "is_extension",
    "iter_extensions",
]

Bound = TypeVar("Bound", bound="Extension")
SharedBound = TypeVar("SharedBound", bound="SharedExtension")


class Extension:
    """Something with a life beside a service: hooks that its container calls."""

    #: The container, once bound. A plain reference: nameko's weak proxy raises in a thread that
    #: outlives the last user of a container, and the collector frees the circle as well.
    container: Container = cast(Container, None)

    __arguments: tuple[tuple[Any, ...], dict[str, Any]] = ((), {})

    def __new__(cls: type[Bound], *args: Any, **kwargs: Any) -> Bound:
        instance = super().__new__(cls)
        instance.__arguments = (args, kwargs)
        return instance

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if (args or kwargs) and type(self).__mro__[-2] is Extension:
            what = f"option {next(iter(kwargs))!r}" if kwargs else "use for so many arguments"
            raise TypeError(f"{type(self).__name__} has no {what}")
        # Passed on for mixins that stand behind.
        super().__init__(*args, **kwargs)

    def setup(self) -> None:
        """Prepare, before any extension of the container starts."""

    def start(self) -> None:
        """Begin: connect, declare, listen; what takes long is waited for in `ready()`."""

    def ready(self) -> None:
        """Wait until what `start()` began stands, or raise; leave when `container.stopping` is."""

    def open(self) -> None:
        """Let work in; every extension of the container is ready."""

    def cancel(self) -> None:
        """Let no more work in, and give back what has not begun; the first step of stopping."""

    def stop(self) -> None:
        """End in good order: for entrypoints the first step, for others after the last worker."""

    def kill(self) -> None:
        """End at once; must neither block nor settle what is unfinished."""

    def find_trouble(self) -> str | None:
        """Say in a few words why this cannot do its part at the moment; None if it can."""
        return None

    def answer_ping(self, answer: Callable[[], object]) -> None:
        """Have `answer` called by the thread that runs for this extension, if there is one."""
        answer()

    def bind(self: Bound, container: Container) -> Bound:
        """Return a clone of this declaration that belongs to `container`, with all it owns.

        Raises:
            RuntimeError: this is no declaration, but bound already.
        """
        if self.is_bound():
            raise RuntimeError(f"{self!r} is bound already; only a declaration can be bound")
        args, kwargs = self.__arguments
        instance = type(self)(*args, **kwargs)
        instance.container = container
        for name, member in declared_members(self).items():
            if is_extension(member):
                setattr(instance, name, member.bind(container))
        return instance

    def is_bound(self) -> bool:
        """Whether this belongs to a container."""
        return self.container is not None

    def __repr__(self) -> str:
        state = "bound" if self.is_bound() else "unbound"
        return f"<{type(self).__name__} {state} at {id(self):#x}>"


class SharedExtension(Extension):
    """An extension of which a container has one for each `sharing_key`, whoever declares it."""

    @property
    def sharing_key(self) -> object:
        """What tells it from other shared extensions, hashable; its class if not overridden."""
        return type(self)

    def bind(self: SharedBound, container: Container) -> SharedBound:
        """Return the container's instance, made now if there is none yet."""
        key = self.sharing_key
        instance: SharedBound | None = container.shared_extensions.get(key)
        if instance is None:
            # One step, where a lock would be held over constructors. A clone that comes second
            # was never set up and is dropped.
            clone = super().bind(container)
            instance = cast(SharedBound, container.shared_extensions.setdefault(key, clone))
        return instance


def declared_members(owner: Any) -> dict[str, Any]:
    """Return the attributes of a class or an instance, in the order of their declaration.

    Those of base classes come first; an attribute that a subclass overrides keeps its place.
    """
    members: dict[str, Any] = {}
    for cls in reversed((owner if isinstance(owner, type) else type(owner)).__mro__):
        members.update(cls.__dict__)
    if not isinstance(owner, type):
        members.update(getattr(owner, "__dict__", {}))
    return members


def is_extension(value: object) -> bool:
    """Whether `value` is an extension."""
    # Not `isinstance`, which asks `__class__` and so runs code of whatever it is given.
    return issubclass(type(value), Extension)


def iter_extensions(extension: Extension) -> Iterator[Extension]:
    """Yield all that an extension owns, each after what it owns itself, each once."""
    return _iter_owned(extension, {id(extension)})


def _iter_owned(extension: Extension, seen: set[int]) -> Iterator[Extension]:
    for member in declared_members(extension).values():
        if is_extension(member) and id(member) not in seen:
            seen.add(id(member))
            yield from _iter_owned(member, seen)
            yield member
