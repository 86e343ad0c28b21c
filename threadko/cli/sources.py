"""Changes of source files, for `threadko run --reload`.

With `watchfiles` installed the system tells that something has changed; without it files are looked
at twice in a second. Either way it is their times that decide. A thread of its own does the
looking, and calls `on_change`; `look_into` and `close` are for any other thread.
"""

# ruff: noqa: PTH100 PTH112 PTH116 PTH120 (paths are text here, as the watching library has them)

import importlib
import importlib.util
import logging
import os
import threading
from collections.abc import Callable, Iterable
from typing import Any

from threadko.concurrency.threads import start_thread, thread_name

__all__ = ["SourceWatch"]

_log = logging.getLogger(__name__)

_LOOK_SECONDS = 0.5
_WATCH_MILLISECONDS = 1000
# Guessed: an editor that saves several files, or writes one in two steps, is done by then.
_SETTLE_SECONDS = 0.1


class SourceWatch:
    """Watches the Python files in folders, not those in folders of these.

    Args:
        files: to watch as well, whatever their names.
        on_change: called with the names of what has changed; not again before it has returned.
    """

    def __init__(self, files: Iterable[str], on_change: Callable[[list[str]], object]) -> None:
        self._files = [os.path.abspath(file) for file in files]  # not resolved: links stay
        self._on_change = on_change
        self._lock = threading.Lock()  # guards _folders and _turn
        self._folders: set[str] = set()
        self._turn = threading.Event()  # ends a wait: replaced with each
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to watch."""
        self._thread = start_thread(self._watch, thread_name("process", "sources"))

    def look_into(self, folders: Iterable[str]) -> None:
        """Watch these folders too."""
        with self._lock:
            if self._folders.issuperset(folders):
                return
            self._folders = self._folders.union(folders)
            self._turn.set()

    def close(self) -> None:
        """Watch no more."""
        self._closed.set()
        with self._lock:
            self._turn.set()
        if self._thread is not None:
            self._thread.join(_LOOK_SECONDS)

    def _watch(self) -> None:
        known = self._read_times(())  # of the files
        seen: set[str] = set()
        while not self._closed.is_set():
            with self._lock:
                folders, self._turn = set(self._folders), threading.Event()
                turn = self._turn
            times = self._read_times(folders)
            # What is in a folder that is new to us has not changed for that.
            changed = [
                path
                for path in times.keys() | known.keys()
                if times.get(path) != known.get(path)
                and (os.path.dirname(path) in seen or path in self._files)
            ]
            known, seen = times, folders
            if changed:
                if not self._closed.wait(_SETTLE_SECONDS):
                    known = self._read_times(folders)
                    self._on_change(sorted(changed))
                continue
            self._wait({*folders, *map(os.path.dirname, self._files)}, turn)

    def _read_times(self, folders: Iterable[str]) -> dict[str, int]:
        times = {}
        paths = [entry for folder in folders for entry in _iter_python_files(folder)]
        for path in (*paths, *self._files):
            try:
                times[path] = os.stat(path).st_mtime_ns
            except OSError:  # removed meanwhile
                continue
        return times

    def _wait(self, folders: Iterable[str], turn: threading.Event) -> None:
        """Wait until something may have changed."""
        existing = [folder for folder in folders if os.path.isdir(folder)]
        watch = _find_watchfiles()
        if watch is None or not existing:
            turn.wait(_LOOK_SECONDS)
            return
        try:
            # A time-out, for what changes between our look and its beginning to watch.
            for _ in watch(
                *existing,
                recursive=False,
                stop_event=turn,
                raise_interrupt=False,
                rust_timeout=_WATCH_MILLISECONDS,
                yield_on_timeout=True,
            ):
                return
        except Exception as error:  # no more watches to be had, say
            _log.debug("watchfiles failed, so files are looked at instead: %s", error)
            turn.wait(_LOOK_SECONDS)


def _find_watchfiles() -> Any:
    if importlib.util.find_spec("watchfiles") is None:
        return None
    logging.getLogger("watchfiles").setLevel(logging.WARNING)
    return importlib.import_module("watchfiles").watch


def _iter_python_files(folder: str) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return [entry.path for entry in entries if entry.name.endswith(".py")]
    except OSError:
        return []
