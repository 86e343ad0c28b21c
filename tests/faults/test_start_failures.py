"""One of two services cannot start: neither runs, and the command says so by its code."""

import pytest

from tests.stories.process import Process

SERVICES = """
from tests.stories.controlled import tell
from threadko.extensions import DependencyProvider
from threadko.rpc import rpc


class Told(DependencyProvider):
    def stop(self):
        tell("stop")

    def kill(self):
        tell("kill")


class Failing(DependencyProvider):
    def {hook}(self):
        raise LookupError("on purpose")


class First:
    name = {first!r}
    told = Told()

    @rpc
    def echo(self, value):
        return value


class Second:
    name = {second!r}
    failing = Failing()

    @rpc
    def echo(self, value):
        return value
"""


@pytest.mark.parametrize("hook", ["setup", "start"])
def test_command_ends_with_code_1_when_one_service_cannot_start(tmp_path, names, amqp_config, hook):
    first, second = names.service("first"), names.service("second")
    (tmp_path / "failing.py").write_text(SERVICES.format(first=first, second=second, hook=hook))
    defines = [part for key in amqp_config for part in ("-d", f"{key}={amqp_config[key]}")]
    with Process("-m", "threadko", "run", "failing", *defines, cwd=tmp_path) as process:
        assert process.wait() == 1, process
        assert any("LookupError: on purpose" in line for line in process.stderr), process
        assert not any("services ready" in line for line in process.stderr), process
        assert process.stdout in (["kill"], []), process
