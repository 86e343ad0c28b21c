import shutil
import socket

import pytest

from tests.support.browser import browse
from tests.support.timing import TIMEOUT


@pytest.mark.long
def test_page_is_opened_and_read_and_the_browser_ends(tmp_path):
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium: apt-get install chromium")
    script = "setTimeout(() => { p.textContent = 'two'; }, 50)"
    with browse(chromium, tmp_path) as page:
        assert page.read() == ""
        page.open(f"data:text/html,<p id=p>one</p><script>{script}</script>")
        page.wait_for_text("two")
        assert page.evaluate("1 + 1") == 2
        with pytest.raises(AssertionError, match="ReferenceError"):
            page.evaluate("nothing")
    port = (tmp_path / "DevToolsActivePort").read_text().split()[0]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(port)), TIMEOUT)
