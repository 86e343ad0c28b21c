"""Children are real processes here, which do as they are told by files in a folder."""

import os
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.timing import TIMEOUT, wait_until
from threadko.cli import supervisor as supervisor_room
from threadko.cli.supervisor import Supervisor, measure_pause

CHILD = """
import os, pathlib, signal, sys, threading
from threadko.cli.child import Child
from threadko.web.addresses import parse_address

folder = pathlib.Path(sys.argv[1])
child = Child(int(sys.argv[-1]))
stops = []

def note(number, frame):
    # No event: the handler would wait for the lock that the thread which it interrupts holds.
    if "deaf" not in modes and number != signal.SIGUSR1:
        stops.append(number)

modes = []
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
    signal.signal(number, note)
child.start()
modes = (folder / "mode").read_text().split()
own = modes[child.number - 1] if len(modes) >= child.number else ""
child.tell_imported([str(folder)], succeeded="unimportable" not in modes)
if "unimportable" in modes:
    sys.exit(2)
child.answer_with({"live": lambda: ["hangs"] if own == "hung" else [], "ready": list})
if "door" in modes:
    door = child.open_door(parse_address("127.0.0.1:0"), 0o660)
    (folder / f"door{child.number}").write_text(str(door.address))
if "forks" in modes:
    forked = os.fork()
    if not forked:
        signal.pause()
    (folder / "forked").write_text(str(forked))
child.tell_ready()
(folder / f"pid{child.number}.tmp").write_text(str(os.getpid()))
(folder / f"pid{child.number}.tmp").rename(folder / f"pid{child.number}")
pause = threading.Event()
while not stops:
    pause.wait(0.01)
sys.exit(1 if own == "fails" else 0)
"""


class Left(BaseException):
    """Stands for the end of the process."""


def leave(code):
    raise Left(int(code))


class Family:
    """A supervisor on a thread of its own, and its children."""

    def __init__(self, folder, executor):
        self.folder = folder
        self._executor = executor
        self.set_mode("")

    def set_mode(self, mode):
        (self.folder / "mode").write_text(mode, encoding="utf-8")

    def start(self, count=2, **options):
        command = [sys.executable, "-c", CHILD, str(self.folder)]
        options = {"shutdown_timeout": TIMEOUT, "leave": leave, **options}
        self.supervisor = Supervisor(command, count, **options)
        self.code = self._executor.submit(self.supervisor.run)

    def wait_pid(self, number, other_than=None):
        path = self.folder / f"pid{number}"
        end = time.monotonic() + 2 * TIMEOUT
        while time.monotonic() < end:
            if path.exists() and path.read_text() != str(other_than):
                return int(path.read_text())
            threading.Event().wait(0.01)
        raise AssertionError(f"process {number} does not come up")

    def stop(self):
        self.supervisor.signal(signal.SIGTERM)
        return self.code.result(2 * TIMEOUT)


@pytest.fixture
def family(tmp_path, monkeypatch):
    root = str(Path(__file__).parents[2])
    monkeypatch.setenv("PYTHONPATH", root)
    monkeypatch.setattr(supervisor_room, "_READY_SECONDS", TIMEOUT)
    with ThreadPoolExecutor() as executor:
        made = Family(tmp_path, executor)
        yield made
        for _ in range(3):
            made.supervisor.signal(signal.SIGTERM)


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_children_have_sessions_of_their_own_and_end_with_a_signal(family):
    family.start(2)
    pids = [family.wait_pid(number) for number in (1, 2)]
    assert [os.getsid(pid) for pid in pids] == pids
    assert family.stop() == 0
    assert not any(map(is_alive, pids))


def test_child_that_is_killed_is_started_again(family, caplog):
    family.start(2)
    first, second = family.wait_pid(1), family.wait_pid(2)
    os.kill(first, signal.SIGKILL)
    assert family.wait_pid(1, other_than=first) != first
    assert "process 1 was killed by SIGKILL" in caplog.text
    assert is_alive(second)
    assert family.stop() == 0


def test_child_that_stops_by_itself_is_started_again(family):
    family.start(1)
    first = family.wait_pid(1)
    os.kill(first, signal.SIGTERM)
    family.wait_pid(1, other_than=first)
    assert family.stop() == 0


def test_child_whose_own_child_lives_on_is_started_again(family):
    family.set_mode("forks")
    family.start(1)
    first = family.wait_pid(1)
    forked = int((family.folder / "forked").read_text())
    try:
        os.kill(first, signal.SIGKILL)
        family.wait_pid(1, other_than=first)
        assert family.stop() == 0
    finally:
        os.kill(forked, signal.SIGKILL)
        os.kill(int((family.folder / "forked").read_text()), signal.SIGKILL)


def test_failure_while_stopping_is_the_code(family):
    family.set_mode("ok fails")
    family.start(2)
    family.wait_pid(2)
    assert family.stop() == 1


def test_mistake_at_the_start_ends_all_and_is_told_by_one_child(family):
    family.set_mode("unimportable")
    family.start(3)
    assert family.code.result(2 * TIMEOUT) == 2
    assert not (family.folder / "pid2").exists()


def test_second_signal_kills_and_third_leaves(family):
    family.set_mode("deaf")
    family.start(1)
    pid = family.wait_pid(1)
    for _ in range(2):
        family.supervisor.signal(signal.SIGINT)
    assert is_alive(pid)
    family.supervisor.signal(signal.SIGINT)
    with pytest.raises(Left, match="130"):
        family.code.result(TIMEOUT)
    wait_gone(pid)


def wait_gone(pid):
    end = time.monotonic() + TIMEOUT
    while is_alive(pid):
        assert time.monotonic() < end
        threading.Event().wait(0.01)


