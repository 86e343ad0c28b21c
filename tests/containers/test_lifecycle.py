"""The states of a container."""

import threading

import pytest

from threadko.containers.lifecycle import Lifecycle, State, Step
from threadko.exceptions import ContainerBeingKilled, ContainerStopped, LifecycleError

N, S, P, O = State.NEW, State.STARTING, State.PREPARED, State.OPENING  # noqa: E741
R, G, D, K = State.RUNNING, State.STOPPING, State.STOPPED, State.KILLED

#: By step, what each state becomes; a state that is missing may not take the step.
EXPECTED = {
    Step.START: {N: S},
    Step.READY: {S: P},
    Step.OPEN: {P: O},
    Step.OPENED: {O: R},
    Step.STOP: {N: D, S: G, P: G, O: G, R: G},
    Step.STOPPED: {G: D},
    Step.KILL: {N: K, S: K, P: K, O: K, R: K, G: K},
}


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("step", Step)
def test_step_leads_where_the_table_says_and_nowhere_else(state: State, step: Step) -> None:
    life = Lifecycle("service")
    life.state = state
    following = EXPECTED[step].get(state)
    assert life.take(step) == (None if following is None else state)
    assert life.state == (following or state)


def test_one_thread_alone_takes_a_step_when_many_try() -> None:
    life = Lifecycle("service")
    barrier = threading.Barrier(8)
    taken: list[object] = []

    def take() -> None:
        barrier.wait()
        taken.append(life.take(Step.KILL))

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(str, taken)) == ["None"] * 7 + ["State.NEW"]


@pytest.mark.parametrize(
    ("state", "kind", "text"),
    [
        (N, LifecycleError, "has not been started"),
        (S, LifecycleError, "started already"),
        (R, LifecycleError, "started already"),
        (G, ContainerStopped, "stops or has stopped"),
        (D, ContainerStopped, "stops or has stopped"),
        (K, ContainerBeingKilled, "was killed"),
    ],
)
def test_refusal_says_in_which_state_the_container_is(
    state: State, kind: type[Exception], text: str
) -> None:
    life = Lifecycle("orders")
    life.state = state
    refusal = life.refusal()
    assert type(refusal) is kind
    assert "'orders'" in str(refusal)
    assert text in str(refusal)
