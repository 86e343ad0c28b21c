"""Standalone clients of each kind against services of each kind."""

import pytest

from tests.interop.conftest import Pair
from tests.interop.sides import Caller, CallError, Framework, World
from tests.support.timing import TIMEOUT

pytestmark = pytest.mark.interop

FIFTY = [((number,), {}) for number in range(50)]


def test_the_service_answers_when_it_is_called_through_a_bound_client(pair: Pair) -> None:
    assert pair.caller.call(pair.service.name, "one", kwargs={"a": 7}, bound=True) == 7


@pytest.mark.parametrize("bound", [True, False], ids=["bound", "unbound"])
def test_each_call_gets_its_own_answer_when_many_wait_at_once(pair: Pair, bound: bool) -> None:
    pair.caller.begin(pair.service.name, "result", FIFTY, bound=bound)

    assert pair.caller.end() == list(range(50))


def test_each_client_gets_its_own_answers_when_all_kinds_call_at_once(
    world: World, framework: Framework, nameko: Framework
) -> None:
    service = world.service(framework).name
    callers = [world.caller(each) for each in {framework, nameko}]
    for number, caller in enumerate(callers):
        caller.begin(service, "echo", [((number, each), {}) for each in range(50)])
    for caller in callers:
        caller.let_end()

    for number, caller in enumerate(callers):
        echoes = [{"args": [number, each], "kwargs": {}} for each in range(50)]
        assert caller.ended() == echoes


def test_the_callers_time_is_up_when_nobody_answers(
    world: World, frameworks: tuple[Framework, Framework]
) -> None:
    calling, called = frameworks
    caller: Caller = world.caller(calling)
    with world.run(called) as service:
        config = {"BROKER_START_TIMEOUT": TIMEOUT}  # it has longer to connect
        with pytest.raises(CallError, match="RpcTimeout") as caught:
            caller.call(service.name, "hold", ["long"], timeout=0.5, config=config)
        service.open_gate()

        assert caught.value.path == caller.error("RpcTimeout")
        assert caller.call(service.name, "one", [1]) == 1
