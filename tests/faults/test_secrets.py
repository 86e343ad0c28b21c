"""Secrets in every place that may hold one, things that fail, and none in what is shown of them."""

import contextlib
import gc
import io
import logging
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.stories.process import Process
from tests.support.amqp import publish
from tests.support.broker import find_free_ports
from tests.support.timing import TIMEOUT
from threadko.containers import ServiceContainer
from threadko.devbroker import DevBroker
from threadko.exceptions import (
    BrokerRefused,
    IncorrectSignature,
    MethodNotFound,
    RemoteError,
    UndeliverableMessage,
    UnknownService,
)
from threadko.messaging import Publisher, Queue, consume
from threadko.rpc import RpcProxy, rpc
from threadko.standalone.events import event_dispatcher
from threadko.standalone.rpc import ClusterRpcClient
from threadko.utils import get_redacted_args
from threadko.web.handlers import http

#: A secret for each place, so that one that is found says where it comes from.
SECRETS = {
    place: f"hush-5ecret-of-{place}"
    for place in ("uri", "argument", "header", "context", "body", "config", "wrong", "web")
}

TELLTALE = "5ecret"


class Sink(logging.Handler):
    """All that is logged, by whomever, at any level, as a file would have it."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.setFormatter(logging.Formatter("%(name)s %(threadName)s %(message)s"))
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.extend(self.format(record).splitlines())


@pytest.fixture
def sink() -> Iterator[Sink]:
    made, root = Sink(), logging.getLogger()
    level = root.level
    root.addHandler(made)
    root.setLevel(logging.DEBUG)
    yield made
    root.setLevel(level)
    root.removeHandler(made)


@pytest.fixture
def broker() -> Iterator[DevBroker]:
    """One whose only user has a password of this test."""
    with DevBroker(users={"ann": SECRETS["uri"]}) as made:
        yield made


def uri(broker: DevBroker, password: str = SECRETS["uri"]) -> str:
    return f"amqp://ann:{password}@127.0.0.1:{broker.port}/"


class Failing:
    """Everything in it fails, and none of it says what it was given."""

    name = "failing"
    publish = Publisher(mandatory=True)
    own = RpcProxy("nobody")
    seen: list[str]

    @rpc(sensitive_arguments="password")
    def login(self, user: str, password: str) -> None:
        raise ValueError("the door is shut")

    @rpc
    def look(self, password: str) -> Any:
        return {"fine": True}

    @rpc
    def nothing(self, password: str) -> None:
        self.publish(password, routing_key="nowhere", headers={"authorization": SECRETS["header"]})

    @rpc
    def ask(self, password: str) -> None:
        self.own.method(password)

    @http("POST", "/fail")
    def fail(self, request: Any) -> str:
        raise ValueError("the door is shut")

    @consume(Queue("failing-input"))
    def take(self, payload: Any) -> None:
        raise ValueError("the door is shut")


def all_reprs() -> list[str]:
    """The repr of every object of ours that there is, in the whole process."""
    found = []
    for each in gc.get_objects():
        cls = type(each)
        if str(cls.__module__).startswith("threadko.") and not isinstance(each, (type, dict)):
            with contextlib.suppress(Exception):  # not bound yet, or mocks of other tests
                found.append(repr(each))
    return found


def explain(error: BaseException) -> list[str]:
    return [repr(error), str(error), *traceback.format_exception(error)]


def run_in_this_process(broker: DevBroker) -> list[str]:
    """Have everything fail; return the errors, and what the objects say of themselves."""
    config = {
        "AMQP_URI": uri(broker),
        "WEB_SERVER_ADDRESS": "127.0.0.1:0",
        "token": SECRETS["config"],
        "HTTP_TLS": None,
    }
    texts: list[str] = []
    container = ServiceContainer(Failing, config=config)
    container.start()
    try:
        entrypoints = {each.method_name: each for each in container.entrypoints}
        redacted = get_redacted_args(entrypoints["login"], "ann", SECRETS["argument"])
        texts.append(repr(redacted))
        context = {"auth": SECRETS["context"]}
        with ClusterRpcClient(config=config, context_data=context, timeout=TIMEOUT) as client:
            secret = SECRETS["argument"]
            for kind, call in [
                (RemoteError, lambda: client.failing.login("ann", secret)),
                (RemoteError, lambda: client.failing.login("ann", password=secret)),
                (IncorrectSignature, lambda: client.failing.login("ann", secret, secret)),
                (IncorrectSignature, lambda: client.failing.login(passwort=secret)),
                (MethodNotFound, lambda: client.failing.no_such_method(secret)),
                (UnknownService, lambda: client.nobody.method(secret)),
                (RemoteError, lambda: client.failing.nothing(secret)),
                (RemoteError, lambda: client.failing.ask(secret)),
            ]:
                with pytest.raises(kind) as caught:
                    call()
                texts += explain(caught.value)
            call = client.failing.look.call_async(secret)
            assert call.result(TIMEOUT) == {"fine": True}
            texts += [repr(call), repr(client.failing), repr(client.failing.look), *all_reprs()]
        with event_dispatcher(config=config, mandatory=True) as dispatch:
            with pytest.raises(UndeliverableMessage) as undelivered:
                dispatch("failing", "nobody-cares", {"password": SECRETS["body"]})
            texts += explain(undelivered.value)
        for body in (b'"%s"', b"{%s", b'{"args": ["%s"]', b"\xff%s"):
            for key in ("failing-input", "rpc-failing"):
                publish(
                    uri(broker),
                    body % SECRETS["body"].encode(),
                    routing_key=key,
                    headers={"nameko.auth": SECRETS["header"]},
                    content_type="application/json",
                )
        [address] = {server.bind_addr for server in find_servers(container)}
        for headers in ({"Authorization": SECRETS["web"]}, {"Cookie": f"token={SECRETS['web']}"}):
            answer = requests.post(
                f"http://{address}/fail", data=SECRETS["web"], headers=headers, timeout=TIMEOUT
            )
            texts.append(answer.text)
            assert answer.status_code == 500
    finally:
        texts += all_reprs()
        container.stop()
    wrong = {**config, "AMQP_URI": uri(broker, SECRETS["wrong"])}
    with pytest.raises(BrokerRefused) as refused:
        ServiceContainer(Failing, config=wrong).start()
    texts += explain(refused.value)
    with pytest.raises(BrokerRefused) as refused:
        with ClusterRpcClient(config=wrong, timeout=TIMEOUT) as client:
            client.failing.look(1)
    texts += explain(refused.value)
    return texts


def find_servers(container: ServiceContainer) -> list[Any]:
    return [each for each in container.subextensions if hasattr(each, "bind_addr")]


SOURCE = """
import threading
from threadko import config
from threadko.rpc import rpc

