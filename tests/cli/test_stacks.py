import os
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

from tests.support.timing import TIMEOUT
from threadko.cli.stacks import format_stacks


class Worker:
    service_name, call_id = "shop", "shop.sell.1"
    entrypoint = SimpleNamespace(method_name="sell")


def test_each_thread_is_told_with_its_worker_and_like_ones_once():
    held = threading.Event()
    ready = threading.Barrier(4)

    def wait_here():
        ready.wait(TIMEOUT)
        held.wait(TIMEOUT)

    def work():
        ready.wait(TIMEOUT)
        held.wait(TIMEOUT)

    threads = [
        threading.Thread(target=target, name=name)
        for name, target in (("idle-1", wait_here), ("idle-2", wait_here), ("busy-1", work))
    ]
    for thread in threads:
        thread.start()
    try:
        ready.wait(TIMEOUT)
        end = time.monotonic() + TIMEOUT
        text = ""
        wanted = ("thread idle-1\nthread idle-2:\n", "for 5.0 s")
        while not all(each in text for each in wanted) and time.monotonic() < end:
            workers = {Worker: (threads[2].ident, time.monotonic() - 5)}
            container = SimpleNamespace(running_workers=lambda workers=workers: workers)
            text = format_stacks([container])
    finally:
        held.set()
        for thread in threads:
            thread.join(TIMEOUT)
    assert "thread busy-1, runs shop.sell for 5.0 s as shop.sell.1:\n" in text
    assert "thread idle-1\nthread idle-2:\n" in text
    assert "in work\n" in text
    assert "thread MainThread" in text


EARLY = """
import os, signal, sys, threading
from threadko.cli.stacks import dumping_early
with dumping_early():
    print("begun", flush=True)
    sys.stdin.readline()
os.kill(os.getpid(), signal.SIGUSR1)
print("lives", flush=True)
"""


def test_stacks_come_early_and_the_signal_ends_no_process():
    process = subprocess.Popen(
        [sys.executable, "-c", EARLY],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout.readline() == "begun\n"
        os.kill(process.pid, signal.SIGUSR1)
        lines = iter(process.stderr.readline, "")
        assert any("most recent call first" in line for line in lines)
        out, _ = process.communicate("\n", timeout=TIMEOUT)
        assert out == "lives\n"
        assert process.returncode == 0
