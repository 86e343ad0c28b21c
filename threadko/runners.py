"""Runs several services in one process, as one: they open together and end together.

Any thread may call any public method. `wait()` hears of the end of containers from an observer
that each of them has; nothing asks them.
"""

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from threadko.concurrency.deadline import Deadline
from threadko.concurrency.threads import run_in_thread, thread_name
from threadko.configuration import config as global_config
from threadko.configuration.settings import ContainerSettings
from threadko.containers import Observer, ServiceContainer, get_container_cls, get_service_name
from threadko.exceptions import ConfigurationError, ContainerStopped, LifecycleError

__all__ = ["ServiceRunner", "run_services"]

_log = logging.getLogger(__name__)


class ServiceRunner:
    """Runs a container for each service.

    Args:
        config: the configuration of all containers; the global one if None.
    """

    def __init__(self, config: Mapping[str, Any] | None = None) -> None:
        self._config = config
        self.container_cls = get_container_cls(config)
        self.service_map: dict[str, ServiceContainer] = {}
        self._changed = threading.Condition()  # guards _living, _error, _started and _stopping
        self._living = 0
        self._error: BaseException | None = None
        self._started = False
        self._stopping = False

    @property
    def service_names(self) -> list[str]:
        """The names of the services."""
        return list(self.service_map)

    @property
    def containers(self) -> list[ServiceContainer]:
        """The containers of the services."""
        return list(self.service_map.values())

    def add_service(self, cls: type) -> None:
        """Add a service, before `start()`.

        Raises:
            ConfigurationError: there is one of that name already.
            LifecycleError: the runner has been started.
        """
        if self._started:
            raise LifecycleError("the runner has been started; add services before that")
        name = get_service_name(cls)
        known = self.service_map.get(name)
        if known is not None:
            raise ConfigurationError(
                f"two services are named {name!r}: {known.service_cls.__qualname__} and"
                f" {cls.__qualname__}; one runner runs each name once"
            )
        # A subclass may know nothing of a configuration of its own.
        given = {} if self._config is None else {"config": self._config}
        container = self.container_cls(cls, **given)
        container.observers.add(Observer(on_death=self._on_death))
        self.service_map[name] = container
        with self._changed:
            self._living += 1

    def start(self) -> None:
        """Start all services side by side, then let work in to all.

        Raises whatever a service raised when it started, with none of them left alive.

        Raises:
            ContainerStopped: `stop()` was called before or meanwhile.
        """
        with self._changed:
            self._started = True
        try:
            self._start_all()
        except BaseException as error:
            if self._stopping and isinstance(error, ContainerStopped):
                # Those that run already are stopped gracefully, as everywhere else.
                self._stop_all(Deadline(self._shutdown_timeout()), [])
            else:
                self.kill()
            raise

    def _start_all(self) -> None:
        failures: list[BaseException] = []
        gate = _Gate(self.containers)

        def start(container: ServiceContainer) -> None:
            container.before_open = partial(gate.pass_through, container)
            try:
                container.start()
            except BaseException as error:
                failures.append(error)
                # Now, or a sibling that waits for its broker would hold the error up. Not if they
                # are being stopped, which ends the waiting too.
                if not self._stopping:
                    self.kill()
            finally:
                gate.leave(container)

        self._on_each(self.containers, start)
        if failures:
            raise failures[0]

    def stop(self) -> None:
        """Stop all services gracefully, callers before those whom they call.

        Who calls whom is told by the `target_service` of their extensions. All share one deadline,
        past which they are killed. It returns at once if it is called by a thread that a container
        waits for.

        Raises:
            Exception: the first that a service raised; all have been stopped all the same.
        """
        with self._changed:
            self._stopping = True
        deadline = Deadline(self._shutdown_timeout())
        if any(container.owns_current_thread() for container in self.containers):
            run_in_thread(partial(self._stop_alone, deadline), thread_name("runner", "stop"))
            return
        errors: list[BaseException] = []
        self._stop_all(deadline, errors)
        if errors:
            raise errors[0]

    def _stop_alone(self, deadline: Deadline) -> None:
        self._stop_all(deadline, [])

    def _stop_all(self, deadline: Deadline, errors: list[BaseException]) -> None:
        def stop(container: ServiceContainer) -> None:
            try:
                container.stop_within(deadline.remaining())
            except BaseException as error:
                _log.error(
                    "service %s did not stop cleanly", container.service_name, exc_info=error
                )
                errors.append(error)

        for group in _callers_first(self.containers):
            self._on_each(group, stop)

    def kill(self, exc_info: Any = None) -> None:
        """End all services at once; `wait()` then raises the exception, if one is given."""
        given = () if exc_info is None else (exc_info,)
        self._on_each(self.containers, lambda container: container.kill(*given))

    def wait(self) -> None:
        """Wait until all services have ended; if one fails, stop the others and raise its error."""
        with self._changed:
            self._changed.wait_for(lambda: self._error is not None or not self._living)
            error = self._error
        if error is not None:
            self._stop_all(Deadline(self._shutdown_timeout()), [])
            raise error

    def _on_death(self, _container: ServiceContainer, error: BaseException | None) -> None:
        with self._changed:
            self._living -= 1
            if self._error is None:
                self._error = error
            self._changed.notify_all()

    def _shutdown_timeout(self) -> float:
        config = global_config if self._config is None else self._config
        return ContainerSettings.from_config(config).shutdown_timeout

    @staticmethod
    def _on_each(
        containers: Iterable[ServiceContainer], call: Callable[[ServiceContainer], object]
    ) -> None:
        """Call with each container, side by side."""
        threads = [
            run_in_thread(partial(call, container), thread_name(container.service_name, "runner"))
            for container in containers
        ]
        for thread in threads:
            if thread is not None:
                thread.join()


