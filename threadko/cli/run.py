"""`threadko run`."""

import logging
import os
import signal
import sys
from pathlib import Path
from types import FrameType

import click

from threadko import logs
from threadko.cli.options import ExitCode, configuration_options, debug_option, load_config
from threadko.cli.process import Shell, handling_signals
from threadko.cli.services import import_services, put_first_on_path
from threadko.configuration import config
from threadko.configuration.settings import BrokerSettings, ProcessSettings, warn_near_misses
from threadko.configuration.sources import ENVIRONMENT_PREFIX
from threadko.runners import ServiceRunner
from threadko.utils.redaction import sanitize_url

__all__ = ["run"]

_log = logging.getLogger(__name__)


class _LeftEarly(BaseException):
    """A signal came before anything ran. No Exception, so that no module swallows it."""


class _LeaveEarly:
    """Handles signals by leaving, and remembers that: a bare ``except:`` swallows even this."""

    def __init__(self) -> None:
        self.heard = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.heard = True
        raise _LeftEarly(signal.Signals(number).name)

    def check(self) -> None:
        if self.heard:
            raise _LeftEarly


@click.command()
@click.argument("services", metavar="MODULE[:CLASS]...", nargs=-1, required=True)
@configuration_options
@debug_option
def run(
    services: tuple[str, ...], path: str | None, defines: tuple[str, ...], broker: str | None
) -> int:
    """Run the services in MODULE, or the one in CLASS, until a signal stops them.

    The current folder comes first where modules are looked for. SIGTERM and SIGINT let running
    calls finish, a second one does not. Each key of the configuration can also be given as
    THREADKO_<KEY> in the environment.
    """
    code: int = ExitCode.STOPPED
    leave_early = _LeaveEarly()
    try:
        with handling_signals(leave_early):
            config.setup(load_config(path, defines, broker).values)
            settings = ProcessSettings.from_config(config)
            logs.configure(settings.logging)
            warn_near_misses(config)
            warn_near_misses(os.environ, ENVIRONMENT_PREFIX)
            shell = Shell(_make_runner(services))
            sys.setswitchinterval(settings.switch_interval)
            leave_early.check()
            code = shell.run_with_signals()
    except _LeftEarly:
        _log.info("stopped before anything ran")
    return code


def _make_runner(services: tuple[str, ...]) -> ServiceRunner:
    put_first_on_path(str(Path.cwd()))
    classes = import_services(services)
    runner = ServiceRunner()
    for cls in classes:
        runner.add_service(cls)
    uri = sanitize_url(BrokerSettings.from_config(config).uri)
    _log.info("starting services: %s (broker %s)", ", ".join(runner.service_names), uri)
    return runner
