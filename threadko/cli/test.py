"""`threadko test`: pytest, run as `python -m pytest` would run it, in this process."""

import importlib.util
import os
import runpy
import sys

import click

from threadko.cli.options import UserError

__all__ = ["test"]


@click.command(
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def test(arguments: tuple[str, ...]) -> None:
    """Run the tests: pytest with these arguments, and with the modules of this folder at hand.

    The exit code is pytest's. `threadko test --help` is pytest's as well.
    """
    if importlib.util.find_spec("pytest") is None:
        raise UserError("threadko test needs pytest: pip install pytest")
    sys.path.insert(0, os.getcwd())  # noqa: PTH109 (as `python -m` does)
    sys.argv = ["pytest", *arguments]
    # As a command: what pytest is made of is none of our business.
    runpy.run_module("pytest", run_name="__main__", alter_sys=True)
