"""`threadko shell`: a Python shell that has services at hand, or a script from a pipe."""

import ast
import builtins
import code
import contextlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import click

from threadko import __version__
from threadko.cli.options import (
    ExitCode,
    UserError,
    configuration_options,
    debug_option,
    load_config,
)
from threadko.cli.services import put_first_on_path
from threadko.cli.session import Session
from threadko.configuration import config
from threadko.configuration.settings import BrokerSettings
from threadko.utils.imports import import_from_path
from threadko.utils.redaction import sanitize_url

__all__ = ["INTERFACES", "shell"]

_PIPE = "<stdin>"


@click.command()
@configuration_options
@click.option(
    "--interface",
    type=click.Choice(["plain", "ipython", "bpython", "ptpython"]),
    help="The shell to use; by default the first that is installed of bpython, ipython, ptpython"
    " and plain.",
)
@debug_option
def shell(
    path: str | None, defines: tuple[str, ...], broker: str | None, interface: str | None
) -> int:
    """Open a Python shell with services at hand.

    \b
    In it:
      n.rpc.service.method(...)                   calls a service
      n.rpc["any-service"]["any_method"](...)     reaches every name
      n.dispatch_event("service", "type", {...})  dispatches an event in the name of a service
      n.config                                    the configuration
      n.disconnect()                              closes connections; the next call opens them

    What comes from a pipe is run as a script: an exception ends it with exit code 1.

    \b
    Examples:
      threadko shell
      threadko shell -d AMQP_URI=amqp://user:password@host/vhost --interface plain
      echo 'n.rpc.greeting_service.hello(name="Ada")' | threadko shell
    """
    config.setup(load_config(path, defines, broker).values)
    uri = sanitize_url(BrokerSettings.from_config(config).uri)
    put_first_on_path(str(Path.cwd()))
    session = Session(config)
    names: dict[str, Any] = {"__name__": "__main__", "__builtins__": builtins, "n": session}
    try:
        if not sys.stdin.isatty():
            return _run_script(names)
        banner = f"threadko {__version__}, Python {sys.version.split()[0]}, broker {uri}\n{session}"
        run = _find_interface(interface)
        _run_startup(names)
        with contextlib.suppress(SystemExit):
            run(names, banner)
        return ExitCode.STOPPED
    finally:
        session.disconnect()


# Interfaces: each takes the names that are defined and the first lines to show.


def _run_plain(names: dict[str, Any], banner: str) -> None:
    with _line_editing(names):
        code.interact(banner, local=names, exitmsg="")


def _run_ipython(names: dict[str, Any], banner: str) -> None:
    click.echo(banner)
    import_from_path("IPython.start_ipython")(argv=["--no-banner"], user_ns=names)


def _run_bpython(names: dict[str, Any], banner: str) -> None:
    import_from_path("bpython.embed")(locals_=names, banner=banner)


def _run_ptpython(names: dict[str, Any], banner: str) -> None:
    click.echo(banner)
    history = os.fspath(_history_path().with_name("shell-history-ptpython"))
    import_from_path("ptpython.repl.embed")(names, names, history_filename=history)


#: By name, in the order in which they are looked for: what runs it, and what it needs.
INTERFACES: dict[str, tuple[Callable[[dict[str, Any], str], None], str]] = {
    "bpython": (_run_bpython, "bpython"),
    "ipython": (_run_ipython, "IPython"),
    "ptpython": (_run_ptpython, "ptpython"),
    "plain": (_run_plain, "code"),
}


def _find_interface(wanted: str | None) -> Callable[[dict[str, Any], str], None]:
    for name, (run, module) in INTERFACES.items():
        if wanted in (None, name) and importlib.util.find_spec(module) is not None:
            return run
    raise UserError(f"{wanted} is not installed: pip install {wanted}, or use --interface plain")


def _run_startup(names: dict[str, Any]) -> None:
    """Run the file that `PYTHONSTARTUP` names, once: the shell that follows must not run it too."""
    path = os.environ.pop("PYTHONSTARTUP", None)
    if not path:
        return
    try:
        source = Path(path).read_bytes()
        exec(compile(source, path, "exec"), names)
    except Exception:
        click.echo(f"{path}, which PYTHONSTARTUP names, failed:", err=True)
        traceback.print_exc()


def _history_path() -> Path:
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "threadko" / "shell-history"


@contextlib.contextmanager
def _line_editing(names: dict[str, Any]) -> Iterator[None]:
    """Have history and completion, where Python was built with readline."""
    try:
        readline: ModuleType = importlib.import_module("readline")
    except ImportError:
        yield
        return
    completer = import_from_path("rlcompleter.Completer")(names)
    former = readline.get_completer()
    readline.set_completer(completer.complete)
    is_libedit = "libedit" in (readline.__doc__ or "")
    readline.parse_and_bind("bind ^I rl_complete" if is_libedit else "tab: complete")
    path = _history_path()
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        readline.read_history_file(path)
    try:
        yield
    finally:
        readline.set_completer(former)
        readline.set_history_length(10_000)
        with contextlib.suppress(OSError):
            readline.write_history_file(path)


# A pipe


def _run_script(names: dict[str, Any]) -> int:
    """Run what comes on stdin, statement by statement; values of expressions are printed."""
    try:
        statements = ast.parse(sys.stdin.read(), _PIPE).body
        for statement in statements:
            exec(compile(ast.Interactive([statement]), _PIPE, "single"), names)
    except Exception as error:
        _print_error(error)
        return ExitCode.FAILED
    return ExitCode.STOPPED


def _print_error(error: Exception) -> None:
    """Print an error as Python would, without the frames that are not the script's."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename != _PIPE:
        trace = trace.tb_next
    click.echo("".join(traceback.format_exception(type(error), error, trace)), err=True, nl=False)
