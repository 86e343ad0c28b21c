"""The group of all commands."""

import sys

import click

from threadko import __version__
from threadko.cli.options import ExitCode
from threadko.cli.run import run

__all__ = ["cli", "main"]


@click.group()
@click.version_option(__version__, prog_name="threadko", message="%(prog)s, version %(version)s")
def cli() -> None:
    """Microservices on standard CPython threads."""


cli.add_command(run)


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
