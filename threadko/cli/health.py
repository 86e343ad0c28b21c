"""`threadko health`: ask services that run whether they are well, for probes that run a command."""

import http.client
import socket

import click

from threadko.cli.options import (
    ExitCode,
    UserError,
    configuration_options,
    debug_option,
    load_config,
)
from threadko.configuration.settings import HealthSettings
from threadko.web.addresses import BindAddress, UnixAddress, parse_address

__all__ = ["health"]

_EVERYWHERE = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}


@click.command()
@configuration_options
@click.option("--ready", is_flag=True, help="Ask whether work can come in, and not only for life.")
@click.option(
    "--timeout",
    default=5.0,
    show_default=True,
    type=click.FloatRange(min=0, min_open=True),
    help="Seconds to wait for the answer.",
)
@debug_option
def health(
    path: str | None, defines: tuple[str, ...], broker: str | None, ready: bool, timeout: float
) -> int:
    """Ask the services at HEALTH_ADDRESS whether they are live, or ready.

    Exit code 0 means yes; 1 means no, or no answer, and stderr says why. No module is imported.

    \b
    Examples:
      threadko health -c config.yaml
      threadko health -d HEALTH_ADDRESS=127.0.0.1:8001 --ready
    """
    address = HealthSettings.from_config(load_config(path, defines, broker).values).address
    if address is None:
        raise UserError(
            "there is no HEALTH_ADDRESS to ask at: give the services and this command the same"
            " one, such as -d HEALTH_ADDRESS=127.0.0.1:8001"
        )
    where = parse_address(address, "HEALTH_ADDRESS")
    try:
        status, text = _ask(where, "/ready" if ready else "/live", timeout)
    except (OSError, http.client.HTTPException) as error:
        # What a stranger there has written is not for a terminal.
        why = error if isinstance(error, OSError) else "what listens there speaks no HTTP"
        click.echo(f"no answer from {where}: {why}", err=True)
        return ExitCode.FAILED
    is_well = status == http.client.OK
    click.echo(text.rstrip("\n"), err=not is_well)
    return ExitCode.STOPPED if is_well else ExitCode.FAILED


def _ask(where: BindAddress | UnixAddress, path: str, timeout: float) -> tuple[int, str]:
    connection = _Connection(where, timeout)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode(errors="replace")
    finally:
        connection.close()


class _Connection(http.client.HTTPConnection):
    """An HTTP connection to a port or to a unix socket."""

    def __init__(self, where: BindAddress | UnixAddress, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._where = where

    def connect(self) -> None:
        if isinstance(self._where, UnixAddress):
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.sock.settimeout(self.timeout)
            self.sock.connect(self._where.path)
        else:
            host = _EVERYWHERE.get(self._where.address, self._where.address)
            self.sock = socket.create_connection((host, self._where.port), self.timeout)