class Service:
    name = "hanging"

    @rpc(sensitive_arguments="password")
    def hang(self, password):
        print("hanging", flush=True)
        threading.Event().wait()

    @rpc(sensitive_arguments="password")
    def fail(self, password):
        raise ValueError("the door is shut")
"""

FILE = """
AMQP_URI: {uri}
SHUTDOWN_TIMEOUT: 0.2
HEALTH_ADDRESS: 127.0.0.1:{port}
db_password: {secret}
mail: {{accounts: [{{api_key: {secret}}}], url: "smtp://ann:{secret}@mail/"}}
LOGGING:
  version: 1
  disable_existing_loggers: false
  handlers: {{all: {{class: logging.StreamHandler, stream: "ext://sys.stderr"}}}}
  root: {{level: DEBUG, handlers: [all]}}
"""


def run_commands(broker: DevBroker, folder: Path) -> list[str]:
    """Run each command with a configuration full of secrets; return all that they print."""
    (folder / "svc.py").write_text(SOURCE)
    [port] = find_free_ports(1)
    for name, password in [("right", SECRETS["uri"]), ("wrong", SECRETS["wrong"])]:
        text = FILE.format(uri=uri(broker, password), port=port, secret=SECRETS["config"])
        (folder / f"{name}.yaml").write_text(text)
    (folder / "broken.yaml").write_text(f"password: {SECRETS['config']}\nx: '{SECRETS['config']}\n")

    def run(*arguments: str, code: int, said: str = "") -> list[str]:
        done = subprocess.run(
            [sys.executable, "-m", "threadko", *arguments],
            cwd=folder,
            input=said,
            capture_output=True,
            text=True,
            timeout=TIMEOUT * 3,
        )
        assert done.returncode == code, done
        return (done.stdout + done.stderr).splitlines()

    lines = []
    with Process("-m", "threadko", "run", "-c", "right.yaml", "svc", cwd=folder) as process:
        process.wait_for("services ready", "stderr")
        with ClusterRpcClient(config={"AMQP_URI": uri(broker)}, timeout=TIMEOUT) as client:
            with pytest.raises(RemoteError):
                client.hanging.fail(SECRETS["argument"])
            hanging = client.hanging.hang.call_async(SECRETS["argument"])
            process.wait_for("hanging")
            process.send_signal(signal.SIGUSR1)
            process.wait_for(", in hang", "stderr")
            lines += run("health", "-c", "right.yaml", code=0)
            process.send_signal(signal.SIGTERM)
            assert process.wait() == 4, process
            hanging.cancel()
        lines += [*process.stdout, *process.stderr]
    lines += run("run", "--debug", "-c", "wrong.yaml", "svc", code=3)
    lines += run("run", "--debug", "-c", "broken.yaml", "svc", code=2)
    lines += run("run", "-d", f"AMQP_URI=amqp//ann:{SECRETS['uri']}@h/", "svc", code=2)
    lines += run("run", "-d", f"AMQP_URI=[amqp://ann:{SECRETS['uri']}@h/", "svc", code=2)
    lines += run("run", "--dev", f"-dAMQP_URI=amqp://ann:{SECRETS['uri']}@h.example", "svc", code=2)
    lines += run("show-config", "-c", "right.yaml", code=0)
    lines += run("show-config", "-c", "right.yaml", "--sources", code=0)
    lines += run("show-config", "-c", "broken.yaml", code=2)
    lines += run("dead", "list", "queue", "-c", "wrong.yaml", "--debug", code=3)
    lines += run("dead", "list", "queue", "-c", "right.yaml", "--debug", code=2)
    script = "n\nn.rpc\nn.rpc.a\nn.rpc.a.b\nn.config\n"
    lines += run("shell", "-c", "right.yaml", code=0, said=script)
    lines += run("shell", "-c", "wrong.yaml", code=1, said="n.rpc.a.b()\n")
    return lines


@pytest.mark.long
@pytest.mark.timeout(600)
def test_no_secret_is_logged_shown_or_printed(
    broker: DevBroker, sink: Sink, tmp_path: Path, figure: Callable[[str, str], None]
) -> None:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        with contextlib.redirect_stderr(io.StringIO()) as err:
            shown = run_in_this_process(broker)
    gc.collect()  # the errors hold on to publishers, and those to their connection
    printed = run_commands(broker, tmp_path)
    texts = [*sink.lines, *shown, *printed, out.getvalue(), err.getvalue()]
    leaks = [text for text in texts if TELLTALE in text]
    assert not leaks, "\n".join(leaks[:20])
    assert len(sink.lines) > 100, "not all that is logged has been seen"
    figure(
        "secrets",
        f"0 in {len(sink.lines)} lines of log, {len(shown)} errors and reprs,"
        f" {len(printed)} lines of commands",
    )
