"""`threadko broker`: the development broker in the foreground.

As a child of `threadko run --dev` it is told its users and vhosts on its standard input, and ends
when that closes, so that it outlives its parent by no means: neither by a crash nor by SIGKILL.
"""

import contextlib
import errno
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Mapping
from types import FrameType
from typing import Any

import click

from threadko import logs
from threadko.cli.inbox import handling_signals
from threadko.cli.options import ExitCode, UserError, debug_option
from threadko.devbroker import DevBroker

__all__ = ["READY", "broker"]

#: What the child writes when it takes connections.
READY = "ready"


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--port",
    default=5672,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="The port; 0 for a free one.",
)
@click.option("--allow-remote", is_flag=True, help="Allow an address that others can reach.")
@click.option("--as-child", is_flag=True, hidden=True)
@debug_option
def broker(host: str, port: int, allow_remote: bool, as_child: bool) -> int:
    """Run the development broker until a signal stops it.

    It speaks AMQP 0-9-1 and keeps everything in memory. It is for development and tests, and no
    broker for production.

    \b
    Examples:
      threadko broker
      threadko broker --port 5673
    """
    told: Mapping[str, Any] = json.loads(sys.stdin.readline() or "{}") if as_child else {}
    try:
        server = DevBroker(host, port, allow_remote=allow_remote, **told)
    except ValueError as error:
        raise UserError(f"{error} (--allow-remote)") from error
    _listen(server)
    if as_child:
        # The terminal's signals are for the parent, which says itself when it is over.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        threading.Thread(
            target=_watch_parent, args=(server,), name="threadko-broker-parent-0", daemon=True
        ).start()
        print(READY, flush=True)  # noqa: T201 (for the parent to read)
        server.serve()
        return ExitCode.STOPPED
    logs.configure(None)
    click.echo(f"broker at {server.uri}")
    click.echo("for development and tests, never for production: nothing is kept when it ends")

    def stop(number: int, frame: FrameType | None) -> None:
        server.request_stop()

    with handling_signals(stop):
        server.serve()
    return ExitCode.STOPPED


def _listen(server: DevBroker) -> None:
    try:
        server.listen()
    except OSError as error:
        where = f"{server.host}:{server.port}"
        if error.errno == errno.EADDRINUSE:
            raise UserError(
                f"{where} is taken, by RabbitMQ most likely: use that, stop it, or give another"
                " --port"
            ) from error
        raise UserError(
            f"cannot listen on {where}: {error.strerror}; give another --host or --port"
        ) from error


def _watch_parent(server: DevBroker) -> None:
    with contextlib.suppress(OSError):
        while os.read(sys.stdin.fileno(), 4096):
            pass
    logging.getLogger(__name__).debug("the parent has ended")
    server.request_stop()
