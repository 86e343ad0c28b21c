"""Whether services are well: what a supervisor asks before it restarts them or sends them work.

*Live* means that the machinery turns over: the threads of connections answer, and not every worker
hangs. A broker that is down is no fault of the process, and a restart would not mend it. *Ready*
means that work can come in: all connections stand, all consumers are registered, nothing stops.

==================  ===========================================================================
`find_troubles`     any thread; reads what is there, and never waits
`find_hangs`        any thread; waits up to its time-out for threads of connections to answer
`HealthServer`      `start` and `close` by one thread; `live` and `ready` are called by its own
==================  ===========================================================================
"""

import importlib
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

from threadko.concurrency.deadline import Deadline
from threadko.containers import ServiceContainer
from threadko.extensions import Extension
from threadko.utils.safelog import log_safely
from threadko.web.addresses import BindAddress, UnixAddress, open_door, parse_address
from threadko.web.parser import Limits

if TYPE_CHECKING:
    from threadko.web.listener import HttpListener

__all__ = ["HealthServer", "find_hangs", "find_troubles"]

_log = logging.getLogger(__name__)

#: Seconds that a connection's thread may take to answer. Guessed: none does anything that takes
#: long, but workers that compute may leave it little of the processor.
ANSWER_SECONDS: Final = 3.0

_CLOSE_SECONDS = 1.0
_THREADS = 4
_SOCKET_MODE = 0o660
_KEY = "HEALTH_ADDRESS"


def find_troubles(containers: Iterable[ServiceContainer]) -> list[str]:
    """Return why work cannot come in; nothing if it can, to all of them."""
    troubles = []
    for container in containers:
        if not container.is_running:
            troubles.append(f"service {container.service_name} is {container.state_name}")
            continue
        for extension in container.extensions:
            trouble = _find_trouble(extension)
            if trouble is not None:
                troubles.append(f"service {container.service_name}: {trouble}")
    return troubles


def _find_trouble(extension: Extension) -> str | None:
    try:
        return extension.find_trouble()
    except Exception as error:
        name = type(extension).__name__
        log_safely(_log, logging.ERROR, "%s cannot say how it is", name, exc_info=error)
        return f"{name} cannot be asked"


def find_hangs(
    containers: Iterable[ServiceContainer],
    *,
    hung_timeout: float,
    answer_timeout: float = ANSWER_SECONDS,
) -> list[str]:
    """Return what does not turn over; nothing if all does.

    Args:
        containers: those that are not running, because they start or stop, are passed over.
        hung_timeout: seconds without a free worker, and without one ending, that are too long.
        answer_timeout: seconds that the threads of connections have to answer.
    """
    running = [container for container in containers if container.is_running]
    pings = [
        _Ping(container.service_name, extension)
        for container in running
        for extension in container.extensions
    ]
    deadline = Deadline(answer_timeout)
    hangs = [
        f"service {ping.service_name}: {type(ping.extension).__name__} does not answer"
        for ping in pings
        if not ping.wait(deadline)
    ]
    for container in running:
        busy = _measure_full(container)
        if busy >= hung_timeout:
            hangs.append(
                f"service {container.service_name}: all {container.max_workers} workers have been"
                f" busy for {busy:.0f} s without one ending"
            )
    return hangs


class _Ping:
    """A question to the thread that runs for an extension."""

    def __init__(self, service_name: str, extension: Extension) -> None:
        self.service_name = service_name
        self.extension = extension
        self._answered = threading.Event()
        try:
            extension.answer_ping(self._answered.set)
        except Exception as error:
            # A restart would not mend that.
            name = type(extension).__name__
            log_safely(_log, logging.ERROR, "%s cannot be asked", name, exc_info=error)
            self._answered.set()

    def wait(self, deadline: Deadline) -> bool:
        return self._answered.wait(deadline.remaining())


def _measure_full(container: ServiceContainer) -> float:
    """Return for how long all slots have been taken without a worker ending; 0 if one is free."""
    workers = container.running_workers()
    if len(workers) < container.max_workers:
        return 0.0
    return time.monotonic() - max(begun for _, begun in workers.values())


class _Answer(Protocol):
    def __call__(self) -> Sequence[str]: ...


class HealthServer:
    """Serves `/live` and `/ready` at an address, on threads of its own.

    200 means yes; 503 means no, and its text says why.

    Args:
        address: `[host:]port`, `[IPv6 address]:port` or `unix:/path`.
        live: returns what does not turn over.
        ready: returns why work cannot come in.
    """

    def __init__(self, address: str | int, *, live: _Answer, ready: _Answer) -> None:
        self._address = parse_address(address, _KEY)
        self._answers: Mapping[str, _Answer] = {"/live": live, "/ready": ready}
        self._listener: HttpListener | None = None

    @property
    def address(self) -> BindAddress | UnixAddress:
        """Where it listens; before `start`, where it will."""
        return self._address if self._listener is None else self._listener.door.address

    def start(self) -> None:
        """Listen; `ConfigurationError` if that cannot be done."""
        # Loaded now, for it takes 8 MiB that a service without health checks need not have.
        web = importlib.import_module("threadko.web.listener")
        listener: HttpListener = web.HttpListener(
            open_door(self._address, _SOCKET_MODE, _KEY),
            self._serve,
            limits=Limits(head=8192, body=0),
            request_timeout=5.0,
            idle_timeout=5.0,
            max_connections=64,
            logs_access=False,
        )
        listener.threads.set_limit(_THREADS)
        self._listener = listener
        listener.start()

    def close(self) -> None:
        """Listen no more."""
        if self._listener is not None:
            self._listener.close_door(Deadline(_CLOSE_SECONDS))
            self._listener.end(_CLOSE_SECONDS)  # an answer may be on its way

    def _serve(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        answer = self._answers.get(environ["PATH_INFO"])
        if answer is None:
            status, text = "404 Not Found", "there are /live and /ready"
        elif environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            status, text = "405 Method Not Allowed", "GET"
        else:
            status, text = self._ask(environ["PATH_INFO"], answer)
        body = f"{text}\n".encode()
        headers = [
            ("Content-Type", "text/plain; charset=utf-8"),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
            ("Connection", "close"),
        ]
        start_response(status, headers)
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    def _ask(self, path: str, answer: _Answer) -> tuple[str, str]:
        try:
            faults = answer()
        except Exception as error:  # an extension of the user's; the other question still works
            log_safely(_log, logging.ERROR, "%s could not be answered", path, exc_info=error)
            return "500 Internal Server Error", "could not be found out; see the log"
        if faults:
            return "503 Service Unavailable", "\n".join(faults)
        return "200 OK", "ok"
