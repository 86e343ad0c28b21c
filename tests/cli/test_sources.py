import os
import queue
import threading

import pytest

from tests.support.timing import TIMEOUT
from threadko.cli import sources
from threadko.cli.sources import SourceWatch


@pytest.fixture(params=["watchfiles", "times"])
def watch(request, tmp_path, monkeypatch):
    """A watch of two folders and a file; what it tells of goes into `told`."""
    if request.param == "times":
        monkeypatch.setattr(sources, "_find_watchfiles", lambda: None)
        monkeypatch.setattr(sources, "_LOOK_SECONDS", 0.02)
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "one.py").write_text("1", encoding="utf-8")
    (tmp_path / "config.yaml").write_text("{}", encoding="utf-8")
    made = SourceWatch([str(tmp_path / "config.yaml")], lambda paths: made.told.put(paths))
    made.told = queue.SimpleQueue()
    made.start()
    made.look_into([str(tmp_path / "a")])
    made.look_into([str(tmp_path / "a"), str(tmp_path / "b"), str(tmp_path / "absent")])
    yield made
    made.close()


def test_other_files_beside_a_watched_one_are_no_news_when_their_folder_comes(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(sources, "_find_watchfiles", lambda: None)
    monkeypatch.setattr(sources, "_LOOK_SECONDS", 0.02)
    config, module = tmp_path / "config.yaml", tmp_path / "module.py"
    for path in (config, module):
        path.write_text("", encoding="utf-8")
    told = queue.SimpleQueue()
    made = SourceWatch([str(config)], told.put)
    looks, looked = made._read_times, threading.Semaphore(0)

    def look(folders):
        times = looks(folders)
        looked.release()
        return times

    made._read_times = look
    made.start()
    for _ in range(3):
        assert looked.acquire(timeout=TIMEOUT)
    made.look_into([str(tmp_path)])
    for _ in range(3):
        assert looked.acquire(timeout=TIMEOUT)
    assert told.empty()
    change(config)
    assert told.get(timeout=TIMEOUT) == [str(config)]
    made.close()


def change(path, text="2"):
    path.write_text(text, encoding="utf-8")
    # Some file systems count in whole ticks of the clock.
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1_000_000))


def wait_told(watch, path, act):
    """Act until the watch, which may not have begun yet, tells of it."""
    for _ in range(50):
        act()
        try:
            told = watch.told.get(timeout=TIMEOUT / 10)
        except queue.Empty:
            continue
        assert told == [str(path)]
        return
    raise AssertionError("nothing is told")


@pytest.mark.parametrize("name", ["a/one.py", "b/one.py", "b/new.py", "config.yaml"])
def test_what_changes_or_is_new_is_told(watch, tmp_path, name):
    path = tmp_path / name
    if name == "b/new.py":
        # Once the watch has begun, which a change shows.
        wait_told(watch, tmp_path / "b" / "one.py", lambda: change(tmp_path / "b" / "one.py"))
        while not watch.told.empty():
            watch.told.get()
    wait_told(watch, path, lambda: change(path))


def test_what_is_removed_is_told(watch, tmp_path):
    one, other = tmp_path / "a" / "one.py", tmp_path / "b" / "one.py"
    wait_told(watch, one, lambda: change(one))
    other.unlink()
    told = [str(one)]
    while told == [str(one)]:
        told = watch.told.get(timeout=TIMEOUT)
    assert told == [str(other)]


def test_other_files_are_passed_over(watch, tmp_path):
    (tmp_path / "a" / "notes.txt").write_text("x", encoding="utf-8")
    (tmp_path / "other.py").write_text("x", encoding="utf-8")
    one = tmp_path / "a" / "one.py"
    wait_told(watch, one, lambda: change(one))


def test_watchfiles_that_fails_is_done_without(tmp_path, monkeypatch):
    def fail(*folders, **options):
        raise OSError("no more watches")

    monkeypatch.setattr(sources, "_find_watchfiles", lambda: fail)
    monkeypatch.setattr(sources, "_LOOK_SECONDS", 0.02)
    told = queue.SimpleQueue()
    watch = SourceWatch([], told.put)
    watch.told = told
    watch.start()
    watch.look_into([str(tmp_path)])
    path = tmp_path / "one.py"
    wait_told(watch, path, lambda: change(path))
    watch.close()


def test_watch_that_was_never_started_is_closed():
    SourceWatch([], print).close()


def test_watchfiles_is_done_without_where_there_is_none(monkeypatch):
    monkeypatch.setattr(sources.importlib.util, "find_spec", lambda name: None)
    assert sources._find_watchfiles() is None
