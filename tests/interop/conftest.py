"""Whom the interoperability tests talk to: pairs of a caller and a service, and single frameworks.

The processes behind them live as long as the run; see ``tests.interop.sides``.
"""

from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.interop.sides import ALL, NAMEKO2, NAMEKO3, THREADKO, Caller, Framework, Service, World

#: Who calls whom: each nameko and threadko, both ways.
PAIRS = (
    (THREADKO, NAMEKO2),
    (THREADKO, NAMEKO3),
    (NAMEKO2, THREADKO),
    (NAMEKO3, THREADKO),
)


class Pair(NamedTuple):
    """One framework that calls, and a service that another one runs."""

    caller: Caller
    service: Service


@pytest.fixture(scope="session")
def world(broker_uri: str) -> Iterator[World]:
    with World(broker_uri) as made:
        yield made


@pytest.fixture(params=PAIRS, ids=lambda pair: f"{pair[0]} calls {pair[1]}")
def frameworks(request: pytest.FixtureRequest) -> tuple[Framework, Framework]:
    """The framework that calls, and the one that is called."""
    frameworks: tuple[Framework, Framework] = request.param
    for each in frameworks:
        assert each.python  # or the test is skipped, before it starts anything
    return frameworks


@pytest.fixture
def pair(world: World, frameworks: tuple[Framework, Framework]) -> Pair:
    """A caller, and a service that is shared and must be left running."""
    calling, called = frameworks
    return Pair(world.caller(calling), world.service(called))


@pytest.fixture(params=[NAMEKO2, NAMEKO3], ids=str)
def nameko(request: pytest.FixtureRequest) -> Framework:
    """A nameko that threadko lives with."""
    framework: Framework = request.param
    assert framework.python  # or the test is skipped
    return framework


@pytest.fixture(params=ALL, ids=str)
def framework(request: pytest.FixtureRequest) -> Framework:
    """Whoever is looked at, past all of its clients: they must look the same."""
    framework: Framework = request.param
    assert framework.python  # or the test is skipped
    return framework
