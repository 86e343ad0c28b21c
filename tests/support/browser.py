"""A Chromium that a test drives: by its DevTools protocol, waiting for what the page shows."""

import contextlib
import itertools
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

from tests.support.timing import TIMEOUT, wait_until

__all__ = ["Page", "browse"]


class Page:
    """A page of a browser. For one thread."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._session: dict[str, str] = {}
        target = self._command("Target.createTarget", {"url": "about:blank"})
        attached = self._command("Target.attachToTarget", {**target, "flatten": True})
        self._session = {"sessionId": attached["sessionId"]}

    def open(self, url: str) -> None:
        """Go to an address; the page need not have loaded when this returns."""
        answer = self._command("Page.navigate", {"url": url})
        assert "errorText" not in answer, answer

    def evaluate(self, expression: str) -> Any:
        """Return the value of an expression of JavaScript in the page."""
        params = {"expression": expression, "returnByValue": True}
        answer = self._command("Runtime.evaluate", params)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def read(self, selector: str = "body") -> str | None:
        """Return the text that an element shows; None before there is such an element."""
        text: str | None = self.evaluate(
            f"document.querySelector({json.dumps(selector)})?.innerText.trim()"
        )
        return text

    def wait_for_text(self, text: str, selector: str = "body") -> None:
        """Wait until an element shows just this text."""
        wait_until(
            lambda: self.read(selector) == text,
            lambda: f"{selector} shows {self.read(selector)!r}",
        )

    def _command(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        number = next(self._numbers)
        command = {"id": number, "method": method, "params": params, **self._session}
        self._socket.send(json.dumps(command))
        while (message := json.loads(self._socket.recv(timeout=3 * TIMEOUT))).get("id") != number:
            pass  # an event
        assert "error" not in message, message
        result: dict[str, Any] = message["result"]
        return result


@contextlib.contextmanager
def browse(chromium: str, folder: Path) -> Iterator[Page]:
    """Yield an empty page of a headless browser whose profile is in this folder."""
    command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "about:blank"]
    command += ["--remote-debugging-port=0", f"--user-data-dir={folder}"]
    with (folder / "chromium.log").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        at = folder / "DevToolsActivePort"
        wait_until(lambda: at.exists() and at.read_text().count("\n"), "no browser came up")
        port, path = at.read_text().split()
        with connect(f"ws://127.0.0.1:{port}{path}", open_timeout=TIMEOUT) as socket:
            yield Page(socket)
    finally:
        process.terminate()  # its children with it, which a kill would leave behind
        process.wait(3 * TIMEOUT)
