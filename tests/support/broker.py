"""A broker for the tests: the development broker, or RabbitMQ where that is the question.

RabbitMQ is the one there is, else a private node started for the run.

A private node keeps everything (data, log, cookie, port mapper) in a folder of its own, listens on
loopback only, and never touches the machine's own node. It ends with us however we end: a guard
process holds a pipe from us, and clears away when that closes without a word.

A node belongs to one thread at a time.
"""

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import pika
from pika.adapters.utils.connection_workflow import AMQPConnectorException
from pika.exceptions import AMQPError

from tests.support.timing import TIMEOUT
from threadko.devbroker import DevBroker

__all__ = [
    "Broker",
    "NoBrokerError",
    "OwnBroker",
    "RabbitNode",
    "alone",
    "find_broker",
    "find_rabbitmq",
    "find_server",
    "is_reachable",
]

DEFAULT_URI = "amqp://guest:guest@localhost:5672/"

HOW_TO_GET_ONE = (
    "no RabbitMQ: set AMQP_URI, start one at localhost:5672, or install one for the run "
    "(Debian: apt-get install rabbitmq-server; macOS: brew install rabbitmq)"
)

# Guessed: a node is up in five seconds on an idle machine, and needs many times that on a busy one.
_START_SECONDS = 4 * TIMEOUT

# The server itself comes before Debian's wrapper in /usr/sbin, which insists on becoming the user
# rabbitmq or on being root; a private node wants neither.
_SERVER_FOLDERS = ("/usr/lib/rabbitmq/bin", "/opt/homebrew/sbin", "/usr/local/sbin", "/usr/sbin")

# $1 is the folder, the rest are process groups. A line read says that all is cleared already; the
# end of the pipe without one says that whoever should have done it is dead.
_GUARD = """
trap '' HUP INT TERM
read -r line && exit 0
folder=$1
shift
for group; do kill -s KILL -- "-$group"; done
rm -rf -- "$folder"
"""

AnyBroker = TypeVar("AnyBroker", bound="Broker")


class NoBrokerError(Exception):
    """There is no broker to be had; the text says how to get one."""


