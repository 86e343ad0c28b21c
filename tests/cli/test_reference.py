"""The page about the commands says what is so."""

import re

import pytest

from tests.support.commands import MARK, PAGE, make_page
from threadko.cli.options import ExitCode

TEXT = PAGE.read_text(encoding="utf-8")


def test_reference_is_what_the_commands_say_of_themselves():
    assert make_page(TEXT) == TEXT, "run `python -m tests.support.commands`, and look at the diff"


@pytest.mark.parametrize("code", ExitCode)
def test_each_exit_code_is_explained(code):
    assert re.search(rf"^{code:d}\s+\w", TEXT.partition(MARK)[0], re.MULTILINE)


@pytest.mark.parametrize("name", ["run", "shell", "show-config", "health", "broker", "dead"])
def test_each_command_has_its_section(name):
    assert f"``threadko {name}``\n~" in TEXT
