"""The life of a process that runs services: it hears signals at every stage, and ends as they say.

=================  ===========================================================================
main thread        only waits for the next message, and decides
signal handlers    do nothing: the interpreter itself writes the number of the signal into the
                   socket that the main thread reads
threadko-runner    `start()` and `wait()` of the runner; reports to the main thread
threadko-stop,     `stop()` and `kill()` of the runner, a thread for each, so that the next
threadko-kill      signal is heard while they work; report to the main thread
=================  ===========================================================================
"""

import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from threadko.cli.inbox import DUMP, Inbox
from threadko.cli.options import ExitCode, NoBrokerError, UserError
from threadko.concurrency.deadline import Deadline
from threadko.concurrency.threads import start_thread, thread_name
from threadko.exceptions import (
    BrokerRefused,
    BrokerUnavailable,
    ConfigurationError,
    ContainerStopped,
)

__all__ = ["Runner", "Shell"]

_log = logging.getLogger(__name__)

# Guessed: what has been stopped is gone in no time, and what has not been will not be soon.
_GRACE_SECONDS = 1.0

# Guessed: to write out some buffers takes no time, unless a thread that was left behind holds one.
_FLUSH_SECONDS = 1.0


class Container(Protocol):
    """What the shell needs of a container."""

    @property
    def being_killed(self) -> bool: ...


class Runner(Protocol):
    """What the shell needs of a `ServiceRunner`."""

    @property
    def service_names(self) -> Iterable[str]: ...

    @property
    def containers(self) -> Iterable[Container]: ...

    def start(self) -> None: ...

    def wait(self) -> None: ...

    def stop(self) -> None: ...

    def kill(self) -> None: ...


@dataclass(frozen=True)
class _Report:
    """What one of our threads has finished, and the exception that ended it."""

    step: str
    error: BaseException | None = None


class Shell:
    """Runs a runner until it ends or a signal asks for that.

    The first signal stops it, the second kills it, the third leaves the process.

    Args:
        runner: what is run.
        leave: called to leave the process at once; it does not return.
        on_ready: called in the main thread when the runner has started.
        dump: called in the main thread for SIGUSR1.
    """

    def __init__(
        self,
        runner: Runner,
        leave: Callable[[int], Any] = os._exit,
        *,
        on_ready: Callable[[], object] = lambda: None,
        dump: Callable[[], object] = lambda: None,
    ) -> None:
        self._runner = runner
        self._leave = leave
        self._on_ready = on_ready
        self._dump = dump
        self._inbox = Inbox()
        self._signals = 0
        self._is_started = False
        self._errors: list[BaseException] = []
        self._threads: list[threading.Thread] = []

    def signal(self, number: int) -> None:
        """Do what a signal of that number asks for; for any thread."""
        self._inbox.put(number)

    def run_with_signals(self) -> int:
        """Run to the end, ruled by the signals of the process; for the main thread."""
        try:
            with self._inbox.hearing_signals():
                return self._run()
        finally:
            # Last: the interpreter must not write into a socket that is somebody else's by then.
            self._inbox.close()

    def run(self) -> int:
        """Run to the end, and return the exit code; signals come through `signal()` alone.

        Raises `UserError` if it is the user who can mend what made the start fail.
        """
        try:
            return self._run()
        finally:
            self._inbox.close()

    def _run(self) -> int:
        self._spawn("runner", self._start_and_wait)
        self._wait_for_end()
        return self._end()

    def _wait_for_end(self) -> None:
        pending = {"run"}
        while pending:
            message = self._inbox.get()
            if message == DUMP:
                self._dump()
            elif isinstance(message, int):
                pending |= self._hear(message)
            elif message.step == "start":
                self._is_started = True
                _log.info("services ready")
                self._on_ready()
            elif message.step == "kill":
                if message.error is not None:
                    _log.error("killing failed", exc_info=message.error)
                self._leave_for_good(ExitCode.KILLED)
            else:
                # What has stopped is over, even if a start that hangs in somebody's hook is not.
                pending -= {"run", message.step}
                self._note(message.error)

    def _hear(self, number: int) -> set[str]:
        self._signals += 1
        name = signal.Signals(number).name
        if self._signals == 1:
            self._spawn("stop", lambda: self._report("stop", self._stop))
            self._tell(logging.INFO, f"{name}: stopping; a second signal kills")
            return {"stop"}
        if self._signals == 2:
            self._spawn("kill", lambda: self._report("kill", self._runner.kill))
            self._tell(logging.WARNING, f"{name} again: killing; a third signal leaves at once")
            return {"kill"}
        self._leave(ExitCode.KILLED)
        return set()

    def _tell(self, level: int, text: str) -> None:
        """Log on a thread of its own: a handler that is stuck must not keep signals unheard."""
        self._spawn("tell", lambda: _log.log(level, "%s", text))

    def _spawn(self, role: str, target: Callable[[], None]) -> None:
        self._threads.append(start_thread(target, f"threadko-{role}"))

    def _start_and_wait(self) -> None:
        def start_and_wait() -> None:
            self._runner.start()
            self._inbox.put(_Report("start"))
            self._runner.wait()

        self._report("run", start_and_wait)

    def _stop(self) -> None:
        try:
            self._runner.stop()
        finally:
            self._threads[0].join(_GRACE_SECONDS)  # so that its report comes first, if one comes

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
        if not self._errors and self._signals and self._is_any_killed():
            _log.error("services did not end within SHUTDOWN_TIMEOUT, and were killed")
            return ExitCode.UNFINISHED
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

    def _is_any_killed(self) -> bool:
        return any(container.being_killed for container in self._runner.containers)

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
