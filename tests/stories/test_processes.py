"""`threadko run --processes`, and health, with real services and a real broker."""

import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack

import pytest
import requests

from tests.cli.test_backdoor import Client
from tests.conftest import pika_channel
from tests.stories.process import Process
from tests.support.broker import find_free_ports
from tests.support.timing import TIMEOUT, wait_until

HEAD = """
import os, threading, time
from tests.stories.controlled import tell, wait_for
from threadko.rpc import rpc
from threadko.timer import timer
from threadko.web.handlers import http
"""

SERVICE = """
class Service:
    name = {name!r}

    @rpc
    def pid(self):
        return os.getpid()

    @rpc
    def work(self, number):
        time.sleep(0.005)
        return number

    @rpc
    def hold(self):
        tell("begun")
        wait_for("go on")
"""

WEB = """
    @http("GET", "/pid")
    def get_pid(self, request):
        return str(os.getpid())

    @timer(interval=3600)
    def tick(self):
        pass
"""


@pytest.fixture
def serve(run_with):
    """Runs a service in several processes, until all are ready; returns its process."""

    def serve(*arguments, web="", count=2, **config):
        process = run_with(*arguments, web=web, **config)
        for _ in range(count):
            process.wait_for("services ready", "stderr")
        return process

    return serve


@pytest.fixture
def run_with(tmp_path, amqp_config, name):
    with ExitStack() as stack:

        def run_with(*arguments, web="", **config):
            source = HEAD + SERVICE.format(name=name) + web
            (tmp_path / "served.py").write_text(source, encoding="utf-8")
            defines = [f"-d{key}={value}" for key, value in {**amqp_config, **config}.items()]
            command = ("-m", "threadko", "run", *defines, *arguments, "served")
            return stack.enter_context(Process(*command, cwd=tmp_path))

        yield run_with


def find_children(pid):
    listed = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True
    )
    return {int(text) for text in listed.stdout.split()}


def is_gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_child_killed_under_load_loses_no_message_and_is_back_within_seconds(serve, client, name):
    process = serve("--processes", "2", max_workers=4)
    [victim, _] = sorted(find_children(process.pid))
    calls = [client[name].work.call_async(number) for number in range(400)]
    wait_until(lambda: sum(call.done() for call in calls) > 50, "the load runs")
    assert sum(call.done() for call in calls) < 400
    os.kill(victim, signal.SIGKILL)
    begun = time.monotonic()
    process.wait_for("was killed by SIGKILL", "stderr")
    process.wait_for("services ready", "stderr")
    assert time.monotonic() - begun < TIMEOUT / 2
    assert [call.result(TIMEOUT) for call in calls] == list(range(400))
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 0, process


def test_all_processes_share_the_work_and_one_socket(serve, client, name):
    [port] = find_free_ports(1)
    process = serve("--processes", "2", web=WEB, WEB_SERVER_ADDRESS=f"127.0.0.1:{port}")
    children = find_children(process.pid)
    assert len(children) == 2
    pids = set()
    wait_until(lambda: pids.add(client[name].pid()) or pids == children, "both are called")
    url = f"http://127.0.0.1:{port}/pid"
    assert {int(requests.get(url, timeout=TIMEOUT).text) for _ in range(20)} <= children
    assert "each of the 2 processes has its own timers (tick)" in str(process)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 0, process
    with pytest.raises(requests.ConnectionError):
        requests.get(url, timeout=TIMEOUT)


@pytest.mark.long
def test_no_connection_is_refused_while_a_child_is_started_again(serve):
    [port] = find_free_ports(1)
    process = serve("--processes", "2", web=WEB, WEB_SERVER_ADDRESS=f"127.0.0.1:{port}")
    done = threading.Event()
    statuses = []
    errors = []

    def load():
        while not done.is_set():
            try:
                answer = requests.get(f"http://127.0.0.1:{port}/pid", timeout=TIMEOUT)
                statuses.append(answer.status_code)
            except requests.RequestException as error:
                errors.append(error)

    loading = threading.Thread(target=load)
    loading.start()
    try:
        for _ in range(2):
            os.kill(min(find_children(process.pid)), signal.SIGTERM)
            process.wait_for("services ready", "stderr")
    finally:
        done.set()
        loading.join(TIMEOUT)
    assert not errors
    assert len(statuses) > 10
    assert set(statuses) <= {200, 503}
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 0, process


@pytest.mark.long
def test_death_of_the_parent_is_a_graceful_stop(serve, client, name, broker_uri):
    process = serve("--processes", "2")
    children = find_children(process.pid)
    calls = [client[name].work.call_async(number) for number in range(50)]
    wait_until(lambda: any(call.done() for call in calls), "the load runs")
    process.send_signal(signal.SIGKILL)
    wait_until(lambda: all(map(is_gone, children)), "children end")
    process.wait()
    for text in ("SIGTERM: stopping", "services stopped"):
        assert str(process).count(text) == len(children), process
    # Each was answered, or is in the queue for whoever comes next.
    with pika_channel(broker_uri) as channel:
        left = channel.queue_declare(f"rpc-{name}", passive=True).method.message_count
    wait_until(lambda: sum(call.done() for call in calls) + left >= len(calls), "some are lost")


