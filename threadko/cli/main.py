"""The group of all commands."""

import sys

import click

from threadko import __version__
from threadko.cli.broker import broker
from threadko.cli.dead import dead
from threadko.cli.health import health
from threadko.cli.options import ExitCode
from threadko.cli.run import run
from threadko.cli.shell import shell
from threadko.cli.show_config import show_config
from threadko.cli.test import test

__all__ = ["cli", "main"]


@click.group()
@click.version_option(__version__, prog_name="threadko", message="%(prog)s, version %(version)s")
def cli() -> None:
    """Microservices on standard CPython threads.

    \b
    Examples:
      threadko run --dev helloworld
      threadko shell
      threadko COMMAND --help
    """


cli.add_command(broker)
cli.add_command(dead)
cli.add_command(health)
cli.add_command(run)
cli.add_command(shell)
cli.add_command(show_config)
cli.add_command(test)


def main() -> None:
    """Run the command line of this process, and end it with the command's exit code."""
    # Not standalone mode: that makes 0 of the code that a command returns.
    try:
        code = cli.main(prog_name="threadko", standalone_mode=False)
    except click.ClickException as exc:
        exc.show()
        code = exc.exit_code
    except click.Abort:
        code = ExitCode.KILLED
    sys.exit(code or 0)
