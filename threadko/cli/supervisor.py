"""The parent of `threadko run --processes` and `--reload`: it runs children, and no services.

==================  ===========================================================================
main thread         everything here but what follows: it waits for signals and messages, and
                    writes orders
channels' readers   put what children say into the inbox
waiting threads     one for each child: puts its end into the inbox
health threads      `find_hangs`, `find_troubles`: they put a question, and wait for answers
==================  ===========================================================================

Children are started anew, not forked, in process sessions of their own: a Ctrl-C in the terminal
is one signal, to the parent, which hands it on. They hear of the parent's death by the end of their
channel, and stop.

The order of stopping: the listening sockets are closed here, then children get the signal and stop
as a single process does. A second signal is handed on too. Whoever is there still when
SHUTDOWN_TIMEOUT is long past is killed.
"""

import contextlib
import logging
import os
import random
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass, field
from typing import Any, Final

from threadko.cli.channel import Channel
from threadko.cli.inbox import DUMP, Inbox
from threadko.cli.options import ExitCode
from threadko.cli.sources import SourceWatch
from threadko.concurrency.deadline import Deadline
from threadko.concurrency.threads import start_thread, thread_name
from threadko.exceptions import ConfigurationError
from threadko.health import ANSWER_SECONDS
from threadko.web.addresses import Door, open_door, parse_address

__all__ = ["Supervisor", "measure_pause"]

_log = logging.getLogger(__name__)

# All guessed.
_GRACE_SECONDS: Final = 5.0  # past SHUTDOWN_TIMEOUT: a child ends by itself long before
_KILL_SECONDS: Final = 8.0  # for a child that was told to kill its services
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 30.0
_STEADY_SECONDS = 60.0  # whoever ran for so long begins with the first pause again
_READY_SECONDS = 2.0  # for a child to say whether it is ready
_LAST_WORDS_SECONDS = 1.0  # for what a child has said to be read, when it has ended


def measure_pause(failures: int) -> float:
    """Return the seconds to wait before a child is started again that failed so often in a row."""
    ceiling = min(_FIRST_PAUSE * 2.0 ** min(failures - 1, 16), _LONGEST_PAUSE)
    return random.uniform(ceiling / 2, ceiling)


@dataclass(eq=False)
class _Child:
    """A place for a process, and the process that has it now."""

    number: int
    process: "subprocess.Popen[bytes] | None" = None
    channel: Channel | None = None
    started: float = 0.0
    failures: int = 0  # in a row
    restart_at: float | None = None
    reloads: bool = False  # is to be started again when it has stopped
    code: int = 0  # of the last end

    @property
    def is_alive(self) -> bool:
        return self.process is not None


@dataclass(frozen=True)
class _Said:
    """A message of a child."""

    child: _Child
    process: "subprocess.Popen[bytes]"
    message: Mapping[str, Any]


@dataclass(frozen=True)
class _Ended:
    """The end of a child's process."""

    child: _Child
    process: "subprocess.Popen[bytes]"
    code: int


@dataclass(frozen=True)
class _Changed:
    """Source files have changed."""

    paths: Sequence[str]


@dataclass(eq=False)
class _Question:
    """What a health thread wants to know of all children."""

    question: str
    #: The answers to come, by the number of the child.
    asked: "Future[dict[int, Future[list[str]]]]" = field(default_factory=Future)


@dataclass(frozen=True)
class _Asked:
    """A question that one child has still to answer."""

    child: _Child
    question: str
    answer: "Future[list[str]]"


