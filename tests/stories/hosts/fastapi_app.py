"""The FastAPI application, with its state."""

from typing import Any

from fastapi_client import app, client

from tests.stories.hosts.state import describe


@app.get("/state")
async def state() -> Any:
    return describe(client)
