"""What a process knows of its containers: killed at its exit, foreign to its forked children.

Any thread may call anything. At the exit of the interpreter all that is left of a container is
daemon threads, which nobody waits for; what is done here is to close its connections, so that
messages go back at once. A host's own thread that is no daemon holds its process, as everywhere
in Python, and its containers serve until it ends.
"""

import atexit
import logging
import os
import threading
from typing import Protocol

from threadko.exceptions import LifecycleError

__all__ = ["ProcessBound", "kill_at_exit", "kill_running", "list_running", "spare_at_exit"]

_log = logging.getLogger(__name__)


class _Killable(Protocol):
    def kill(self) -> None: ...


_lock = threading.Lock()  # guards _running
# By identity, for a subclass may compare as it likes. Not weak: a container runs, with its threads,
# whether or not anybody else still refers to it.
_running: dict[int, _Killable] = {}


def kill_at_exit(container: _Killable) -> None:
    """Kill `container` when the interpreter exits, unless it is spared before."""
    with _lock:
        _running[id(container)] = container


def spare_at_exit(container: _Killable) -> None:
    """Forget a container that has ended."""
    with _lock:
        _running.pop(id(container), None)


def list_running() -> list[_Killable]:
    """Return every container of this process that was started and has not ended."""
    with _lock:
        return list(_running.values())


def kill_running() -> None:
    """Kill every container that runs; raises nothing."""
    for container in list_running():
        try:
            container.kill()
        except BaseException:  # a subclass's own kill() must not save the others
            _log.exception("%r could not be killed at exit", container)


def _forget_parent() -> None:
    """In a child: what was running runs in the parent, and must not be killed from here."""
    global _lock, _running
    _lock = threading.Lock()  # whoever held it has not come along
    _running = {}


class ProcessBound:
    """Knows in which process it was made.

    Args:
        what: what its owner is called in errors.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._pid = os.getpid()

    @property
    def is_foreign(self) -> bool:
        """Whether this process is a fork of the one that it was made in."""
        return os.getpid() != self._pid

    def check(self) -> None:
        """Raise `LifecycleError` in a forked child."""
        if self.is_foreign:
            raise LifecycleError(
                f"{self._what} belongs to process {self._pid}, and process {os.getpid()} is a"
                f" fork of that one, without its threads; make a new container after the fork"
            )


# Logging was imported before, so it is shut down after this.
atexit.register(kill_running)
os.register_at_fork(after_in_child=_forget_parent)
