import pytest

from tests.support.newcomer import Block, follow, read_blocks

PAGE = """
Install::

    make demo    # shows it
    make test

Then, with some Python::

    def f(): ...

.. code-block:: console

   $ . .venv/bin/activate
   $ threadko run hello

and in another terminal::

    $ cd x
    $ python
    >>> 1 + 1
    2
"""


def test_blocks_are_read_in_order_and_other_code_is_not():
    assert list(read_blocks(PAGE)) == [
        Block(("make demo",)),
        Block(("make test",)),
        Block((". .venv/bin/activate", "threadko run hello")),
        Block(("cd x",), ">>> 1 + 1\n2\n"),
    ]
    assert [block.ready for block in read_blocks(PAGE)] == [None, None, "services ready", None]


def test_output_that_nobody_would_compare_is_refused():
    with pytest.raises(ValueError, match="not looked at"):
        list(read_blocks("x::\n\n    $ ls\n    file\n"))


@pytest.mark.parametrize(
    "page", ["x::\n\n    $ false\n", "x::\n\n    $ python\n    >>> 1\n    2\n"]
)
def test_command_that_fails_and_answer_that_differs_are_errors(page, tmp_path):
    with pytest.raises(Exception, match="returned non-zero"):
        follow(page, folder=tmp_path, skip=())


def test_services_that_end_before_they_are_ready_are_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr("tests.support.newcomer.TIMEOUT", 0.01)
    with pytest.raises(TimeoutError, match="did not say"):
        follow("x::\n\n    $ threadko run nothing\n", folder=tmp_path, skip=())
