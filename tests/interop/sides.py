"""threadko and two namekos, as processes that tests start, call and end.

A ``World`` belongs to the thread of the tests. It starts each process when it is first asked for;
those that are shared live until the world ends, for a nameko takes long to import.
"""

import json
import os
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import pytest
from pika.exceptions import AMQPError

from tests.interop.lines import pack, unpack
from tests.interop.peer import Peer
from tests.support.amqp import delete_queue
from tests.support.timing import TIMEOUT

__all__ = [
    "ALL",
    "NAMEKO2",
    "NAMEKO3",
    "THREADKO",
    "Caller",
    "Framework",
    "CallError",
    "Service",
    "World",
    "new_name",
]

_CALL_SECONDS = TIMEOUT  # less than a peer has to answer, so that the peer tells of it


@dataclass(frozen=True)
class Framework:
    """One of the frameworks: how to run it, and the package that its errors are from."""

    name: str
    package: str
    release: str = ""
    variable: str = ""  # of the environment, which names its Python

    @property
    def python(self) -> str:
        """The Python that holds it; the test is skipped if there is none."""
        if not self.variable:
            return sys.executable
        python = os.environ.get(self.variable)
        if not python:
            pytest.skip(f"{self.variable} names no Python with {self.release}: run `make interop`")
        return python

    def __str__(self) -> str:
        return self.name


THREADKO = Framework("threadko", "threadko")
NAMEKO2 = Framework("nameko2", "nameko", "nameko 2.14.1", "NAMEKO2_PYTHON")
NAMEKO3 = Framework("nameko3", "nameko", "nameko 3.0.0rc11", "NAMEKO3_PYTHON")

ALL = (THREADKO, NAMEKO2, NAMEKO3)


class CallError(Exception):
    """What a call raised in another process."""

    def __init__(self, description: dict[str, Any]) -> None:
        super().__init__(f"{description['classes'][0]}: {description['text']}")
        self.classes: list[str] = description["classes"]
        self.arguments: tuple[Any, ...] = unpack(description["arguments"])
        self.text: str = description["text"]
        self.exc_type: str | None = description["exc_type"]
        self.value: Any = description["value"]

    @property
    def path(self) -> str:
        """Module and name of the class."""
        return self.classes[0]