def test_address_that_is_taken_is_one_line_and_code_2(run_with):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = run_with("--processes", "2", web=WEB, WEB_SERVER_ADDRESS=f"127.0.0.1:{port}")
        assert process.wait() == 2, process
    assert any(f"cannot listen on 127.0.0.1:{port}" in line for line in process.stderr)
    assert not any("Traceback" in line for line in process.stderr)


# Health


def ask(url):
    try:
        return requests.get(url, timeout=TIMEOUT).status_code
    except requests.ConnectionError:
        return None


WAYS = pytest.mark.parametrize(
    ("way", "count"),
    [
        pytest.param((), 1, id="alone"),
        pytest.param(("--processes", "2"), 2, id="two", marks=pytest.mark.long),
    ],
)


@pytest.fixture
def health():
    [port] = find_free_ports(1)
    return f"127.0.0.1:{port}"


@WAYS
def test_ready_turns_false_within_a_second_of_sigterm(serve, health, way, count, client, name):
    process = serve(*way, count=count, HEALTH_ADDRESS=health)
    wait_until(lambda: ask(f"http://{health}/ready") == 200, "ready")
    held = client[name].hold.call_async()
    process.wait_for("begun")
    begun = time.monotonic()
    process.send_signal(signal.SIGTERM)
    wait_until(lambda: ask(f"http://{health}/ready") == 503, "not ready")
    print(f"not ready {time.monotonic() - begun:.2f} s after SIGTERM")  # noqa: T201 - the figure
    assert time.monotonic() - begun < TIMEOUT / 4  # a second, of a machine that is not busy
    assert ask(f"http://{health}/live") == 200
    assert not held.done()
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 130, process


@WAYS
def test_broker_that_goes_is_not_ready_but_live_until_it_is_back(
    serve, health, way, count, proxy, broker_uri
):
    uri = proxy.uri_for(broker_uri)
    process = serve(*way, count=count, HEALTH_ADDRESS=health, AMQP_URI=uri)
    wait_until(lambda: ask(f"http://{health}/ready") == 200, "ready")
    proxy.refuse()
    proxy.cut()
    begun = time.monotonic()
    wait_until(lambda: ask(f"http://{health}/ready") == 503, "not ready")
    print(f"not ready {time.monotonic() - begun:.2f} s after SIGTERM")  # noqa: T201 - the figure
    assert time.monotonic() - begun < TIMEOUT / 4  # a second, of a machine that is not busy
    assert ask(f"http://{health}/live") == 200
    proxy.accept()
    wait_until(lambda: ask(f"http://{health}/ready") == 200, "ready again")
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 0, process


@pytest.mark.long
@WAYS
def test_live_turns_false_when_every_worker_hangs(serve, health, way, count, client, name):
    config = {"HEALTH_ADDRESS": health, "HEALTH_HUNG_TIMEOUT": 0.3, "max_workers": 1}
    process = serve(*way, count=count, **config)
    assert ask(f"http://{health}/live") == 200
    for _ in range(count):
        client[name].hold.call_async()
    wait_until(lambda: ask(f"http://{health}/live") == 503, "not live")
    command = [sys.executable, "-m", "threadko", "health", f"-dHEALTH_ADDRESS={health}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT)
    assert done.returncode == 1
    assert "all 1 workers have been busy" in done.stderr
    process.send_signal(signal.SIGTERM)
    process.wait_for("stopping", "stderr")
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 130, process


def test_live_is_served_while_no_broker_is_there(run_with, health):
    [port] = find_free_ports(1)
    process = run_with(HEALTH_ADDRESS=health, AMQP_URI=f"amqp://127.0.0.1:{port}/")
    process.wait_for("cannot connect", "stderr")
    assert ask(f"http://{health}/live") == 200
    assert ask(f"http://{health}/ready") == 503
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 0, process


# Stacks and the backdoor


def test_sigusr1_shows_stacks_with_service_method_call_id_and_age(serve, client, name):
    process = serve(count=1)
    client[name].hold.call_async()
    process.wait_for("begun")
    process.send_signal(signal.SIGUSR1)
    line = process.wait_for(f"runs {name}.hold for", "stderr")
    assert f" s as {name}.hold." in line
    process.wait_for(", in hold", "stderr")
    process.tell("go on")
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 0, process


def find_ports_in_a_row(count):
    """Return the first of so many free ports; below those that the system gives to clients."""
    while True:
        first = random.randrange(20_000, 30_000)
        with ExitStack() as stack:
            try:
                for port in range(first, first + count):
                    stack.enter_context(socket.create_server(("127.0.0.1", port)))
            except OSError:
                continue
        return first


@pytest.mark.long
@pytest.mark.parametrize(
    ("way", "count"), [((), 1), (("--reload",), 1), (("--processes", "2"), 2)], ids=str
)
def test_backdoor_has_the_runner_of_its_process(serve, name, way, count):
    port = find_ports_in_a_row(3)
    process = serve("--backdoor-port", str(port), *way, count=count)
    for number in range(count):
        client = Client(port if count == 1 else port + 1 + number)
        with client.socket:
            assert client.enter("runner.service_names") == f"['{name}']\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 0, process
