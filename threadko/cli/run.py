"""`threadko run`, and the shell around it that hears signals.

=================  ===========================================================================
main thread        installs the handlers, then only waits on a queue and decides
signal handlers    put into that queue, and do nothing else: a lock taken in one can deadlock
threadko-runner    `start()` and `wait()` of the runner; reports into the queue
threadko-stop,     `stop()` and `kill()` of the runner, a thread for each, so that the next
threadko-kill      signal is heard while they work; report into the queue
=================  ===========================================================================
"""

import contextlib
import logging
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import click

from threadko import logs
from threadko.cli.options import (
    ExitCode,
    NoBrokerError,
    UserError,
    configuration_options,
    debug_option,
    load_config,
)
from threadko.cli.services import import_services, put_first_on_path
from threadko.concurrency.deadline import Deadline
from threadko.concurrency.threads import start_thread, thread_name
from threadko.configuration import config
from threadko.configuration.settings import BrokerSettings, ProcessSettings, warn_near_misses
from threadko.exceptions import (
    BrokerRefused,
    BrokerUnavailable,
    ConfigurationError,
    ContainerStopped,
)
from threadko.runners import ServiceRunner
from threadko.utils.redaction import sanitize_url

__all__ = ["Runner", "Shell", "run"]

_log = logging.getLogger(__name__)

_SIGNALS = (signal.SIGTERM, signal.SIGINT)

# Guessed: what has been stopped is gone in no time, and what has not been will not be soon.
_GRACE_SECONDS = 1.0

# Guessed: to write out some buffers takes no time, unless a thread that was left behind holds one.
_FLUSH_SECONDS = 1.0


class Runner(Protocol):
    """What the shell needs of a `ServiceRunner`."""

    @property
    def service_names(self) -> Iterable[str]: ...

    def start(self) -> None: ...

    def wait(self) -> None: ...

    def stop(self) -> None: ...

    def kill(self) -> None: ...


@dataclass(frozen=True)
class _Report:
    """What one of our threads has finished, and the exception that ended it."""

    step: str
    error: BaseException | None = None


class _LeftEarly(BaseException):
    """A signal came before anything ran. No Exception, so that no module swallows it."""


