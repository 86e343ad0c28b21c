"""Services inside a program that has threads of its own, and how that program ends."""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.conftest import IS_CI
from tests.support.amqp import queue_depth
from tests.support.pythons import PYTHONS, why_not
from tests.support.timing import TIMEOUT, wait_until
from threadko.containers import Observer, ServiceContainer
from threadko.rpc import ServiceRpc, rpc
from threadko.runners import run_services
from threadko.standalone.rpc import ClusterRpcClient

ROOT = Path(__file__).parents[2]

# In CI nothing may be skipped, and one Python is there at least: the one that runs this.
VERSIONS = [version for version in PYTHONS if not (IS_CI and why_not(version))]

#: A worker hangs in user code, and one waits for a reply that never comes.
HOST = """
import os, sys, threading, time
from threadko.containers import ServiceContainer
from threadko.rpc import ServiceRpc, rpc
from threadko.runners import ServiceRunner
from threadko.standalone.rpc import ClusterRpcClient

CONFIG = {{"AMQP_URI": {uri!r}, "rpc_exchange": {exchange!r}}}
hanging = threading.Semaphore(0)


class Service:
    name = {name!r}
    myself = ServiceRpc(name)

    @rpc
    def hang(self):
        hanging.release()
        {hang}

    @rpc
    def wait(self):
        hanging.release()
        return self.myself.hang()


def main():
    container = ServiceContainer(Service, config=CONFIG)
    container.start()
    client = ClusterRpcClient(config=CONFIG).start()
    client[Service.name].wait.call_async()
    for _ in range(2):
        hanging.acquire()
    {end}


{run}
"""

HANGS = {
    "in an event": "threading.Event().wait()",
    "in a system call": "os.read(os.pipe()[0], 1)",
    "in a loop": "while True: pass",
    "swallowing all": """while True:
            try:
                time.sleep(0.01)
            except BaseException:
                pass""",
}

IN_MAIN_THREAD = "main()"
IN_A_THREAD = """
def run():
    try:
        main()
    except BaseException:
        failed.append(1)

failed = []
thread = threading.Thread(target=run)
thread.start()
thread.join()
if failed:
    raise ValueError("main thread")
"""


def run_host(python, cwd, *, uri, exchange, name, hang, end, run=IN_MAIN_THREAD):
    source = HOST.format(uri=uri, exchange=exchange, name=name, hang=hang, end=end, run=run)
    path = cwd / "host.py"
    path.write_text(source)
    return run_python(python, path)


def run_python(python, path):
    return subprocess.run(
        [python, str(path)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=path.parent,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,  # seconds, though no worker ends
    )


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("end", "code", "said"),
    [
        ("raise ValueError('main thread')", 1, "ValueError: main thread"),
        ("sys.exit(7)", 7, ""),
        ("return", 0, ""),
    ],
)
def test_program_ends_with_its_own_code_while_workers_hang(
    version, end, code, said, tmp_path, broker_uri, rpc_exchange, name
):
    if why_not(version):
        pytest.skip(why_not(version))
    ended = run_host(
        PYTHONS[version],
        tmp_path,
        uri=broker_uri,
        exchange=rpc_exchange,
        name=name,
        hang=HANGS["in an event"],
        end=end,
    )
    assert ended.returncode == code, ended.stderr
    assert said in ended.stderr
    assert "Fatal" not in ended.stderr
    wait_until(lambda: queue_depth(broker_uri, f"rpc-{name}") == 2, "nothing was acknowledged")


@pytest.mark.parametrize("hang", [key for key in HANGS if key != "in an event"])
def test_program_ends_however_a_worker_hangs(hang, tmp_path, broker_uri, rpc_exchange, name):
    ended = run_host(
        sys.executable,
        tmp_path,
        uri=broker_uri,
        exchange=rpc_exchange,
        name=name,
        hang=HANGS[hang],
        end="raise ValueError('main thread')",
    )
    assert ended.returncode == 1, ended.stderr
    wait_until(lambda: queue_depth(broker_uri, f"rpc-{name}") == 2, "nothing was acknowledged")


def test_program_ends_though_a_thread_of_its_own_started_the_container(
    tmp_path, broker_uri, rpc_exchange, name
):
    ended = run_host(
        sys.executable,
        tmp_path,
        uri=broker_uri,
        exchange=rpc_exchange,
        name=name,
        hang=HANGS["in an event"],
        end="raise ValueError('thread')",
        run=IN_A_THREAD,
    )
    assert ended.returncode == 1, ended.stderr
    assert "ValueError: main thread" in ended.stderr


