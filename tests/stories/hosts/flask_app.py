"""The Flask application, with its state."""

from typing import Any

from flask_client import app, client

from tests.stories.hosts.state import describe


@app.get("/state")
def state() -> Any:
    return describe(client)
