"""The same method of many objects, called in threads at once.

The caller's thread starts one thread per object and joins all of them, so nothing runs on after the
call. Each sees the context variables of the caller, and so the call that is being worked on.
"""

import contextvars
from collections.abc import Callable, Hashable, Iterable
from functools import partial
from typing import Any, Generic, TypeVar

from threadko.concurrency.threads import start_thread, thread_name

__all__ = ["SpawningProxy", "SpawningSet"]

Item = TypeVar("Item")
HashableItem = TypeVar("HashableItem", bound=Hashable)


class SpawningProxy(Generic[Item]):
    """Stands for many objects: a method called on it is called on each, all at once.

    The call returns when the last of them has: with their results in the order of the objects, None
    if there are no objects. If any raised, it raises the exception of the first of those in that
    order.
    """

    def __init__(self, items: Iterable[Item]) -> None:
        self._items = items

    def __getattr__(self, name: str) -> Callable[..., list[Any] | None]:
        if name.startswith("__"):
            raise AttributeError(name)  # what copy and pickle ask for is no method of the objects
        return partial(self._call_all, name)

    def _call_all(self, name: str, /, *args: Any, **kwargs: Any) -> list[Any] | None:
        calls = [_Call(item, name, args, kwargs) for item in self._items]
        threads = []
        try:
            for call in calls:
                run = partial(contextvars.copy_context().run, call)
                threads.append(start_thread(run, thread_name("spawned", name)))
        finally:
            for thread in threads:
                thread.join()
        return [call.get_result() for call in calls] or None


class SpawningSet(set[HashableItem]):
    """A set whose `all` stands for its members."""

    @property
    def all(self) -> SpawningProxy[HashableItem]:
        """Call a method on this to call it on all members at once."""
        return SpawningProxy(self)


class _Call:
    """One call; its outcome is written by its thread and read after joining that."""

    def __init__(self, item: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._item = item
        self._name = name
        self._args = args
        self._kwargs = kwargs
        self._result: Any = None
        self._error: BaseException | None = None

    def __call__(self) -> None:
        try:
            self._result = getattr(self._item, self._name)(*self._args, **self._kwargs)
        except BaseException as exc:
            self._error = exc

    def get_result(self) -> Any:
        if self._error is not None:
            raise self._error
        return self._result