class Broker:
    """A broker that somebody else looks after."""

    def __init__(self, uri: str) -> None:
        self.uri = uri

    def close(self) -> None:
        """Give the broker back."""

    def __enter__(self: AnyBroker) -> AnyBroker:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class RabbitNode(Broker):
    """A RabbitMQ node of our own. What is durable outlives `stop()` and `kill()`, not `close()`.

    `settings` are further lines of its rabbitmq.conf, `plugins` those of its own to enable.
    """

    def __init__(
        self,
        server: str,
        settings: Mapping[str, object] | None = None,
        plugins: Sequence[str] = (),
    ) -> None:
        self._server = server
        self._settings = dict(settings or {})
        self._plugins = plugins
        self._folder = Path(tempfile.mkdtemp(prefix="threadko-rabbit-"))
        self._port, distribution_port, mapper_port = find_free_ports(3)
        self._environment = self._make_environment(distribution_port, mapper_port)
        self._mapper: subprocess.Popen[bytes] | None = None
        self._node: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        super().__init__(f"amqp://guest:guest@127.0.0.1:{self._port}/")

    def start(self) -> None:
        """Start the node and wait until it takes connections; RuntimeError if it does not."""
        if self._mapper is None:
            self._mapper = self._spawn([self._find_port_mapper(), "-address", "127.0.0.1"])
        # RABBITMQ_ALLOW_INPUT makes the script become the node instead of watching over it, so
        # that signals sent to our child reach the node.
        self._node = self._spawn([self._server])
        self._watch(self._mapper, self._node)
        try:
            wait_reachable(self.uri, self._node, _START_SECONDS)
        except RuntimeError as error:
            raise RuntimeError(f"{error}:\n{self._read_log()}") from None

    def stop(self) -> None:
        """Stop the node as an operator would, and wait for its end."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Take the node away as a power cut would."""
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """Let the node go silent, its sockets open."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """End `freeze()`."""
        self._signal(signal.SIGCONT)

    def control(self, *arguments: str) -> str:
        """Run `rabbitmqctl` with these arguments on the node, and return what it prints."""
        found = shutil.which("rabbitmqctl", path=os.pathsep.join([*_SERVER_FOLDERS, os.defpath]))
        if found is None:
            raise NoBrokerError("no rabbitmqctl beside rabbitmq-server")
        node = self._environment["RABBITMQ_NODENAME"]
        done = subprocess.run(
            [found, "--quiet", "--node", node, *arguments],
            cwd=self._folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_START_SECONDS,
        )
        if done.returncode:
            raise RuntimeError(f"rabbitmqctl {arguments[0]}: {done.stderr or done.stdout}")
        return done.stdout

    def add_place(self, vhost: str, user: str, password: str) -> None:
        """Make a vhost, and a user who may do anything there."""
        definitions = {
            "vhosts": [{"name": vhost}],
            "users": [{"name": user, "password": password, "tags": ""}],
            "permissions": [
                {"user": user, "vhost": vhost, "configure": ".*", "write": ".*", "read": ".*"}
            ],
        }
        # One call and not three: each takes seconds.
        path = self._folder / f"{vhost}.json"
        path.write_text(json.dumps(definitions), encoding="utf-8")
        self.control("import_definitions", str(path))

    def close(self) -> None:
        """End the node and remove all that it left."""
        if self._node is not None:
            self.kill()
        if self._mapper is not None:
            self._mapper.kill()
            self._mapper.wait()
            self._mapper = None
        self._unwatch()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _make_environment(self, distribution_port: int, mapper_port: int) -> dict[str, str]:
        folder = self._folder
        settings = {
            "listeners.tcp.1": f"127.0.0.1:{self._port}",
            "log.console": "true",
            **self._settings,
        }
        lines = [f"{key} = {value}\n" for key, value in settings.items()]
        (folder / "rabbitmq.conf").write_text("".join(lines), encoding="utf-8")
        (folder / "plugins").write_text(f"[{','.join(self._plugins)}].\n", encoding="utf-8")
        (folder / "environment").touch()
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("RABBITMQ_", "ERL_")) and name != "NOTIFY_SOCKET"
        }
        return {
            **kept,
            "HOME": str(folder),  # where Erlang keeps its cookie
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(mapper_port),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "advanced.config"),
            "RABBITMQ_ALLOW_INPUT": "1",
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": str(folder / "environment"),
            "RABBITMQ_DIST_PORT": str(distribution_port),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(folder / "generated"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
            "RABBITMQ_NODENAME": f"threadko-{self._port}@localhost",
            "RABBITMQ_NODE_PORT": str(self._port),
            "RABBITMQ_PID_FILE": str(folder / "pid"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": ("-kernel inet_dist_use_interface {127,0,0,1}"),
            "RABBITMQ_SERVER_START_ARGS": "-noinput",
        }

    def _find_port_mapper(self) -> str:
        found = shutil.which("epmd", path=f"{os.environ.get('PATH', os.defpath)}:/usr/bin")
        if found is None:
            raise NoBrokerError("no epmd on the PATH: it is a part of Erlang, as RabbitMQ needs it")
        return found

    def _spawn(self, command: list[str]) -> "subprocess.Popen[bytes]":
        with (self._folder / "output").open("ab") as output:
            return subprocess.Popen(
                command,
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # or a Ctrl-C in the terminal would hit the node too
            )

    def _watch(self, *processes: "subprocess.Popen[bytes]") -> None:
        self._unwatch()
        groups = [str(process.pid) for process in processes]
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", _GUARD, "guard", str(self._folder), *groups],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _unwatch(self) -> None:
        if self._guard is not None:
            self._guard.communicate(b"cleared\n")
            self._guard = None

    def _signal(self, number: signal.Signals) -> None:
        if self._node is None:
            raise RuntimeError("the node is not running")
        self._node.send_signal(number)

    def _end(self, number: signal.Signals) -> None:
        self._signal(number)
        assert self._node is not None
        try:
            self._node.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            self._node.kill()
            self._node.wait()
        # Erlang's little helper processes are in the node's group, and may be a moment behind it.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._node.pid, signal.SIGKILL)
        self._node = None

    def _read_log(self) -> str:
        return (self._folder / "output").read_text(encoding="utf-8", errors="replace")[-4000:]


def find_server() -> str | None:
    """Return the path of an installed `rabbitmq-server`, or None."""
    folders = os.pathsep.join([*_SERVER_FOLDERS, os.environ.get("PATH", os.defpath)])
    return shutil.which("rabbitmq-server", path=folders)


def find_free_ports(count: int) -> list[int]:
    """Return different ports that were free on loopback just now.

    The system gives none of them to somebody who wants any: to connect, or to listen.
    """
    found: list[int] = []
    choose = random.SystemRandom()  # not seeded, as hypothesis does with the common one
    with contextlib.ExitStack() as stack:
        while len(found) < count:
            port = choose.randrange(*_find_spared())
            taken = stack.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                taken.bind(("127.0.0.1", port))
                found.append(port)
    return found


def _find_spared() -> tuple[int, int]:
    """Return from where to where are ports that the system does not give away."""
    lowest, end = 10_000, 32_768
    with contextlib.suppress(OSError):
        end = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    return lowest, max(end, 2 * lowest)  # some systems give away all that there are


def is_reachable(uri: str) -> bool:
    """Whether a broker answers at the URI and lets us in."""
    try:
        parameters = pika.URLParameters(uri.replace("pyamqp:", "amqp:", 1))
        parameters.socket_timeout = parameters.stack_timeout = TIMEOUT / 4
        parameters.connection_attempts = 1
        pika.BlockingConnection(parameters).close()
    except (AMQPConnectorException, AMQPError, OSError, ValueError):
        return False
    return True


def wait_reachable(uri: str, node: "subprocess.Popen[bytes]", timeout: float) -> None:
    """Wait until the node at the URI answers; RuntimeError if it ends or time is up first."""
    over = threading.Event()
    timer = threading.Timer(timeout, over.set)
    timer.daemon = True
    timer.start()
    try:
        while not is_reachable(uri):
            try:
                # The pause between two attempts ends at once if the node does.
                node.wait(0.2)
            except subprocess.TimeoutExpired:
                if over.is_set():
                    raise RuntimeError(f"RabbitMQ did not start in {timeout:.0f} s") from None
            else:
                raise RuntimeError(f"RabbitMQ ended with {node.returncode} instead of starting")
    finally:
        timer.cancel()


def find_broker() -> Broker:
    """Return the broker of this run: the one that AMQP_URI names, else the development broker.

    The caller closes it. Raises `NoBrokerError`.
    """
    named = os.environ.get("AMQP_URI")
    if named:
        if not is_reachable(named):
            raise NoBrokerError("the broker that AMQP_URI names does not answer or refuses us")
        return Broker(named)
    return OwnBroker()


class OwnBroker(Broker):
    """A development broker in this process."""

    def __init__(self) -> None:
        self._broker = DevBroker()
        self._broker.start()
        super().__init__(self._broker.uri)

    def close(self) -> None:
        """End it."""
        self._broker.stop()


def find_rabbitmq() -> Broker:
    """Return RabbitMQ: that which AMQP_URI names, the one on this machine, or a node just started.

    The caller closes it. Raises `NoBrokerError`.
    """
    for uri in filter(None, (os.environ.get("AMQP_URI"), DEFAULT_URI)):
        if is_reachable(uri) and is_rabbitmq(uri):
            return Broker(uri)
    server = find_server()
    if server is None:
        raise NoBrokerError(HOW_TO_GET_ONE)
    node = RabbitNode(server)
    try:
        node.start()
    except BaseException:
        node.close()
        raise
    return node


def is_rabbitmq(uri: str) -> bool:
    """Whether the broker that answers there says that it is RabbitMQ."""
    connection = pika.BlockingConnection(pika.URLParameters(uri))
    try:
        return bool(connection._impl.server_properties.get("product") == "RabbitMQ")
    finally:
        connection.close()


@contextlib.contextmanager
def alone(uri: str) -> Iterator[str]:
    """Give the URI of a broker for names that are fixed, where tests run side by side.

    On RabbitMQ, on which whole files do, it is the same; else another development broker.
    """
    if is_rabbitmq(uri):
        yield uri
        return
    with OwnBroker() as broker:
        yield broker.uri
