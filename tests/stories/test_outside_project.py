"""Projects of users, far from this repository: installed, with a service and its tests."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.timing import TIMEOUT

ROOT = Path(__file__).parents[2]
PARTS = ("setup.py", "pyproject.toml", "README.rst", "LICENSE", "requirements", "threadko")

SERVICE = """\
from threadko.rpc import ServiceRpc, rpc


class Doubler:
    name = "doubler"

    @rpc
    def double(self, value):
        return 2 * value


class Front:
    name = "front"

    doubler = ServiceRpc("doubler")

    @rpc
    def quadruple(self, value):
        return self.doubler.double(self.doubler.double(value))
"""

PYTEST_FILE = """\
from myproject import Doubler, Front
from threadko.testing.services import entrypoint_hook, worker_factory
from threadko.testing.utils import get_container


def test_alone():
    front = worker_factory(Front)
    front.doubler.double.side_effect = lambda value: value + 1
    assert front.quadruple(1) == 3


def test_together(runner_factory, rabbit_config):
    runner = runner_factory(Front, Doubler)
    runner.start()
    with entrypoint_hook(get_container(runner, Front), "quadruple") as quadruple:
        assert quadruple(3) == 12
"""

UNITTEST_FILE = """\
from myproject import Doubler, Front
from threadko.testing.cases import ServiceTestCase


class FrontTest(ServiceTestCase):
    def test_alone(self):
        front = self.worker_factory(Front)
        front.doubler.double.side_effect = lambda value: value + 1
        self.assertEqual(front.quadruple(1), 3)

    def test_together(self):
        runner = self.start(Front, Doubler)
        front = self.get_container(runner, Front)
        self.assertEqual(self.fire(front, "quadruple", 3), 12)
"""


def run(command, folder, timeout=15 * TIMEOUT):
    """Run a command as a user would, who has nothing of ours in the environment."""
    environ = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "COVERAGE", "COV_", "PYTEST", "THREADKO", "AMQP_URI"))
    }
    done = subprocess.run(
        command, cwd=folder, env=environ, capture_output=True, text=True, timeout=timeout
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def install(tmp_path):
    """Make an environment with threadko, and with other packages; return its folder of programs."""

    def install(*packages):
        source = tmp_path / "source"  # a copy, since building leaves things behind
        source.mkdir()
        for part in PARTS:
            copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
            copy(ROOT / part, source / part)
        run([sys.executable, "-m", "venv", "environment"], tmp_path)
        programs = tmp_path / "environment" / "bin"
        pip = [programs / "python", "-m", "pip", "--quiet", "--disable-pip-version-check"]
        run([*pip, "install", source, *packages], tmp_path)
        return programs

    return install


@pytest.fixture
def project(tmp_path):
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "myproject.py").write_text(SERVICE, encoding="utf-8")
    (folder / "test_with_pytest.py").write_text(PYTEST_FILE, encoding="utf-8")
    (folder / "test_with_unittest.py").write_text(UNITTEST_FILE, encoding="utf-8")
    return folder


@pytest.mark.long
@pytest.mark.timeout(30 * TIMEOUT)
def test_project_is_tested_by_pytest_and_by_unittest(install, project):
    programs = install()
    command = [programs / "python", "-W", "error", "-m", "unittest", "-v", "test_with_unittest"]
    said = run(command, project)  # before pytest is installed
    assert "Ran 2 tests" in said
    run([programs / "python", "-m", "pip", "--quiet", "install", "pytest"], project)
    assert "4 passed" in run([programs / "python", "-m", "pytest", "-W", "error"], project)
    assert "4 passed" in run([programs / "threadko", "test"], project)


NAMEKO_FILE = """\
import nameko
import threadko
from nameko.testing.services import worker_factory as nameko_worker_factory


def test_these_fixtures_are_meant(container_factory, rabbit_config):
    assert type(container_factory).__module__ == "threadko.testing.factories"
    assert threadko.config["AMQP_URI"].startswith("amqp://guest:guest@127.0.0.1:")
    assert "AMQP_URI" not in nameko.config


def test_options_are_those_of_nameko(request):
    assert request.config.getoption("RABBIT_AMQP_URI").startswith("pyamqp://")
"""


@pytest.mark.interop
@pytest.mark.timeout(30 * TIMEOUT)
def test_plugin_lives_beside_that_of_nameko(install, project):
    programs = install("nameko==3.0.0rc11", "setuptools<81", "pytest")
    (project / "conftest.py").write_text(
        "from threadko.testing.pytest import *\n", encoding="utf-8"
    )
    (project / "test_with_nameko.py").write_text(NAMEKO_FILE, encoding="utf-8")
    said = run([programs / "python", "-m", "pytest"], project)
    assert "6 passed" in said
    assert "nameko" in said.partition("plugins:")[2].splitlines()[0]
    assert "threadko" in said.partition("plugins:")[2].splitlines()[0]
    help_text = run([programs / "python", "-m", "pytest", "--help"], project)
    assert help_text.count("--amqp-uri") == 1
    # Without nameko's plugin the options are ours.
    command = [programs / "python", "-m", "pytest", "-p", "no:pytest_nameko", "test_with_pytest.py"]
    assert "2 passed" in run([*command, "--amqp-ssl-port", "1"], project)
