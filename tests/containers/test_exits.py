"""The end of a process, and its forked children."""

import os
import signal
import subprocess
import sys
from typing import Any

import pytest

from tests.containers.conftest import Stage
from tests.containers.dummies import spawn
from tests.support.timing import TIMEOUT
from threadko.containers.exits import (
    ProcessBound,
    kill_at_exit,
    kill_running,
    list_running,
    spare_at_exit,
)
from threadko.exceptions import LifecycleError


class Container:
    """Counts its deaths."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.kills = 0
        self.error = error

    def kill(self) -> None:
        self.kills += 1
        if self.error is not None:
            raise self.error


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt])
def test_all_are_killed_though_one_of_them_raises(
    error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    containers = [Container(), Container(error("on purpose")), Container()]
    for container in containers:
        kill_at_exit(container)
    kill_running()
    assert [container.kills for container in containers] == [1, 1, 1]
    assert "could not be killed at exit" in caplog.text
    for container in containers:
        spare_at_exit(container)
    kill_running()
    assert [container.kills for container in containers] == [1, 1, 1]


def test_container_is_known_from_its_start_to_its_end(stage: Stage) -> None:
    never_started, stopped, running = stage.make(), stage.start(), stage.start()
    stopped.stop()
    assert running in list_running()
    assert not {never_started, stopped} & set(list_running())
    kill_running()
    assert [item.being_killed for item in (never_started, stopped, running)] == [False, False, True]


def test_process_that_made_it_is_not_foreign() -> None:
    bound = ProcessBound("it")
    bound.check()
    assert not bound.is_foreign


def in_child(look: Any) -> str:
    """Return what `look` returns or raises in a forked child."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.alarm(int(TIMEOUT))  # or a wait that should be refused would hang the test
        try:
            said = str(look())
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(writer, said.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, encoding="utf-8") as pipe:
        said = pipe.read()
    os.waitpid(pid, 0)
    return said


@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("method", ["start", "prepare", "wait", "spawn_worker", "thread"])
def test_container_is_refused_in_a_forked_child(stage: Stage, method: str) -> None:
    container = stage.make() if method in ("start", "prepare") else stage.start()

    def look() -> Any:
        if method == "spawn_worker":
            return spawn(container)
        if method == "thread":
            return container.spawn_managed_thread(lambda: None)
        return getattr(container, method)()

    said = in_child(look)
    assert said.startswith(f"{LifecycleError.__name__}: the container of 'service' belongs to")
    assert "make a new container after the fork" in said


@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("end", ["stop", "kill", "exit"])
def test_end_of_a_forked_child_is_not_the_end_of_the_container(stage: Stage, end: str) -> None:
    container = stage.start()

    def look() -> list[str]:
        if end == "exit":
            kill_running()
        else:
            getattr(container, end)()
        return stage.journal.lines

    assert in_child(look) == "[]"
    container.stop()
    assert not container.being_killed


NOISY = """
import logging
import sys
import threading
from threadko.containers import ServiceContainer
from threadko.extensions import DependencyProvider

logging.basicConfig(stream=sys.stdout, format="%(message)s")

class Noisy(DependencyProvider):
    def kill(self):
        logging.warning("killed")

class Service:
    name = "service"
    noisy = Noisy()

starter = threading.Thread(target=ServiceContainer(Service, config={}).start)
starter.start()
starter.join()
del starter
"""


def test_container_to_which_nobody_refers_is_killed_while_logging_still_works() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", NOISY], capture_output=True, text=True, timeout=TIMEOUT, check=True
    )
    assert sorted(ended.stdout.splitlines()) == ["killed", "service service is killed"]
