"""`python -m tests.support.commands` writes the reference in docs/commands.rst.

It comes from the commands themselves; `tests/cli/test_reference.py` finds out when it is not so.
"""

import inspect
import textwrap
from collections.abc import Iterator
from pathlib import Path

import click

from threadko.cli.main import cli

__all__ = ["PAGE", "make_page", "make_reference"]

PAGE = Path(__file__).parents[2] / "docs" / "commands.rst"

#: All behind this line is made.
MARK = ".. Made by `python -m tests.support.commands`; do not change it by hand.\n"


def make_reference() -> str:
    """Return the help of all commands as reStructuredText."""
    return "\n".join(_iter_sections(cli, ["threadko"]))


def _iter_sections(command: click.Command, names: list[str]) -> Iterator[str]:
    # Not click's own help, whose form differs from release to release.
    title = f"``{' '.join(names)}``"
    yield f"{title}\n{'~' * len(title)}\n"
    yield f"{_format_help(command.help or '')}\n"
    arguments = [_describe(each) for each in command.params if isinstance(each, click.Argument)]
    if arguments:
        yield f"Arguments: {' '.join(arguments)}\n"
    for option in command.params:
        if isinstance(option, click.Option) and not option.hidden:
            yield f"{_describe(option)}\n    {option.help}{_format_default(option)}\n"
    if isinstance(command, click.Group):
        for name in sorted(command.commands):
            yield from _iter_sections(command.commands[name], [*names, name])


def _format_help(text: str) -> str:
    paragraphs = []
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        if paragraph.startswith("\b\n"):
            title, *lines = paragraph.removeprefix("\b\n").splitlines()
            literal = textwrap.indent(textwrap.dedent("\n".join(lines)), "    ")
            paragraph = f"{title}:\n\n{literal}"
        paragraphs.append(paragraph)
    return "\n\n".join(paragraphs)


def _describe(param: click.Parameter) -> str:
    if isinstance(param, click.Argument):
        return f"``{param.metavar or param.human_readable_name}``"
    is_switch = isinstance(param, click.Option) and param.is_flag
    choices = getattr(param.type, "choices", None)
    name = "|".join(choices) if choices else param.type.name.partition(" ")[0].upper()
    metavar = "" if is_switch else f" {param.metavar or name}"
    return f"``{', '.join([*param.opts, *param.secondary_opts])}{metavar}``"


def _format_default(option: click.Option) -> str:
    return f" Default: ``{option.default}``." if option.show_default else ""


def make_page(page: str) -> str:
    """Return the text of the page with the reference behind the mark."""
    return page.partition(MARK)[0] + MARK + "\n" + make_reference()


if __name__ == "__main__":
    PAGE.write_text(make_page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