class Caller:
    """A process that makes calls with the standalone clients of a framework."""

    def __init__(self, framework: Framework, uri: str) -> None:
        self.framework = framework
        self.peer = Peer(framework.python, f"tests.interop.{framework.package}_side.client", uri)

    def error(self, name: str) -> str:
        """The path of an exception class in the caller's framework."""
        return f"{self.framework.package}.exceptions.{name}"

    def call(
        self,
        service: str,
        method: str,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Any:
        """Make one call and return its result; options are those of ``begin``.

        Raises:
            CallError: the call did.
        """
        self.begin(service, method, [(args, dict(kwargs or {}))], **options)
        return self.end()[0]

    def begin(
        self,
        service: str,
        method: str,
        arguments: Sequence[tuple[Sequence[Any], dict[str, Any]]] = (((), {}),),
        *,
        context: Mapping[str, Any] | None = None,
        bound: bool = False,
        config: Mapping[str, Any] | None = None,
        timeout: float = _CALL_SECONDS,
    ) -> None:
        """Send one request for each of the arguments, without waiting for replies.

        Args:
            context: context data to send along.
            bound: use the client of one service, and not that of all.
            config: configuration beside the broker's URI.
            timeout: seconds for each reply.
        """
        answer = self.peer.ask(
            do="begin",
            service=service,
            method=method,
            arguments=pack(list(arguments)),
            context=pack(dict(context or {})),
            bound=bound,
            config=dict(config or {}),
            timeout=timeout,
        )
        _raise_if_raised(answer)

    def end(self) -> list[Any]:
        """Wait for the replies to what was begun first, and return them.

        Raises:
            CallError: one of the calls did.
        """
        self.let_end()
        return self.ended()

    def let_end(self) -> None:
        """Let the process wait for its replies; ``ended`` returns them."""
        self.peer.tell(do="end")

    def ended(self) -> list[Any]:
        """Return the replies that the process was let wait for."""
        results: list[Any] = unpack(_raise_if_raised(self.peer.answer())["results"])
        return results

    def deserialize(self, error: Any) -> CallError:
        """Return what the framework makes of the ``error`` in a reply."""
        return CallError(self.peer.ask(do="deserialize", error=error)["raised"])


def _raise_if_raised(answer: dict[str, Any]) -> dict[str, Any]:
    if "raised" in answer:
        raise CallError(answer["raised"])
    return answer


class Service:
    """A process that runs the contract's service under a framework."""

    def __init__(
        self,
        framework: Framework,
        uri: str,
        name: str,
        config: Mapping[str, Any],
        options: Mapping[str, Any],
    ) -> None:
        self.framework = framework
        self.name = name
        order = {
            "name": name,
            "config": dict(config),
            "options": dict(options),
            "timeout": _CALL_SECONDS,
        }
        module = f"tests.interop.{framework.package}_side.service"
        self.peer = Peer(framework.python, module, uri, json.dumps(order))

    @property
    def executed(self) -> list[Any]:
        """What ``record`` and ``hold`` were called with, in their order."""
        executed: list[Any] = unpack(self.peer.ask(do="executed")["executed"])
        return executed

    def start(self) -> None:
        """Run it again."""
        self.peer.ask(do="start")

    def stop(self) -> None:
        """Stop it gracefully; its process lives on."""
        self.peer.ask(do="stop")

    def begin_stop(self) -> None:
        """Begin to stop it, without waiting; ``stop`` waits for the end."""
        self.peer.ask(do="begin stop")

    def await_hold(self) -> None:
        """Wait until a worker of ``hold`` has begun."""
        assert self.peer.ask(do="await hold") == {"begun": True}

    def open_gate(self) -> None:
        """Let the workers of ``hold`` go, those to come too."""
        self.peer.ask(do="open")

    def kill(self) -> None:
        """End its process as a power cut would."""
        self.peer.process.kill()
        self.peer.process.wait()

    def close(self) -> None:
        """End its process, well if it runs threadko."""
        if self.framework is not THREADKO:
            self.kill()  # a nameko 2.14 takes three seconds to stop
        self.peer.close()


class World:
    """The processes of one run of the tests."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._callers: dict[Framework, Caller] = {}
        self._services: dict[Framework, Service] = {}
        self._stack = ExitStack()

    def caller(self, framework: Framework) -> Caller:
        """The process that calls with that framework."""
        if framework not in self._callers:
            caller = self._callers[framework] = Caller(framework, self.uri)
            self._stack.callback(caller.peer.close)
        return self._callers[framework]

    def service(self, framework: Framework) -> Service:
        """The service that tests share which do not stop it."""
        if framework not in self._services:
            self._services[framework] = self._stack.enter_context(self.run(framework))
        return self._services[framework]

    @contextmanager
    def run(
        self,
        framework: Framework,
        name: str | None = None,
        *,
        config: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Iterator[Service]:
        """Run a service of one's own.

        Args:
            name: its name, for who shares a queue, and deletes that; made up if not given.
            config: configuration beside the broker's URI.
            options: of the publisher that it calls others with.
        """
        known_as = name or new_name()
        try:
            service = Service(framework, self.uri, known_as, config or {}, options or {})
            try:
                yield service
            finally:
                service.close()
        finally:
            if name is None:  # durable, its queue would stay for ever
                with suppress(AMQPError):
                    delete_queue(self.uri, f"rpc-{known_as}")

    def __enter__(self) -> "World":
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()


def new_name() -> str:
    """Return the name of a service that nobody else has."""
    return f"interop_{uuid.uuid4().hex}"
