"""The states of a container: a plain object that says who may go where.

Nothing here waits or calls anyone. All methods may be called by any thread.

======= =================================== ====================================================
step    leads                               taken by
======= =================================== ====================================================
START   NEW to STARTING                     `prepare()`
READY   STARTING to PREPARED                `prepare()`, when every extension is ready
OPEN    PREPARED to OPENING                 `open()`
OPENED  OPENING to RUNNING                  `open()`
STOP    NEW to STOPPED                      `stop()`, which then has nothing to do
        every other live state to STOPPING  `stop()`
STOPPED STOPPING to STOPPED                 whoever carried the stop out
KILL    every live state to KILLED          `kill()`, or a start that failed
======= =================================== ====================================================
"""

import threading
from enum import Enum, auto
from typing import Final

from threadko.exceptions import ContainerBeingKilled, ContainerStopped, LifecycleError

__all__ = ["Lifecycle", "State", "Step"]


class State(Enum):
    """Where a container is in its life."""

    NEW = auto()
    STARTING = auto()
    PREPARED = auto()
    OPENING = auto()
    RUNNING = auto()
    STOPPING = auto()
    STOPPED = auto()
    KILLED = auto()


class Step(Enum):
    """What leads from one state to another."""

    START = auto()
    READY = auto()
    OPEN = auto()
    OPENED = auto()
    STOP = auto()
    STOPPED = auto()
    KILL = auto()


_LIVE = (
    State.NEW,
    State.STARTING,
    State.PREPARED,
    State.OPENING,
    State.RUNNING,
    State.STOPPING,
)

TABLE: Final[dict[Step, dict[State, State]]] = {
    Step.START: {State.NEW: State.STARTING},
    Step.READY: {State.STARTING: State.PREPARED},
    Step.OPEN: {State.PREPARED: State.OPENING},
    Step.OPENED: {State.OPENING: State.RUNNING},
    Step.STOP: {
        State.NEW: State.STOPPED,
        State.STARTING: State.STOPPING,
        State.PREPARED: State.STOPPING,
        State.OPENING: State.STOPPING,
        State.RUNNING: State.STOPPING,
    },
    Step.STOPPED: {State.STOPPING: State.STOPPED},
    Step.KILL: dict.fromkeys(_LIVE, State.KILLED),
}


class Lifecycle:
    """The state of one container."""

    def __init__(self, service_name: str) -> None:
        self._name = service_name
        self._lock = threading.Lock()  # guards changes of state; one read needs no lock
        self.state = State.NEW

    def take(self, step: Step) -> State | None:
        """Take a step and return the state that it led from, or None if it may not be taken now.

        Of several threads that try the same step, one alone takes it.
        """
        with self._lock:
            previous = self.state
            following = TABLE[step].get(previous)
            if following is None:
                return None
            self.state = following
            return previous

    def refusal(self) -> LifecycleError:
        """Return an error that says why the container takes no work in its present state."""
        state = self.state
        if state is State.KILLED:
            return ContainerBeingKilled(f"the container of {self._name!r} was killed")
        if state in (State.STOPPING, State.STOPPED):
            return ContainerStopped(f"the container of {self._name!r} stops or has stopped")
        if state is State.NEW:
            return LifecycleError(f"the container of {self._name!r} has not been started")
        return LifecycleError(f"the container of {self._name!r} has been started already")