class Shell:
    """Runs a runner until it ends or a signal asks for that.

    The first signal stops it, the second kills it, the third leaves the process. `leave` is called
    to leave the process at once; it does not return.
    """

    def __init__(self, runner: Runner, leave: Callable[[int], Any] = os._exit) -> None:
        self._runner = runner
        self._leave = leave
        self._inbox: queue.SimpleQueue[_Report | int] = queue.SimpleQueue()
        self._signals = 0
        self._is_started = False
        self._errors: list[BaseException] = []
        self._threads: list[threading.Thread] = []

    def on_signal(self, number: int, frame: FrameType | None = None) -> None:
        """Take note of a signal; may interrupt any code of the main thread."""
        self._inbox.put(number)

    def run(self) -> int:
        """Run to the end, and return the exit code; for the main thread."""
        self._spawn("runner", self._start_and_wait)
        pending = {"run"}
        while pending:
            message = self._inbox.get()
            if isinstance(message, int):
                pending |= self._hear(message)
            elif message.step == "start":
                self._is_started = True
                _log.info("services ready")
            elif message.step == "kill":
                if message.error is not None:
                    _log.error("killing failed", exc_info=message.error)
                self._leave_for_good(ExitCode.KILLED)
                return ExitCode.KILLED
            else:
                pending.discard(message.step)
                self._note(message.error)
        return self._end()

    def _hear(self, number: int) -> set[str]:
        self._signals += 1
        name = signal.Signals(number).name
        if self._signals == 1:
            _log.info("%s: stopping; a second signal kills", name)
            self._spawn("stop", lambda: self._report("stop", self._runner.stop))
            return {"stop"}
        if self._signals == 2:
            _log.warning("%s again: killing; a third signal leaves at once", name)
            self._spawn("kill", lambda: self._report("kill", self._runner.kill))
            return {"kill"}
        self._leave(ExitCode.KILLED)
        return set()

    def _spawn(self, role: str, target: Callable[[], None]) -> None:
        self._threads.append(start_thread(target, f"threadko-{role}"))

    def _start_and_wait(self) -> None:
        def start_and_wait() -> None:
            self._runner.start()
            self._inbox.put(_Report("start"))
            self._runner.wait()

        self._report("run", start_and_wait)

    def _report(self, step: str, work: Callable[[], None]) -> None:
        error = None
        try:
            work()
        except BaseException as exc:
            error = exc
        self._inbox.put(_Report(step, error))

    def _note(self, error: BaseException | None) -> None:
        # A start that a stop has interrupted says so; and wait() and stop() may raise the same.
        if error is None or (self._signals and isinstance(error, ContainerStopped)):
            return
        if not any(error is known for known in self._errors):
            self._errors.append(error)

    def _end(self) -> int:
        code = self._judge()
        if self._has_stragglers():
            # Somebody's code did not return in time. Whatever it does now, it must not do it in a
            # process that is half taken down.
            self._leave_for_good(code)
        return code

    def _has_stragglers(self) -> bool:
        prefixes = tuple(f"threadko-{name}-" for name in self._runner.service_names)
        threads = [each for each in threading.enumerate() if each.name.startswith(prefixes)]
        deadline = Deadline(_GRACE_SECONDS)
        for thread in (*self._threads, *threads):
            thread.join(deadline.remaining())
        return any(thread.is_alive() for thread in threads)

    def _judge(self) -> int:
        if not self._errors:
            _log.info("services stopped")
            return ExitCode.STOPPED
        first = self._errors[0]
        if not self._is_started:
            if isinstance(first, (BrokerRefused, BrokerUnavailable)):
                raise NoBrokerError(str(first)) from first
            if isinstance(first, ConfigurationError):
                raise UserError(str(first)) from first
        for error in self._errors:
            _log.error("a service failed", exc_info=error)
        return ExitCode.FAILED

    def _leave_for_good(self, code: int) -> None:
        flushing = start_thread(_flush, thread_name("process", "flush"))
        flushing.join(_FLUSH_SECONDS)
        self._leave(code)


def _flush() -> None:
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        # A closed pipe or no stream at all: there is nobody left to tell.
        with contextlib.suppress(Exception):
            stream.flush()


@contextlib.contextmanager
def _handling_signals(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    previous = {number: signal.signal(number, handler) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, former in previous.items():
            signal.signal(number, former)


def _leave_early(number: int, frame: FrameType | None) -> None:
    raise _LeftEarly(signal.Signals(number).name)


@click.command()
@click.argument("services", metavar="MODULE[:CLASS]...", nargs=-1, required=True)
@configuration_options
@debug_option
def run(
    services: tuple[str, ...], path: str | None, defines: tuple[str, ...], broker: str | None
) -> int:
    """Run the services in MODULE, or the one in CLASS, until a signal stops them.

    The current folder comes first where modules are looked for. SIGTERM and SIGINT let running
    calls finish, a second one does not.
    """
    try:
        with _handling_signals(_leave_early):
            config.setup(load_config(path, defines, broker))
            settings = ProcessSettings.from_config(config)
            logs.configure(settings.logging)
            warn_near_misses(config)
            shell = Shell(_make_runner(services))
            sys.setswitchinterval(settings.switch_interval)
            with _handling_signals(shell.on_signal):
                return shell.run()
    except _LeftEarly:
        return ExitCode.STOPPED


def _make_runner(services: tuple[str, ...]) -> ServiceRunner:
    put_first_on_path(str(Path.cwd()))
    classes = import_services(services)
    runner = ServiceRunner()
    for cls in classes:
        runner.add_service(cls)
    uri = sanitize_url(BrokerSettings.from_config(config).uri)
    _log.info("starting services: %s (broker %s)", ", ".join(runner.service_names), uri)
    return runner
