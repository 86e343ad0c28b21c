"""What a test leaves behind, by name: containers, threads, connections.

`Leftovers` belongs to the thread of its test, and looks at what all threads have begun.
"""

import threading
import warnings
from collections.abc import Callable

from threadko.concurrency.deadline import Deadline
from threadko.concurrency.threads import format_stack
from threadko.containers import ServiceContainer
from threadko.containers.exits import list_running

__all__ = ["LeftoverWarning", "Leftovers"]

_GRACE_SECONDS = 2.0  # for what was told to end to have ended
_LOOK_SECONDS = 0.005

#: Threads of the brokers, which end after the test, or with the whole run.
_OF_BROKERS = ("threadko-devbroker-", "threadko-pipeline-", "threadko-testbroker-")


class LeftoverWarning(UserWarning):
    """A test has left something running; `-W error` for this class makes it an error."""


class Leftovers:
    """Knows what there was when it was made, and reports what is there beyond that."""

    def __init__(self) -> None:
        self._containers = {id(each) for each in list_running()}
        self._threads = set(threading.enumerate())

    def end_containers(self) -> list[str]:
        """Kill the containers that were left, and return what they are."""
        found = []
        for container in list_running():
            if id(container) not in self._containers:
                if isinstance(container, ServiceContainer):
                    found.append(f"the container of service {container.service_name!r}")
                else:
                    found.append(f"container {container!r}")
                container.kill()
        return found

    def find_threads(self, deadline: Deadline) -> list[str]:
        """Return the threads that do not end by the deadline, each with the place where it is."""
        left = [
            thread
            for thread in threading.enumerate()
            if thread not in self._threads
            and thread is not threading.current_thread()
            # Of the threads of others, those that hold up the end of the process.
            and (thread.name.startswith("threadko-") or not thread.daemon)
            and not thread.name.startswith(_OF_BROKERS)
        ]
        for thread in left:
            thread.join(deadline.remaining())
        return [
            f"thread {thread.name}, at:\n{format_stack(thread.ident)}".rstrip()
            for thread in left
            if thread.is_alive()
        ]

    def report(
        self, killed: list[str], list_connections: Callable[[], list[str]] | None = None
    ) -> None:
        """Warn of all that is left, in one `LeftoverWarning`; nothing if that is nothing.

        Args:
            killed: what `end_containers` has found.
            list_connections: returns the names of the connections that are open.
        """
        deadline = Deadline(_GRACE_SECONDS)
        found = [*killed, *self.find_threads(deadline)]
        never = threading.Event()
        while list_connections is not None and (names := list_connections()):
            if deadline.expired:
                found += [f"connection {name!r} to the broker" for name in names]
                break
            never.wait(_LOOK_SECONDS)  # the broker tells nobody when the last has gone
        if found:
            listed = "\n* ".join(found)
            warnings.warn(f"the test has left behind:\n* {listed}", LeftoverWarning, stacklevel=2)
