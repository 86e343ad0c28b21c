"""Finds in the pages what a reader may type into a terminal.

That is each line of a literal block, and each literal in the text, that begins with the name of a
program. The files that a page includes are read like literal blocks; there commands stand in
comments, and a .txt is what a command has printed. Names in the text, such as ``threadko run``, and
forms, such as ``threadko dead list QUEUE``, are found as well; `is_form` tells them apart.
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from tests.support.checkout import ROOT
from threadko.cli.main import cli

__all__ = ["PAGES", "Command", "find_unknown", "is_form", "read_commands"]

#: The changes are not among them: what they tell of older releases need not work today.
PAGES = tuple(
    path.relative_to(ROOT).as_posix()
    for path in (*sorted(ROOT.glob("docs/*.rst")), *sorted(ROOT.glob("*.rst")))
    if path.name
    not in ("CHANGES.rst", "changes.rst", "contributing.rst")  # the last include others
)

_PROGRAMS = """
    apt apt-get bash brew cargo certbot chmod conda cp curl dnf docker echo eval export flask
    gdb git gunicorn helm journalctl kubectl ls make mkdir nc npm openssl pip pip3 pipx podman
    poetry pre-commit psql py-spy pytest python python3 rabbitmq-diagnostics rabbitmq-plugins
    rabbitmq-server rabbitmqctl redis-cli rlwrap ssh strace sudo systemctl taskset tcpdump telnet
    threadko tox uv uvicorn websocat wget wrk
"""
PROGRAMS = frozenset(_PROGRAMS.split())
CONSOLES = ("bash", "console", "sh", "shell", "shell-session")

_STARTS_CODE = re.compile(r"[ ]*\.\. (?:code|code-block|sourcecode)::[ ]*([\w-]*)$")
_INCLUDES = re.compile(r"[ ]*\.\. (?:include|literalinclude):: (\S+)$")
_STARTS_COMMENT = re.compile(r"[ ]*\.\. (?![\w-]+::|_|\[|\|)")
_ENDS_WITH_CODE = re.compile(r"(?![ ]*\.\. ).*::$")
_LITERAL = re.compile(r"(?<!`)(`{1,2})(?!`)([^`<]+)\1(?![`_])")
_PROGRAM_BY_PATH = re.compile(r"\.?[\w./]*/bin/\w")
_VARIABLES = re.compile(r"(?:_?[A-Z][A-Z0-9_]*=\S+ +)*")
_PLACEHOLDER = re.compile(r"\.\.\.|(?<!\S)[\[<]|(?<!\S)[A-Z]{3,}(?!\S)")


@dataclass(frozen=True)
class Command:
    """A command as it is printed, and whether it stands in a block of its own."""

    text: str
    in_block: bool

    @property
    def words(self) -> list[str]:
        """Its words without the variables before it."""
        text = self.text[_VARIABLES.match(self.text).end() :]  # type: ignore[union-attr]
        try:
            return shlex.split(text)
        except ValueError:  # an apostrophe in what is no command after all
            return text.split()


def read_commands(page: str, *, folder: Path) -> Iterator[Command]:
    """Yield what a page, which lies in `folder`, has a reader type, in its order."""
    text: list[str] = []
    lines = page.splitlines()
    position = 0
    while position < len(lines):
        line = lines[position]
        position += 1
        code = _STARTS_CODE.match(line)
        included = _INCLUDES.match(line)
        if code or _ENDS_WITH_CODE.match(line) or _STARTS_COMMENT.match(line):
            is_comment = _STARTS_COMMENT.match(line) is not None
            text += [] if code or is_comment else [line]
            yield from _read_text(text)
            text = []
            block, position = _take_block(lines, position, _measure_indent(line))
            if not is_comment:
                yield from _read_block(block, is_console=bool(code) and code[1] in CONSOLES)
        elif included:
            path = folder / included[1]
            if path.suffix not in (".rst", ".txt"):
                yield from _read_block(
                    [
                        re.sub(r"^(#|\"\"\") ?", "", line)
                        for line in path.read_text("utf-8").splitlines()
                    ]
                )
        else:
            text.append(line)
    yield from _read_text(text)


def _measure_indent(line: str) -> int:
    return len(re.match(r" *(?:(?:[*-]|#\.|\d+\.) +)?", line)[0])  # type: ignore[index]


def _take_block(lines: list[str], position: int, indent: int) -> tuple[list[str], int]:
    block = []
    while position < len(lines):
        line = lines[position]
        if line.strip() and len(line) - len(line.lstrip()) <= indent:
            break
        block.append(line)
        position += 1
    return block, position


def _read_block(lines: list[str], *, is_console: bool = False) -> Iterator[Command]:
    has_prompts = any(line.lstrip().startswith("$ ") for line in lines)
    for line in lines:
        stripped = line.strip()
        if has_prompts != stripped.startswith("$ "):
            continue  # what a command prints, or what is typed into it
        command = re.split(r"\s+# ", stripped.removeprefix("$ "))[0].strip()
        if command and (has_prompts or is_console or _is_command(command)):
            yield Command(command, in_block=True)


def _read_text(lines: list[str]) -> Iterator[Command]:
    for match in _LITERAL.finditer("\n".join(lines)):
        command = " ".join(match[2].split())
        if _is_command(command):
            yield Command(command, in_block=False)


def _is_command(text: str) -> bool:
    words = text[_VARIABLES.match(text).end() :].split()  # type: ignore[union-attr]
    return bool(words) and (words[0] in PROGRAMS or _PROGRAM_BY_PATH.match(words[0]) is not None)


def is_form(command: Command) -> bool:
    """Whether a command in the text only names something, or has places to be filled in."""
    words = command.words
    if _PLACEHOLDER.search(command.text):
        return True
    if command.in_block:
        return False
    if words[0] == "threadko":
        return not _is_complete(words[1:])
    return len(words) == 1 or words[-1].startswith("-")


def _is_complete(words: list[str]) -> bool:
    """Whether `threadko` would begin to work, and has been told more than the name of a command."""
    found, rest = _find(words)
    if not rest:
        return False
    try:
        found.make_context(found.name, list(rest), parent=click.Context(cli))
    except click.exceptions.Exit:  # --help
        return True
    except click.UsageError:
        return False
    return True


def _find(words: list[str]) -> tuple[click.Command, list[str]]:
    """Return the command that words are for, and those which are left for it."""
    found: click.Command = cli
    while words and isinstance(found, click.Group) and words[0] in found.commands:
        found, words = found.commands[words[0]], words[1:]
    return found, words


def find_unknown(command: Command, verbs: frozenset[str]) -> list[str]:
    """Return what `threadko`, or a Makefile with these verbs, does not know of a command."""
    words = [word.strip("[]") for word in command.words]
    if words[0] == "make":
        return [word for word in words[1:] if word not in verbs and "=" not in word]
    if "threadko" not in words:
        return []
    found, rest = _find(words[words.index("threadko") + 1 :])
    if found.name == "test":
        return []  # all that follows is for pytest
    rest = rest[: rest.index("|")] if "|" in rest else rest
    known = {option for each in found.params for option in (*each.opts, *each.secondary_opts)}
    unknown = [word for word in rest if word[:1] == "-" and word not in {*known, "--help"}]
    if isinstance(found, click.Group) and rest and rest[0] != "COMMAND" and rest[0][0] not in "-.":
        unknown += rest[:1]
    return unknown
