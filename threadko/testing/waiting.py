"""Waiting for what happens elsewhere: a result to come, a method to be called.

Any thread may call anything. What a method is watched with is put in its place once, however many
wait for it, and taken out with the last of them: those who leave in another order than they came
would otherwise put back each other's wrappers.
"""

import inspect
import reprlib
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest import mock

from threadko.concurrency.deadline import Deadline
from threadko.exceptions import ThreadkoError
from threadko.extensions import ExcInfo
from threadko.utils.safelog import describe_error

__all__ = ["WaitResult", "WaitTimeout", "describe_outcome", "wait_for_call"]

_KEPT = 10  # calls that are shown when the right one did not come

#: Whether a call is the one that is waited for: its arguments, its result, and its exc_info.
CallFilter = Callable[[tuple[Any, ...], Mapping[str, Any], Any, "ExcInfo | None"], object]


class WaitTimeout(ThreadkoError, TimeoutError):  # noqa: N818 (as RpcTimeout)
    """What a test waited for did not happen in time."""


class WaitResult:
    """A result that another thread hands over; the first that is sent is kept."""

    class NotReady(ThreadkoError):  # noqa: N818 (nameko's name)
        """There is no result yet."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards the change of _sent
        self._sent: tuple[Any, ExcInfo | None] | None = None

    @property
    def has_result(self) -> bool:
        """Whether a result or an exception was sent."""
        return self._sent is not None

    def send(self, result: Any, exc_info: ExcInfo | None = None) -> bool:
        """Hand over a result, or an exception; False if there is one already."""
        with self._lock:
            if self._sent is not None:
                return False
            self._sent = (result, exc_info)
            return True

    def get(self) -> Any:
        """Return the result, or raise the exception.

        Raises:
            WaitResult.NotReady: nothing was sent yet.
        """
        sent = self._sent
        if sent is None:
            raise self.NotReady("there is no result yet")
        result, exc_info = sent
        if exc_info is not None:
            raise exc_info[1].with_traceback(exc_info[2])
        return result


@contextmanager
def wait_for_call(
    obj: Any,
    target: str,
    callback: CallFilter | None = None,
    *,
    timeout: float | None = 30.0,
) -> Iterator[WaitResult]:
    """Leave the block when a method was called: the attribute `target` of an object or a class.

    Args:
        obj: what has the method; of a class, the calls of all its instances count.
        callback: called with arguments, keyword arguments, result and exc_info of each call, in
            the thread that makes it; the first for which it returns something true is waited for.
            What it raises is raised at the end of the block.
        timeout: seconds, from the beginning of the block.

    Raises:
        WaitTimeout: there was no such call in time.
    """
    deadline = Deadline(timeout)
    waiter = _CallWaiter(callback)
    with _watching(obj, target, waiter):
        yield waiter.result
        if not waiter.over.wait(deadline.remaining()):
            raise WaitTimeout(
                f"Timeout: {target} of {reprlib.repr(obj)} was not called as expected within"
                f" {timeout:g} seconds; {waiter.describe(target)}"
            )
        if waiter.error is not None:
            raise waiter.error


class _CallWaiter:
    """One who waits for a call. `tell` may be called by any thread, many at once."""

    def __init__(self, callback: CallFilter | None) -> None:
        self.result = WaitResult()
        self.over = threading.Event()
        self.error: BaseException | None = None  # written before `over` is set
        self._callback = callback
        self._seen: deque[str] = deque(maxlen=_KEPT)

    def tell(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any], res: Any, exc_info: ExcInfo | None
    ) -> None:
        if self.over.is_set():
            return
        try:
            wanted = self._callback is None or self._callback(args, kwargs, res, exc_info)
        except BaseException as error:
            # For the test that waits, not for the code that is being watched.
            self.error = error
            self.over.set()
            return
        if wanted:
            self.result.send(res, exc_info)
            self.over.set()
        else:
            given = [reprlib.repr(arg) for arg in args]
            given += [f"{name}={reprlib.repr(value)}" for name, value in kwargs.items()]
            self._seen.append(f"({', '.join(given)}) {describe_outcome(res, exc_info)}")

    def describe(self, target: str) -> str:
        seen = list(self._seen)
        return "; ".join(f"{target}{call}" for call in seen) or "it was not called at all"


class _Watch:
    """A wrapper in the place of one method, and those who are told of its calls."""

    def __init__(self, obj: Any, target: str) -> None:
        self.obj = obj  # keeps its id from being given to another
        self.waiters: tuple[_CallWaiter, ...] = ()  # replaced under _watches_lock, read without
        original = getattr(obj, target)
        declared = inspect.getattr_static(obj, target) if isinstance(obj, type) else None

        def watched(*args: Any, **kwargs: Any) -> Any:
            try:
                result = original(*args, **kwargs)
            except BaseException as error:
                self._tell(args, kwargs, None, (type(error), error, error.__traceback__))
                raise
            self._tell(args, kwargs, result, None)
            return result

        # A class method comes bound to its class, and a static one takes no instance either.
        is_plain = not isinstance(declared, (classmethod, staticmethod))
        new = watched if is_plain else staticmethod(watched)
        self._patch = mock.patch.object(obj, target, new=new)
        self._patch.start()

    def stop(self) -> None:
        self._patch.stop()

    def _tell(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any], res: Any, exc_info: ExcInfo | None
    ) -> None:
        for waiter in self.waiters:
            waiter.tell(args, kwargs, res, exc_info)


_watches_lock = threading.Lock()
_watches: dict[tuple[int, str], _Watch] = {}  # guarded by _watches_lock


@contextmanager
def _watching(obj: Any, target: str, waiter: _CallWaiter) -> Iterator[None]:
    key = (id(obj), target)
    with _watches_lock:
        watch = _watches.get(key)
        if watch is None:
            watch = _watches[key] = _Watch(obj, target)
        watch.waiters = (*watch.waiters, waiter)
    try:
        yield
    finally:
        with _watches_lock:
            watch.waiters = tuple(each for each in watch.waiters if each is not waiter)
            if not watch.waiters:
                del _watches[key]
                watch.stop()


def describe_outcome(result: Any, exc_info: ExcInfo | None) -> str:
    """Return what came of a call, in a few words."""
    if exc_info is None:
        return f"-> {reprlib.repr(result)}"
    return f"raised {describe_error(exc_info[1])}"
