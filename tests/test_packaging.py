"""One version everywhere, and distributions that work in an empty environment."""

import re
import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

import threadko
from tests.support.checkout import copy_checkout
from tests.support.timing import TIMEOUT

ROOT = Path(__file__).parents[1]

SMOKE = """
import importlib.resources
import threadko
from threadko.containers import ServiceContainer
from threadko.devbroker import DevBroker
from threadko.rpc import rpc
from threadko.standalone.rpc import ServiceRpcClient

assert "site-packages" in threadko.__file__, threadko.__file__
assert importlib.resources.files("threadko").joinpath("py.typed").is_file()

class Greeter:
    name = "greeter"

    @rpc
    def greet(self, name):
        return f"Hello, {name}!"

with DevBroker() as broker:
    config = {"AMQP_URI": broker.uri}
    container = ServiceContainer(Greeter, config=config)
    container.start()
    with ServiceRpcClient("greeter", config=config, timeout=30) as client:
        print(client.greet("Ada"))
    container.stop()
"""


def test_version_heads_the_changes():
    changes = (ROOT / "CHANGES.rst").read_text(encoding="utf-8")
    versions = re.findall(r"^(\d+\.\d+\.\d+\S*) \(.+\)\n-+$", changes, re.MULTILINE)
    assert versions[0] == threadko.__version__


def test_each_requirement_has_its_least_release_and_an_upper_bound_where_one_is_known():
    lines = (ROOT / "requirements" / "base.txt").read_text(encoding="utf-8").split()
    for line in lines:
        assert re.fullmatch(r"[A-Za-z]+>=\d+(\.\d+)*(,<\d+(\.\d+)*)?", line), line
    bounded = {line.partition(">")[0] for line in lines if "<" in line}
    assert bounded >= {"cheroot", "pika"}, "what is subclassed may change beneath us"


def test_version_stands_in_one_place():
    for name in ("setup.py", "pyproject.toml", "docs/conf.py", "Makefile"):
        assert threadko.__version__ not in (ROOT / name).read_text(encoding="utf-8"), name


@pytest.fixture(scope="module")
def distributions(tmp_path_factory):
    """Build a source distribution, and from that a wheel, as whoever publishes does."""
    source = copy_checkout(tmp_path_factory.mktemp("checkout") / "threadko")
    dist = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", str(dist), str(source))
    (sdist,) = dist.glob("*.tar.gz")
    (wheel,) = dist.glob("*.whl")
    return sdist, wheel


@pytest.mark.long
@pytest.mark.timeout(900)
def test_distributions_work_in_an_empty_environment(distributions, tmp_path):
    for distribution in distributions:
        venv = tmp_path / f"venv{distribution.suffix}"
        run(sys.executable, "-m", "venv", str(venv))
        python = str(venv / "bin" / "python")
        run(python, "-m", "pip", "--disable-pip-version-check", "install", str(distribution))
        command = str(venv / "bin" / "threadko")
        assert run(command, "--version") == f"threadko, version {threadko.__version__}\n"
        assert run(python, "-W", "error", "-c", SMOKE, cwd=tmp_path) == "Hello, Ada!\n"


@pytest.mark.long
@pytest.mark.timeout(900)
def test_distributions_hold_what_they_should(distributions):
    sdist, wheel = distributions
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (metadata,) = (name for name in names if name.endswith("/METADATA"))
        fields = Parser().parsestr(archive.read(metadata).decode())
    assert fields["Version"] == threadko.__version__
    assert fields["Requires-Python"] == ">=3.10"
    assert "threadko/py.typed" in names
    assert {name.partition("/")[0] for name in names if "dist-info" not in name} == {"threadko"}
    with tarfile.open(sdist) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    for name in (
        "CHANGES.rst",
        "requirements/base.txt",
        "docs/index.rst",
        "tests/test_packaging.py",
    ):
        assert name in held
    assert [name for name in held if name.startswith(("docs/_build", "docs/api"))] == []


def run(*command, cwd=None):
    """Run a command that must succeed, and return what it printed."""
    done = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=20 * TIMEOUT, check=False
    )
    assert done.returncode == 0, f"{command}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done.stdout
