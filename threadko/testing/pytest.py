"""The pytest plugin: an option and fixtures. It starts nothing until a test asks for it."""

import contextlib
from collections.abc import Iterator
from importlib.metadata import entry_points

import pytest

from threadko.testing.factories import ContainerFactory, RunnerFactory

__all__ = ["container_factory", "pytest_addoption", "runner_factory"]

_OPTION = "--amqp-uri"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--amqp-uri`, unless nameko's plugin brings the same: then both read that one."""
    # Whichever plugin is loaded second would fail, and take the whole run along.
    if any(point.value.startswith("nameko.") for point in entry_points(group="pytest11")):
        return
    with contextlib.suppress(ValueError):
        parser.getgroup("threadko").addoption(
            _OPTION,
            default=None,
            metavar="URI",
            help="the broker of containers whose configuration names none",
        )


@pytest.fixture
def container_factory(request: pytest.FixtureRequest) -> Iterator[ContainerFactory]:
    """Make containers, `container_factory(service_cls, config=None)`, and kill them at the end."""
    with ContainerFactory(request.config.getoption(_OPTION)) as factory:
        yield factory


@pytest.fixture
def runner_factory(request: pytest.FixtureRequest) -> Iterator[RunnerFactory]:
    """Make runners, `runner_factory(*classes, config=None)`, and kill them at the end."""
    with RunnerFactory(request.config.getoption(_OPTION)) as factory:
        yield factory
