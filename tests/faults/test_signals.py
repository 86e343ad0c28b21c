"""Signals that come at the worst moment, and what a worker's child is left with."""

import json
import signal
import subprocess
import sys

import pytest

from tests.stories.process import Process
from tests.support.timing import TIMEOUT
from threadko.standalone.rpc import ClusterRpcClient

SERVICE = """
from threadko.rpc import rpc


class Service:
    name = {name!r}

    @rpc
    def echo(self, value):
        return value
"""

#: `threadko run`, whose main thread gets a signal before each line that it has not run before, in
#: whatever lock it is just then. The signal asks for the stacks, which takes it to further lines.
INTERRUPTED = """
import signal
import sys

from threadko.cli.inbox import Inbox
from threadko.cli.main import main

FILES = ("/threadko/", "/logging/__init__.py", "/threading.py", "/queue.py", "/selectors.py")
seen = set()
raised = 0


def trace(frame, event, argument):
    global raised
    name = frame.f_code.co_filename
    place = (name, frame.f_lineno)
    if place not in seen and any(part in name for part in FILES):
        seen.add(place)
        if signal.getsignal(signal.SIGUSR1) not in (signal.SIG_DFL, signal.SIG_IGN):
            raised += 1
            signal.raise_signal(signal.SIGUSR1)
    return trace


sys.settrace(trace)
try:
    main()
finally:
    sys.settrace(None)
    print("raised", raised, flush=True)
"""


@pytest.mark.long
@pytest.mark.timeout(TIMEOUT * 8)
def test_signal_at_every_line_of_the_main_thread_is_heard(tmp_path, name, amqp_config):
    (tmp_path / "interrupted.py").write_text(INTERRUPTED)
    (tmp_path / "interrupted_service.py").write_text(SERVICE.format(name=name))
    defines = [part for key in amqp_config for part in ("-d", f"{key}={amqp_config[key]}")]
    arguments = ("interrupted.py", "run", "interrupted_service", *defines)
    with Process(*arguments, cwd=tmp_path) as process:
        process.wait_for("services ready", "stderr", TIMEOUT * 3)
        with ClusterRpcClient(config=amqp_config, timeout=TIMEOUT) as client:
            assert client[name].echo(1) == 1
        process.wait_for("stacks of all threads", "stderr")
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT * 3) == 0, process
        (line,) = process.stdout
        assert int(line.split()[1]) > 100, line
        assert not any("Traceback" in line for line in process.stderr), process


#: Prints the signals that are blocked, and those that are ignored.
CHILD = """
import json
import signal

blocked = sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, [])))
ignored = [n for n in signal.valid_signals() if signal.getsignal(n) == signal.SIG_IGN]
print(json.dumps([blocked, sorted(map(int, ignored))]))
"""


def ask_child():
    done = subprocess.run(
        [sys.executable, "-c", CHILD], capture_output=True, text=True, check=True, timeout=TIMEOUT
    )
    return json.loads(done.stdout)


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="needs a system with masks")
def test_child_of_a_worker_inherits_no_blocked_signal(tmp_path, name, amqp_config):
    (tmp_path / "parent.py").write_text(
        SERVICE.format(name=name)
        + """
    @rpc
    def ask_child(self):
        from tests.faults.test_signals import ask_child

        return ask_child()
"""
    )
    defines = [part for key in amqp_config for part in ("-d", f"{key}={amqp_config[key]}")]
    with Process("-m", "threadko", "run", "parent", *defines, cwd=tmp_path) as process:
        process.wait_for("services ready", "stderr")
        with ClusterRpcClient(config=amqp_config, timeout=TIMEOUT * 2) as client:
            found = client[name].ask_child()
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 0, process
    blocked, ignored = found
    assert blocked == []
    # Not more than a child of this process ignores, which may have run commands before.
    assert set(ignored) <= set(ask_child()[1])
