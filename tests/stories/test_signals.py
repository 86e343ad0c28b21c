"""One, two and three signals to a service in a process of its own, at each stage of its life."""

import signal
import time

import pytest

from tests.support.timing import TIMEOUT

# Guessed: what takes no time at all takes no longer on a machine that has much else to do.
AT_ONCE = TIMEOUT / 4

HEAD = """
from tests.stories.controlled import tell, wait_for
from threadko.extensions import DependencyProvider
from threadko.rpc import rpc
"""

SERVICE = """

class Hook(DependencyProvider):
    def setup(self):
        {setup}

    def stop(self):
        {stop}

    def kill(self):
        {kill}


class Service:
    name = {name!r}
    hook = Hook()

    @rpc
    def hold(self):
        tell("begun")
        wait_for("go on")
"""


def source(name, *, before="", setup="pass", stop="pass", kill="pass"):
    return HEAD + before + SERVICE.format(name=name, setup=setup, stop=stop, kill=kill)


def assert_ends(process, code):
    begun = time.monotonic()
    assert process.wait() == code, process
    assert time.monotonic() - begun < AT_ONCE
    assert not any("Traceback" in line for line in process.stderr), process


HANG = '(tell("hangs"), wait_for("never"))'


@pytest.mark.parametrize(
    "before",
    [
        f"{HANG}",
        f"try:\n    {HANG}\nexcept Exception:\n    pass",
        f"try:\n    {HANG}\nexcept:\n    pass",
        f"class Deleted:\n    def __del__(self):\n        {HANG}\nDeleted()",
    ],
    ids=["plain", "except-exception", "except-all", "del"],
)
def test_first_signal_ends_an_import(run, name, before):
    process = run(source(name, before=f"\n{before}\n", setup='tell("set up")'))
    process.wait_for("hangs")
    process.send_signal(signal.SIGTERM)
    begun = time.monotonic()
    assert process.wait() == 0, process
    assert time.monotonic() - begun < AT_ONCE
    assert process.stdout == ["hangs"]


def test_second_signal_ends_an_import_that_hangs_again(run, name):
    before = f"\ntry:\n    {HANG}\nfinally:\n    {HANG}\n"
    process = run(source(name, before=before))
    process.wait_for("hangs")
    process.send_signal(signal.SIGTERM)
    process.wait_for("hangs")
    process.send_signal(signal.SIGTERM)
    assert_ends(process, 0)


def test_first_signal_ends_a_start_that_hangs_by_the_deadline(run, name):
    process = run(source(name, setup=HANG), SHUTDOWN_TIMEOUT=0.2)
    process.wait_for("hangs")
    process.send_signal(signal.SIGTERM)
    assert_ends(process, 4)


def test_second_signal_ends_a_start_that_hangs(run, name):
    process = run(source(name, setup=HANG))
    process.wait_for("hangs")
    process.send_signal(signal.SIGTERM)
    process.wait_for("stopping", "stderr")
    process.send_signal(signal.SIGTERM)
    assert_ends(process, 130)


@pytest.mark.parametrize("state", ["refusing", "silent"])
def test_any_number_of_signals_ends_a_start_without_a_broker(run, name, proxy, broker_uri, state):
    if state == "refusing":
        proxy.refuse()
    else:
        proxy.hole()
    process = run(source(name), AMQP_URI=proxy.uri_for(broker_uri))
    if state == "refusing":
        process.wait_for("cannot connect", "stderr")
    else:
        proxy.wait_for(lambda: proxy.swallowed["up"] > 0)
    begun = time.monotonic()
    for _ in range(3):
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGINT)
    # How many are heard before the first has done its work is not ours to say; the last may come
    # when all is done and the interpreter ends.
    assert process.wait() in (0, 130, -signal.SIGTERM, -signal.SIGINT), process
    assert time.monotonic() - begun < AT_ONCE
    assert not any("Traceback" in line for line in process.stderr), process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_first_signal_ends_an_idle_service(run, name, number):
    process = run(source(name))
    process.wait_for("services ready", "stderr")
    process.send_signal(number)
    assert_ends(process, 0)


def test_signals_until_the_very_end_leave_no_traceback(run, name):
    process = run(source(name))
    process.wait_for("services ready", "stderr")
    begun = time.monotonic()
    while (code := process.poll()) is None and time.monotonic() - begun < AT_ONCE:
        process.send_signal(signal.SIGTERM)
    # Killed by the last of them when all was done already, if it came as late as that.
    assert code in (0, 130, -signal.SIGTERM), process
    process.wait()
    assert not any("Traceback" in line for line in process.stderr), process


def test_second_signal_ends_a_service_that_waits_for_its_workers(run, name, client):
    process = run(source(name))
    process.wait_for("services ready", "stderr")
    client[name].hold.call_async()
    process.wait_for("begun")
    process.send_signal(signal.SIGTERM)
    process.wait_for("stopping", "stderr")
    process.send_signal(signal.SIGINT)
    assert_ends(process, 130)


def test_first_signal_ends_a_service_whose_stop_hangs_by_the_deadline(run, name):
    process = run(source(name, stop=HANG), SHUTDOWN_TIMEOUT=1)
    process.wait_for("services ready", "stderr")
    process.send_signal(signal.SIGTERM)
    process.wait_for("hangs")
    assert_ends(process, 4)
    assert any('wait_for("never")' in line for line in process.stderr), process


def test_second_signal_ends_a_service_whose_stop_hangs(run, name):
    process = run(source(name, stop=HANG))
    process.wait_for("services ready", "stderr")
    process.send_signal(signal.SIGTERM)
    process.wait_for("hangs")
    process.send_signal(signal.SIGTERM)
    assert_ends(process, 130)


def test_service_ends_by_the_deadline_although_the_network_is_silent(run, name, proxy, broker_uri):
    process = run(source(name), AMQP_URI=proxy.uri_for(broker_uri), SHUTDOWN_TIMEOUT=0.2)
    process.wait_for("services ready", "stderr")
    proxy.hole()
    process.send_signal(signal.SIGTERM)
    begun = time.monotonic()
    assert process.wait() == 4, process
    assert time.monotonic() - begun < AT_ONCE


def test_third_signal_ends_a_service_that_does_not_come_to_the_end_of_its_killing(
    run, name, client
):
    process = run(source(name, kill=HANG))
    process.wait_for("services ready", "stderr")
    client[name].hold.call_async()
    process.wait_for("begun")
    process.send_signal(signal.SIGTERM)
    process.wait_for("stopping", "stderr")
    process.send_signal(signal.SIGTERM)
    process.wait_for("hangs")
    process.send_signal(signal.SIGTERM)
    assert_ends(process, 130)


def test_service_whose_worker_hangs_ends_by_the_deadline_although_its_killing_hangs(
    run, name, client
):
    process = run(source(name, kill=HANG), SHUTDOWN_TIMEOUT=0.2)
    process.wait_for("services ready", "stderr")
    client[name].hold.call_async()
    process.wait_for("begun")
    process.send_signal(signal.SIGTERM)
    process.wait_for("hangs")
    process.send_signal(signal.SIGTERM)
    process.wait_for("killing", "stderr")
    process.send_signal(signal.SIGTERM)
    begun = time.monotonic()
    assert process.wait() == 130, process
    assert time.monotonic() - begun < AT_ONCE