class Supervisor:
    """Runs a command in child processes, until signals or failures end it.

    Args:
        command: starts one child; `--as-child` and a descriptor are added to it.
        count: how many.
        shutdown_timeout: seconds that children have to stop.
        reload: whether to start them again when source files change.
        files: to watch beside source files.
        adapt: returns what to add to the command for the child of that number.
        leave: called to leave the process at once; it does not return.
    """

    def __init__(
        self,
        command: Sequence[str],
        count: int,
        *,
        shutdown_timeout: float,
        reload: bool = False,
        files: Iterable[str] = (),
        adapt: Callable[[int], Sequence[str]] = lambda number: (),
        leave: Callable[[int], Any] = os._exit,
    ) -> None:
        self._command = list(command)
        self._children = [_Child(number) for number in range(1, count + 1)]
        self._shutdown_timeout = shutdown_timeout
        self._adapt = adapt
        self._leave = leave
        self._inbox = Inbox()
        self._watch = SourceWatch(files, self._on_change) if reload else None
        self._doors: dict[str, Door] = {}
        self._signals = 0
        self._is_stopping = False
        self._has_been_ready = False
        self._failure: int | None = None  # the code of the end that ends all
        self._give_up: Deadline | None = None  # then children are killed
        self._answers: dict[int, _Asked] = {}
        self._last_id = 0
        self._is_over = False

    # The health threads

    def find_hangs(self) -> list[str]:
        """Return what does not turn over in children that run."""
        return self._ask("live", Deadline(ANSWER_SECONDS + 1))

    def find_troubles(self) -> list[str]:
        """Return why work cannot come in to all children."""
        if self._is_stopping:
            return ["the processes are stopping"]
        return self._ask("ready", Deadline(_READY_SECONDS))

    def _ask(self, name: str, deadline: Deadline) -> list[str]:
        question = _Question(name)
        self._inbox.put(question)
        try:
            asked = question.asked.result(deadline.remaining())
        except FutureTimeoutError:
            return ["the processes have ended" if self._is_over else "the parent process hangs"]
        faults: list[str] = []
        for number, answer in asked.items():
            try:
                found = answer.result(deadline.remaining())
            except FutureTimeoutError:
                found = ["it does not answer"]
            faults.extend(f"process {number}: {fault}" for fault in found)
        return faults

    # The main thread

    def signal(self, number: int) -> None:
        """Do what a signal of that number asks for; for any thread."""
        self._inbox.put(number)

    def run(self) -> int:
        """Run to the end, and return the exit code; signals come through `signal()` alone."""
        try:
            return self._run()
        finally:
            self._inbox.close()

    def run_with_signals(self) -> int:
        """Run to the end, ruled by the signals of the process, and return the exit code."""
        try:
            with self._inbox.hearing_signals():
                return self._run()
        finally:
            self._inbox.close()

    def _run(self) -> int:
        if self._watch is not None:
            self._watch.start()
        try:
            # The others follow when it has imported: so a mistake is told once.
            self._start(self._children[0])
            while not self._is_done():
                self._handle(self._inbox.get(self._find_due()))
                self._do_due()
        finally:
            self._is_over = True
            self._close_doors()
            if self._watch is not None:
                self._watch.close()
            for child in self._children:
                self._kill(child)
        return self._judge()

    def _is_done(self) -> bool:
        return self._is_stopping and not any(child.is_alive for child in self._children)

    def _judge(self) -> int:
        if self._signals > 1:
            return ExitCode.KILLED
        if self._failure is not None:
            return self._failure
        codes = [ExitCode.FAILED if child.code < 0 else child.code for child in self._children]
        code = max(codes, key=lambda code: (code == ExitCode.UNFINISHED, code != 0))
        if code == ExitCode.STOPPED:
            _log.info("processes stopped")
        return code

    def _handle(self, message: Any) -> None:
        if message is None:
            return
        if isinstance(message, int):
            self._hear(message)
        elif isinstance(message, _Said):
            if message.process is message.child.process:
                self._listen(message.child, message.message)
        elif isinstance(message, _Ended):
            self._note_end(message.child, message.code)
        elif isinstance(message, _Changed):
            self._reload(message.paths)
        elif isinstance(message, _Question):
            self._pass_on(message)

    def _find_due(self) -> float | None:
        """Return the seconds until there is something to do."""
        moments = [child.restart_at for child in self._children if child.restart_at is not None]
        if self._give_up is not None and self._give_up.expires_at is not None:
            moments.append(self._give_up.expires_at)
        return max(0.0, min(moments) - time.monotonic()) if moments else None

    def _do_due(self) -> None:
        now = time.monotonic()
        for child in self._children:
            if child.restart_at is not None and child.restart_at <= now:
                self._start(child)
        if self._give_up is not None and self._give_up.expired:
            self._give_up = None
            _log.error("processes did not end within SHUTDOWN_TIMEOUT, and are killed")
            self._failure = self._failure or ExitCode.UNFINISHED
            for child in self._children:
                self._kill(child)

    # Children

    def _start(self, child: _Child) -> None:
        child.restart_at = None
        child.reloads = False
        child.code = 0
        try:
            ours, theirs = socket.socketpair()
        except OSError as error:
            self._fail_to_start(child, error)
            return
        try:
            command = [*self._command, *self._adapt(child.number), "--as-child"]
            process = subprocess.Popen(
                [*command, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        except OSError as error:
            ours.close()
            self._fail_to_start(child, error)
            return
        finally:
            theirs.close()
        child.process = process
        child.started = time.monotonic()
        silent = threading.Event()
        child.channel = Channel(
            ours,
            on_message=lambda message, _: self._inbox.put(_Said(child, process, message)),
            on_end=silent.set,
        )

        def wait() -> None:
            # Not for the end of the channel alone: a process that the child has forked holds it.
            code = process.wait()
            silent.wait(_LAST_WORDS_SECONDS)
            self._inbox.put(_Ended(child, process, code))

        child.channel.send(
            {
                "order": "welcome",
                "number": child.number,
                "count": len(self._children),
            }
        )
        child.channel.start()
        start_thread(wait, thread_name("process", "wait"))

    def _order(self, child: _Child, number: int) -> None:
        if child.channel is not None:
            child.channel.send({"order": "signal", "number": number})

    def _kill(self, child: _Child) -> None:
        if child.process is not None:
            with contextlib.suppress(ProcessLookupError):
                child.process.kill()

    def _restart_later(self, child: _Child) -> None:
        child.failures += 1
        child.code = child.code or ExitCode.FAILED  # until it runs
        pause = measure_pause(child.failures)
        child.restart_at = time.monotonic() + pause
        _log.warning("process %d is started again in %.1f s", child.number, pause)

    def _listen(self, child: _Child, message: Mapping[str, Any]) -> None:
        told = message["tell"]
        if told == "imported":
            if self._watch is not None:
                self._watch.look_into(message["folders"])
            if message["succeeded"] and not self._is_stopping:
                for other in self._children:
                    if not other.is_alive and other.restart_at is None and not other.started:
                        self._start(other)
        elif told == "ready":
            self._has_been_ready = True
            _log.info("process %d is ready", child.number)
        elif told == "door":
            self._give_door(child, message["address"], message["mode"])
        elif told == "answer":
            self._answers.pop(message["id"]).answer.set_result(message["faults"])

    def _note_end(self, child: _Child, code: int) -> None:
        if child.channel is not None:
            child.channel.close()
        child.process = child.channel = None
        child.code = code
        for number, asked in list(self._answers.items()):
            if asked.child is child:
                del self._answers[number]
                # What has ended does not hang.
                asked.answer.set_result(["it has ended"] if asked.question == "ready" else [])
        if self._is_stopping:
            return
        how = f"was killed by {_name(-code)}" if code < 0 else f"ended with code {code}"
        if child.reloads:
            self._start(child)
        elif self._watch is not None:
            _log.warning("process %d %s; waiting for a change", child.number, how)
        elif code >= 0 and not self._has_been_ready:
            # It says itself what is wrong, and would say it again.
            self._failure = code or ExitCode.FAILED
            self._stop(signal.SIGTERM)
        else:
            if time.monotonic() - child.started >= _STEADY_SECONDS:
                child.failures = 0
            _log.error("process %d %s", child.number, how)
            self._restart_later(child)

    # What is done with all

    def _hear(self, number: int) -> None:
        if number == DUMP:
            for child in self._children:
                self._order(child, number)
            return
        self._signals += 1
        name = _name(number)
        if self._signals == 1:
            _log.info("%s: stopping the processes; a second signal kills", name)
            self._stop(number)
        elif self._signals == 2:
            _log.warning("%s again: killing; a third signal leaves at once", name)
            self._give_up = Deadline(_KILL_SECONDS)
            for child in self._children:
                self._order(child, number)
        else:
            for child in self._children:
                self._kill(child)
            self._leave(ExitCode.KILLED)

    def _stop(self, number: int) -> None:
        self._is_stopping = True
        self._give_up = Deadline(self._shutdown_timeout + _GRACE_SECONDS)
        # First, so that who comes now is refused, and not left in a line that nobody serves.
        self._close_doors()
        for child in self._children:
            child.restart_at = None
            self._order(child, number)

    def _on_change(self, paths: list[str]) -> None:
        self._inbox.put(_Changed(paths))

    def _reload(self, paths: Sequence[str]) -> None:
        if self._is_stopping:
            return
        _log.info("%s changed: starting again", ", ".join(os.path.relpath(path) for path in paths))
        for child in self._children:
            child.failures = 0
            if child.is_alive:
                if not child.reloads:
                    child.reloads = True
                    self._order(child, signal.SIGTERM)
            elif child.started:
                self._start(child)

    def _fail_to_start(self, child: _Child, error: OSError) -> None:
        _log.error("process %d cannot be started: %s", child.number, error)
        self._restart_later(child)

    def _give_door(self, child: _Child, address: str, mode: int) -> None:
        reply = {"order": "door", "asked": address, "is": None, "error": None}
        descriptor = None
        if not self._is_stopping:
            try:
                door = self._doors.get(address)
                if door is None:
                    door = self._doors[address] = open_door(parse_address(address), mode)
                reply["is"] = str(door.address)
                descriptor = door.socket.fileno()
            except ConfigurationError as error:
                reply["error"] = str(error)
        if child.channel is not None:
            child.channel.send(reply, descriptor)

    def _close_doors(self) -> None:
        doors, self._doors = list(self._doors.values()), {}
        for door in doors:
            door.close()

    def _pass_on(self, question: _Question) -> None:
        asked: dict[int, Future[list[str]]] = {}
        for child in self._children:
            answer: Future[list[str]] = Future()
            if child.channel is not None:
                self._last_id += 1
                self._answers[self._last_id] = _Asked(child, question.question, answer)
                order = {"order": "answer", "id": self._last_id, "question": question.question}
                child.channel.send(order)
            elif question.question == "ready":
                answer.set_result(["it does not run"])
            else:
                continue  # it is started again, or waits for that
            asked[child.number] = answer
        question.asked.set_result(asked)


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
