import pytest

from tests.support import terminal
from tests.support.terminal import CTRL_C, Terminal


def test_keys_go_in_and_the_screen_comes_out(tmp_path):
    code = "import sys; print(sys.stdin.isatty(), '\\x1b[1mbold\\x1b[0m', input('name? '))"
    with Terminal(["-c", code], cwd=tmp_path) as shown:
        shown.wait_for("name? ")
        shown.press("Ada\n")
        assert shown.wait() == 0
        assert "True bold Ada" in shown.screen
        assert "\x1b[1mbold" in shown.raw


def test_ctrl_c_is_an_interrupt_and_a_text_that_does_not_come_a_failure(tmp_path, monkeypatch):
    code = "import threading; print('begun'); threading.Event().wait()"
    with Terminal(["-c", code], cwd=tmp_path) as shown:
        shown.wait_for("begun")
        monkeypatch.setattr(terminal, "TIMEOUT", 0.05)
        with pytest.raises(AssertionError, match="never"):
            shown.wait_for("never")
        monkeypatch.undo()
        shown.press(CTRL_C)
        shown.wait_for("KeyboardInterrupt")
        assert shown.wait() != 0