AT_EXIT = """
import atexit
from threadko.rpc import rpc
from threadko.runners import ServiceRunner


class Service:
    name = {name!r}

    @rpc
    def echo(self, value):
        return value


runner = ServiceRunner(config={{"AMQP_URI": {uri!r}, "rpc_exchange": {exchange!r}}})
runner.add_service(Service)
runner.start()
(container,) = runner.containers


@atexit.register
def stop():
    {end}.stop()
    {end}.wait()
    print("stopped", container.being_killed)
"""


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("end", ["container", "runner"])
def test_services_are_stopped_gracefully_by_an_exit_handler(
    version, end, tmp_path, broker_uri, rpc_exchange, name
):
    if why_not(version):
        pytest.skip(why_not(version))
    path = tmp_path / "host.py"
    path.write_text(AT_EXIT.format(uri=broker_uri, exchange=rpc_exchange, name=name, end=end))
    ended = run_python(PYTHONS[version], path)
    assert (ended.returncode, ended.stdout) == (0, "stopped False\n"), ended.stderr
    assert ended.stderr == ""


# Inside a living program


def make_service(service_name):
    class Service:
        name = service_name

        @rpc
        def where(self):
            return threading.current_thread().name

    return Service


def test_containers_of_different_configuration_live_side_by_side(names, broker_uri):
    exchanges = [f"rpc-{names.service('exchange')}" for _ in range(2)]
    configs = [
        {"AMQP_URI": broker_uri, "rpc_exchange": exchange, "max_workers": number}
        for number, exchange in enumerate(exchanges, start=1)
    ]
    containers = [
        ServiceContainer(make_service(names.service()), config=config) for config in configs
    ]
    try:
        for container in containers:
            container.start()
        for container, config in zip(containers, configs, strict=True):
            with ClusterRpcClient(config=config, timeout=TIMEOUT) as client:
                assert container.service_name in client[container.service_name].where()
            assert container.max_workers == config["max_workers"]
    finally:
        for container in containers:
            container.stop()


def test_container_is_started_and_stopped_by_different_threads(name, amqp_config):
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    root = logging.getLogger()
    logging_before = root.level, list(root.handlers)
    interval = sys.getswitchinterval()
    before = set(threading.enumerate())
    for _ in range(3):
        container = ServiceContainer(make_service(name), config=amqp_config)
        with ThreadPoolExecutor(1) as starter:
            starter.submit(container.start).result(TIMEOUT)
        with ClusterRpcClient(config=amqp_config, timeout=TIMEOUT) as client:
            assert name in client[name].where()
        with ThreadPoolExecutor(1) as stopper:
            stopper.submit(container.stop).result(TIMEOUT)
        container.wait()
    assert set(threading.enumerate()) <= before
    assert handlers == {number: signal.getsignal(number) for number in handlers}
    assert (root.level, list(root.handlers)) == logging_before
    assert sys.getswitchinterval() == interval


def test_nothing_is_left_open_when_containers_have_stopped(name, amqp_config):
    def count():
        return len(list(Path("/dev/fd").iterdir()))

    def once(end):
        container = ServiceContainer(make_service(name), config=amqp_config)
        container.start()
        getattr(container, end)()
        container.wait()

    once("stop")
    before = count()
    for end in ("stop", "kill") * 3:
        once(end)
    # A killed link closes its socket by itself, without anybody waiting for it.
    deadline = time.monotonic() + TIMEOUT
    while count() > before and time.monotonic() < deadline:
        for thread in threading.enumerate():
            # The broker of the whole test run stays.
            if thread.name.startswith(f"threadko-{name}-"):
                thread.join(TIMEOUT)
    assert count() <= before


def test_host_hears_of_a_death(name, amqp_config):
    heard = []
    container = ServiceContainer(make_service(name), config=amqp_config)
    container.observers.add(Observer(on_death=lambda *args: heard.append(args)))
    container.start()
    error = ValueError("listener")

    def die():
        raise error

    container.spawn_managed_thread(die)
    with pytest.raises(ValueError, match="listener"):
        container.wait()
    container.stop()  # does nothing, and waits until all have heard
    assert heard == [(container, error)]


def test_service_that_waits_for_itself_is_warned_of(name, amqp_config):
    service_name = name
    warned = threading.Event()

    class Warned(logging.Handler):
        def emit(self, record):
            if "wait for itself" in record.getMessage():
                warned.set()

    class Service:
        name = service_name
        myself = ServiceRpc(service_name)

        @rpc
        def outer(self):
            return self.myself.inner()

        @rpc
        def inner(self):
            return 1

    handler = Warned()
    logging.getLogger("threadko.containers.watch").addHandler(handler)
    config = {**amqp_config, "max_workers": 1, "STUCK_WARNING": 0.4}
    try:
        with run_services(Service, config=config, kill_on_exit=True):
            with ClusterRpcClient(config=amqp_config) as client:
                client[name].outer.call_async()
                assert warned.wait(TIMEOUT)
    finally:
        logging.getLogger("threadko.containers.watch").removeHandler(handler)