class _Gate:
    """Where services that start together wait for one another before they let work in.

    Each container's start is in a thread of its own, which may call anything. Whoever has failed,
    or is stopped, is not waited for.
    """

    def __init__(self, containers: Iterable[ServiceContainer]) -> None:
        self._changed = threading.Condition()  # guards _awaited
        self._awaited = set(containers)
        self._maker = threading.get_ident()

    def leave(self, container: ServiceContainer) -> None:
        """Have the others wait no longer for this one."""
        with self._changed:
            self._awaited.discard(container)
            self._changed.notify_all()

    def pass_through(self, container: ServiceContainer) -> None:
        """Wait until all the others have come so far too."""
        self.leave(container)
        if threading.get_ident() == self._maker:
            return  # no threads could be had, and the others come after us
        with container.stopping.calling(self._look), self._changed:
            self._changed.wait_for(lambda: not self._awaited or container.stopping.is_set())

    def _look(self) -> None:
        with self._changed:
            self._changed.notify_all()


def _callers_first(containers: Iterable[ServiceContainer]) -> Iterator[list[ServiceContainer]]:
    """Yield groups to stop one after the other; those that call one another come together."""
    remaining = {container.service_name: container for container in containers}
    reached = {name: _targets(container) & set(remaining) for name, container in remaining.items()}
    for (
        middle
    ) in remaining:  # Warshall's closure: whom each service reaches, by any number of calls
        for targets in reached.values():
            if middle in targets:
                targets |= reached[middle]
    while remaining:
        group = [
            name
            for name in remaining
            if all(name not in reached[other] or other in reached[name] for other in remaining)
        ]
        yield [remaining.pop(name) for name in group]


def _targets(container: ServiceContainer) -> set[str]:
    targets = (getattr(extension, "target_service", None) for extension in container.extensions)
    return {target for target in targets if isinstance(target, str)}


@contextmanager
def run_services(
    *services: type, config: Mapping[str, Any] | None = None, kill_on_exit: bool = False
) -> Iterator[ServiceRunner]:
    """Run services while the body of a `with` runs, which gets the runner.

    They are stopped when the body ends, or killed with `kill_on_exit`; also if it raises.
    """
    runner = ServiceRunner(config)
    for service in services:
        runner.add_service(service)
    runner.start()
    try:
        yield runner
    finally:
        if kill_on_exit:
            runner.kill()
        else:
            runner.stop()
