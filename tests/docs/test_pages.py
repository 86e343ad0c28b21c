"""What README and quick start tell a newcomer to do works as it is printed, without a broker."""

import contextlib
import fcntl
import functools
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.support.checkout import ROOT, copy_checkout
from tests.support.newcomer import read_blocks
from tests.support.timing import TIMEOUT

# They are verbs of the Makefile on their own, and this test is a part of what they run.
NOT_HERE = ("make test",)


@functools.cache
def has_own_network():
    """Whether the commands of a page have ports to themselves."""
    enter = "from tests.support.newcomer import enter_own_network as e; raise SystemExit(not e())"
    return not subprocess.run([sys.executable, "-c", enter], cwd=ROOT, check=False).returncode


@contextlib.contextmanager
def taking_turns():
    """One page at a time, of all processes of a test run."""
    with (Path(tempfile.gettempdir()) / "threadko-tests-pages.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def follow(page, folder, *skip):
    """Do what a page says in a copy of the repository, and return a line for each block."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("THREADKO_", "AMQP_URI", "VIRTUAL_ENV", "PYTHONPATH", "MAKE", "CO"))
    }
    with contextlib.nullcontext() if has_own_network() else taking_turns():
        done = subprocess.run(
            [sys.executable, "-m", "tests.support.newcomer", page, *NOT_HERE, *skip],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=40 * TIMEOUT,
            check=False,
        )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return re.findall(r"^\d+\.\d s: (.+)$", done.stdout, re.MULTILINE)


@pytest.mark.parametrize("page", ["README.rst", "docs/quickstart.rst"])
def test_commands_work_once_installed(page, tmp_path):
    folder = copy_checkout(tmp_path / "threadko")
    (folder / ".venv").symlink_to(sys.prefix)
    blocks = list(read_blocks((ROOT / page).read_text(encoding="utf-8")))
    installing = [
        command for block in blocks if "threadko" not in str(block) for command in block.commands
    ]
    lines = follow(page, folder, *(c for c in installing if c.startswith(("make", "python"))))
    assert any("threadko run --dev helloworld" in line for line in lines)
    assert any(line.endswith("&& python") for line in lines)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", ["README.rst", "docs/quickstart.rst", "docs/installation.rst"])
def test_commands_work_from_a_fresh_clone(page, tmp_path):
    folder = copy_checkout(tmp_path / "threadko")
    lines = follow(page, folder)
    text = (ROOT / page).read_text(encoding="utf-8")
    assert len(lines) == len([b for b in read_blocks(text) if b.commands[0] not in NOT_HERE])
    assert Path(folder, ".venv", "bin", "threadko").exists()
