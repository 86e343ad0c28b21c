"""A FastAPI application that calls services: its one thread waits for many calls at once.

uvicorn fastapi_client:app
"""

import asyncio
import os
from contextlib import asynccontextmanager

from fastapi import FastAPI

from threadko.standalone.rpc import ClusterRpcClient

CONFIG = {"AMQP_URI": os.environ.get("AMQP_URI", "amqp://guest:guest@localhost:5672/")}

client = ClusterRpcClient(config=CONFIG, timeout=30)


@asynccontextmanager
async def lifespan(app):
    # Connecting and closing take their time: in another thread, or nothing else would run.
    app.state.cluster = await asyncio.to_thread(client.start)
    yield
    await asyncio.to_thread(client.stop)


app = FastAPI(lifespan=lifespan)


@app.get("/prices/{number}")
async def price(number: int):
    # A call is a concurrent.futures.Future, for which asyncio has a door.
    call = app.state.cluster.quotes.price.call_async(number)
    return {"price": await asyncio.wrap_future(call)}
