import pytest

from tests.support.pages import Command, find_unknown, is_form, read_commands

PAGE = """
The ``threadko run`` of ``threadko dead list
QUEUE``, and ``make demo``; ``no command``, `a link
<make that>`_ and ``threadko.run x``.

.. A comment with ``make it`` in it
   and ``make more``.

Type::

    $ cd x    # a folder
    $ make y
    what it prints

or::

    threadko shell
    2026-01-31 INFO a line of a log

.. code-block:: console

   any program

.. code-block:: yaml

   make: threadko

.. include:: ../config.yaml
   :code: yaml

* A point::

      make z

  and ``pip install q``.
"""


def test_commands_are_found_in_blocks_in_text_and_in_what_is_included(tmp_path):
    (tmp_path / "config.yaml").write_text("# threadko run -c config.yaml x\na: b\n")
    folder = tmp_path / "docs"
    folder.mkdir()
    assert [each.text for each in read_commands(PAGE, folder=folder) if not each.in_block] == [
        "threadko run",
        "threadko dead list QUEUE",
        "make demo",
        "pip install q",
    ]
    assert [each.text for each in read_commands(PAGE, folder=folder) if each.in_block] == [
        "cd x",
        "make y",
        "threadko shell",
        "any program",
        "threadko run -c config.yaml x",
        "make z",
    ]


@pytest.mark.parametrize(
    ("text", "in_block", "expected"),
    [
        ("threadko", False, True),
        ("threadko run", False, True),
        ("threadko run --dev", False, True),
        ("threadko run --processes", False, True),
        ("threadko run --dev x ...", False, True),
        ("threadko dead list QUEUE", False, True),
        ("threadko broker [--port 5672]", False, True),
        ("docker stop --time", False, True),
        ("make", False, True),
        ("python x.py [PORT]", True, True),
        ("threadko run --dev x", False, False),
        ("threadko health --ready", False, False),
        ("threadko shell", True, False),
        ("threadko run", True, False),
        ("make x", False, False),
        ("pip install 'x[y]'", False, False),
        ("A_B=1 threadko health -c x", True, False),
    ],
)
def test_names_and_forms_are_told_from_commands(text, in_block, expected):
    assert is_form(Command(text, in_block=in_block)) is expected


@pytest.mark.parametrize(
    ("text", "unknown"),
    [
        ("make x y A=1", ["y"]),
        ("threadko run --dev -d A=1 x", []),
        ("threadko run --port", ["--port"]),
        ("taskset -c 0 threadko rnu ...", ["rnu"]),
        ("threadko dead lst QUEUE", ["lst"]),
        ("threadko COMMAND --help", []),
        ("threadko broker [--host 127.0.0.1] [--prot 5672]", ["--prot"]),
        ("threadko test -k x", []),
        ("echo 1 | threadko shell | sort -r", []),
        ("pip install --no-deps", []),
    ],
)
def test_what_nobody_knows_is_found(text, unknown):
    assert find_unknown(Command(text, in_block=True), frozenset({"x"})) == unknown