def test_child_that_does_not_stop_in_time_is_killed(family, monkeypatch, caplog):
    monkeypatch.setattr(supervisor_room, "_GRACE_SECONDS", 0.1)
    family.set_mode("deaf")
    family.start(1, shutdown_timeout=0.1)
    pid = family.wait_pid(1)
    assert family.stop() == 4
    assert not is_alive(pid)
    assert "SHUTDOWN_TIMEOUT" in caplog.text


def test_child_that_does_not_die_of_the_second_signal_is_killed(family, monkeypatch):
    monkeypatch.setattr(supervisor_room, "_KILL_SECONDS", 0.1)
    family.set_mode("deaf")
    family.start(1)
    family.wait_pid(1)
    family.supervisor.signal(signal.SIGTERM)
    family.supervisor.signal(signal.SIGTERM)
    assert family.code.result(TIMEOUT) == 130


def test_stop_while_a_child_waits_to_be_started_again(family, monkeypatch):
    monkeypatch.setattr(supervisor_room, "measure_pause", lambda failures: 1000.0)
    family.start(1)
    pid = family.wait_pid(1)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: family.supervisor.find_troubles() == ["process 1: it does not run"])
    assert family.supervisor.find_hangs() == []
    assert family.stop() == 1  # what it was started for is not done


def test_health_is_asked_of_all(family):
    family.set_mode("ok hung")
    family.start(2)
    for number in (1, 2):
        family.wait_pid(number)
    assert family.supervisor.find_troubles() == []
    assert family.supervisor.find_hangs() == ["process 2: hangs"]
    family.stop()
    assert family.supervisor.find_troubles() == ["the processes are stopping"]


def test_child_that_does_not_answer_is_not_ready(family, monkeypatch):
    monkeypatch.setattr(supervisor_room, "_READY_SECONDS", 1.0)
    family.start(1)
    pid = family.wait_pid(1)
    os.kill(pid, signal.SIGSTOP)
    try:
        assert family.supervisor.find_troubles() == ["process 1: it does not answer"]
    finally:
        os.kill(pid, signal.SIGCONT)
    assert family.stop() == 0


@pytest.mark.parametrize(
    ("ask", "told"),
    [("find_troubles", ["process 1: it has ended"]), ("find_hangs", [])],  # it hangs no longer
)
def test_child_that_ends_while_it_is_asked_is_not_waited_for(family, ask, told):
    family.start(1)
    pid = family.wait_pid(1)
    os.kill(pid, signal.SIGSTOP)
    with ThreadPoolExecutor() as executor:
        asked = executor.submit(getattr(family.supervisor, ask))
        wait_until(lambda: family.supervisor._answers)
        os.kill(pid, signal.SIGKILL)
        assert asked.result(TIMEOUT) == told
    family.wait_pid(1, other_than=pid)
    family.stop()


def test_one_socket_is_shared_and_closed_at_the_first_signal(family):
    family.set_mode("door")
    family.start(2)
    for number in (1, 2):
        family.wait_pid(number)
    addresses = [(family.folder / f"door{number}").read_text() for number in (1, 2)]
    assert addresses[0] == addresses[1] != "127.0.0.1:0"
    assert family.stop() == 0


def test_stacks_are_asked_of_all_and_nothing_else_happens(family):
    family.start(1)
    pid = family.wait_pid(1)
    family.supervisor.signal(signal.SIGUSR1)
    assert family.supervisor.find_troubles() == []
    assert is_alive(pid)
    assert family.stop() == 0


def test_change_starts_all_again_also_those_that_failed(family, caplog):
    caplog.set_level("INFO")
    family.start(2, reload=True)
    pids = [family.wait_pid(number) for number in (1, 2)]
    source = family.folder / "source.py"
    wait_changed(family, source, 1, pids[0])
    family.wait_pid(2, other_than=pids[1])
    family.set_mode("unimportable")
    source.write_text("broken", encoding="utf-8")
    wait_until(lambda: caplog.text.count("waiting for a change") == 2)
    broken = family.wait_pid(1)
    family.set_mode("")
    wait_changed(family, source, 1, broken)
    assert family.stop() == 0


def wait_changed(family, source, number, pid):
    """Change a file until the child is another; the watch may not have begun."""
    end = time.monotonic() + 2 * TIMEOUT
    count = 0
    path = family.folder / f"pid{number}"
    while path.read_text() == str(pid):
        assert time.monotonic() < end
        count += 1
        source.write_text(f"{count}", encoding="utf-8")
        pause_end = time.monotonic() + 1.5
        while time.monotonic() < pause_end and path.read_text() == str(pid):
            threading.Event().wait(0.02)


@pytest.mark.parametrize("lacks_descriptors", [False, True])
def test_command_that_cannot_be_started_is_tried_again(monkeypatch, caplog, lacks_descriptors):
    def make_pair():
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(supervisor_room, "measure_pause", lambda failures: 0.01)
    supervisor = Supervisor(["/no/such/command"], 1, shutdown_timeout=1)
    if lacks_descriptors:
        monkeypatch.setattr(supervisor_room.socket, "socketpair", make_pair)
    with ThreadPoolExecutor() as executor:
        code = executor.submit(supervisor.run)
        wait_until(lambda: caplog.text.count("cannot be started") > 2)
        supervisor.signal(signal.SIGTERM)
        assert code.result(TIMEOUT) == 1


def test_pauses_grow_to_half_a_minute():
    assert 0.1 <= measure_pause(1) <= 0.2
    assert 0.2 <= measure_pause(2) <= 0.4
    assert 15 <= measure_pause(1000) <= 30
