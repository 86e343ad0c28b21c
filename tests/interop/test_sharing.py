"""One service run by threadko and nameko at once, as a fleet that moves from one to the other."""

from collections.abc import Iterator
from itertools import count

import pytest

from tests.conftest import Names
from tests.interop.sides import (
    NAMEKO2,
    NAMEKO3,
    THREADKO,
    Caller,
    CallError,
    Framework,
    Service,
    World,
)
from tests.support.amqp import queue_consumers
from tests.support.timing import wait_until

pytestmark = pytest.mark.interop

#: Who is there first, and who comes.
ORDERS = (
    (THREADKO, NAMEKO2),
    (THREADKO, NAMEKO3),
    (NAMEKO2, THREADKO),
    (NAMEKO3, THREADKO),
)


@pytest.fixture(params=ORDERS, ids=lambda order: f"{order[0]} then {order[1]}")
def order(request: pytest.FixtureRequest) -> tuple[Framework, Framework]:
    order: tuple[Framework, Framework] = request.param
    for each in order:
        assert each.python  # or the test is skipped, before it starts anything
    return order


@pytest.fixture
def name(names: Names) -> str:
    """The name of the service that is shared."""
    return names.service("interop")


@pytest.fixture
def first(world: World, order: tuple[Framework, Framework], name: str) -> Iterator[Service]:
    with world.run(order[0], name) as service:
        yield service


@pytest.fixture(params=["threadko calls", "nameko calls"])
def caller(
    request: pytest.FixtureRequest, world: World, order: tuple[Framework, Framework]
) -> Caller:
    calls = request.param.split()[0]
    return world.caller(next(each for each in order if each.package == calls))


def test_each_request_is_executed_once_by_one_of_them_when_both_serve_its_queue(
    world: World, order: tuple[Framework, Framework], name: str, first: Service, caller: Caller
) -> None:
    numbers = list(range(40))

    with world.run(order[1], name) as second:
        wait_until(lambda: queue_consumers(world.uri, f"rpc-{name}") == 2)
        caller.begin(name, "record", [((number,), {}) for number in numbers])
        answers = caller.end()
        by_first, by_second = first.executed, second.executed

    assert sorted(by_first + by_second) == numbers
    assert by_first
    assert by_second
    expected = [(first if number in by_first else second).framework.package for number in numbers]
    assert answers == expected


def test_the_other_goes_on_alone_when_one_stops_and_shares_again_when_it_is_back(
    world: World, order: tuple[Framework, Framework], name: str, first: Service, caller: Caller
) -> None:
    with world.run(order[1], name) as second:
        first.stop()
        alone = {caller.call(name, "record", [number]) for number in range(4)}
        first.start()
        wait_until(lambda: queue_consumers(world.uri, f"rpc-{name}") == 2)
        caller.begin(name, "record", [((number,), {}) for number in range(40)])
        together = set(caller.end())
        second.stop()
        rest = {caller.call(name, "record", [number]) for number in range(4)}

    assert alone == {second.framework.package}
    assert together == {"threadko", "nameko"}
    assert rest == {first.framework.package}


def test_the_other_answers_a_running_call_when_the_process_that_ran_it_is_killed(
    world: World, order: tuple[Framework, Framework], name: str, first: Service, caller: Caller
) -> None:
    caller.begin(name, "hold", [(("in flight",), {})])
    first.await_hold()

    with world.run(order[1], name) as second:
        second.open_gate()
        first.kill()

        assert caller.end() == [second.framework.package]
        assert second.executed == ["in flight"]


def test_a_running_call_is_executed_once_when_threadko_leaves_gracefully(
    world: World, nameko: Framework, name: str
) -> None:
    caller = world.caller(nameko)
    with world.run(THREADKO, name) as leaving:
        caller.begin(name, "hold", [(("in flight",), {})])
        leaving.await_hold()
        with world.run(nameko, name) as staying:
            staying.open_gate()
            leaving.begin_stop()
            # Requests go to those who consume in turn: four in a row mean that one is alone.
            numbers, in_a_row = count(), 0
            while in_a_row < 4:
                answer = world.caller(THREADKO).call(name, "record", [next(numbers)])
                in_a_row = in_a_row + 1 if answer == "nameko" else 0
            leaving.open_gate()
            answers = caller.end()
            leaving.stop()

            assert answers == ["threadko"]
            assert leaving.executed.count("in flight") == 1
            assert "in flight" not in staying.executed


@pytest.mark.parametrize("method", ["record", "hold"])
def test_requests_are_kept_when_their_service_is_killed_and_comes_back_as_another(
    world: World,
    order: tuple[Framework, Framework],
    name: str,
    first: Service,
    caller: Caller,
    method: str,
) -> None:
    first.kill()
    caller.begin(name, method, [((number,), {}) for number in range(3)])

    with world.run(order[1], name) as second:
        second.open_gate()

        assert caller.end() == [second.framework.package] * 3
        assert sorted(second.executed) == [0, 1, 2]


def test_a_request_is_answered_when_the_same_service_comes_back(
    name: str, first: Service, caller: Caller
) -> None:
    first.stop()
    caller.begin(name, "record", [(("waited",), {})])
    first.start()

    assert caller.end() == [first.framework.package]
    assert first.executed == ["waited"]


def test_a_request_is_not_executed_when_its_caller_has_given_up(
    world: World, nameko: Framework
) -> None:
    caller = world.caller(THREADKO)
    with world.run(nameko) as service:
        service.stop()
        for number in range(2):  # the first has twice its time when the service comes back
            with pytest.raises(CallError, match="did not answer"):
                caller.call(service.name, "record", [number], timeout=2.0)
        service.start()
        caller.call(service.name, "record", ["in time"])

        assert 0 not in service.executed
        assert service.executed[-1] == "in time"
