"""`threadko show-config`: the configuration that `threadko run` would have, as YAML."""

from typing import Any

import click

from threadko.cli.options import ExitCode, configuration_options, debug_option, load_config
from threadko.configuration.keys import KEYS
from threadko.configuration.loader import dump
from threadko.configuration.sources import Source, SourcedConfig
from threadko.utils.redaction import mask_secrets

__all__ = ["show_config"]

# In the order in which they win.
_TITLES = {
    Source.DEFINE: "-d",
    Source.ENVIRONMENT: "environment",
    Source.FILE: "file",
    Source.DEFAULT: "default",
}


@click.command("show-config")
@configuration_options
@click.option("--secrets", is_flag=True, help="Show passwords, tokens and keys too.")
@click.option(
    "--sources", is_flag=True, help="Say where each value comes from, and show the defaults."
)
@debug_option
def show_config(
    path: str | None,
    defines: tuple[str, ...],
    broker: str | None,
    secrets: bool,
    sources: bool,
) -> int:
    """Show the configuration as `threadko run` would have it, in YAML.

    What looks like a secret is masked. Nothing is checked, and no module is imported.

    \b
    Examples:
      threadko show-config -c config.yaml
      threadko show-config -c config.yaml -d max_workers=5 --sources
    """
    merged = load_config(path, defines, broker)
    shown = _show_sources(merged, secrets) if sources else _show(merged.values, secrets)
    click.echo(shown, nl=False)
    return ExitCode.STOPPED


def _show(entries: dict[str, Any], secrets: bool) -> str:
    return dump(entries if secrets else mask_secrets(entries))


def _show_sources(merged: SourcedConfig, secrets: bool) -> str:
    """Return the entries in groups, each under a comment that names its source."""
    groups = []
    for source, title in _TITLES.items():
        keys = [key for key, given in merged.sources.items() if given is source]
        entries = {
            key: merged.values[key] if key in merged.values else KEYS[key].default for key in keys
        }
        if entries:
            groups.append(f"# {title}\n{_show(entries, secrets)}")
    return "\n".join(groups)
