"""What the commands have in common: options, configuration from them, and errors in one line."""

import functools
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from enum import IntEnum
from typing import Any, TypeVar

import click

from threadko.configuration.keys import find_key
from threadko.configuration.loader import load_file
from threadko.configuration.sources import (
    SourcedConfig,
    merge_sources,
    read_defines,
    read_environment,
)
from threadko.constants import AMQP_URI_CONFIG_KEY
from threadko.exceptions import ConfigurationError

__all__ = [
    "ExitCode",
    "NoBrokerError",
    "UserError",
    "configuration_options",
    "debug_option",
    "load_config",
    "own_command",
]

Command = TypeVar("Command", bound=Callable[..., Any])


class ExitCode(IntEnum):
    """How the command ended."""

    STOPPED = 0
    FAILED = 1
    USAGE = 2
    BROKER = 3
    UNFINISHED = 4
    KILLED = 130


class UserError(click.ClickException):
    """Something for the user to put right: one line on stderr, which says what to do."""

    exit_code = ExitCode.USAGE

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


class NoBrokerError(UserError):
    """The broker does not let us in, or is not there in time."""

    exit_code = ExitCode.BROKER


def own_command() -> list[str]:
    """Return the command line of another `threadko` by this Python.

    A module of the current folder that is named `random` or `logging` does not stand in for
    Python's there; 3.10 has no option for that.
    """
    safely = ["-P"] if sys.version_info >= (3, 11) else []
    return [sys.executable, *safely, "-m", "threadko"]


def configuration_options(command: Command) -> Command:
    """Add the options that configuration comes from; `load_config` takes their values."""
    for option in (
        click.option("--broker", metavar="URI", help="AMQP_URI, if the configuration has none."),
        click.option(
            "-d",
            "--define",
            "defines",
            metavar="KEY=VALUE",
            multiple=True,
            help="One entry of the configuration, its value in YAML; wins over all else.",
        ),
        click.option("-c", "--config", "path", metavar="FILE", help="A YAML file to configure by."),
    ):
        command = option(command)
    return command


def load_config(
    path: str | None,
    defines: Iterable[str],
    broker: str | None,
    environ: Mapping[str, str] | None = None,
) -> SourcedConfig:
    """Return the configuration that the options and the environment ask for.

    `environ` is that of the process by default. Raises `ConfigurationError` if something is wrong.
    """
    environ = os.environ if environ is None else environ
    file = load_file(path, environ) if path is not None else {}
    environment = read_environment(environ)
    defined = read_defines(defines)
    names = (*file, *environment, *defined)
    if broker is not None and AMQP_URI_CONFIG_KEY not in map(find_key, names):
        defined[AMQP_URI_CONFIG_KEY] = broker
    return merge_sources(file=file, environment=environment, defines=defined)


def debug_option(command: Command) -> Command:
    """Make one line of each `UserError` and `ConfigurationError`, and add `--debug` for more."""

    @click.option("--debug", is_flag=True, help="Show the traceback of what is wrong.")
    @functools.wraps(command)
    def guarded(*args: Any, debug: bool, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except (ConfigurationError, UserError) as exc:
            if debug:
                click.echo(traceback.format_exc(), err=True, nl=False)
            if isinstance(exc, UserError):
                raise
            raise UserError(str(exc)) from exc

    return guarded  # type: ignore[return-value]  # wraps() keeps its signature
