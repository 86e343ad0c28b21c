"""Workers that begin in the thread of their entrypoint, past the `spawn_worker` of a subclass.

Threads: `offer` and `take` are for any thread; what one thread offers, only that thread takes.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from threadko.extensions import HandleResult, WorkerContext
from threadko.extensions.worker import Message

__all__ = ["Offer", "Offers"]

#: Runs or begins a worker in the thread that calls it.
Run = Callable[[WorkerContext, HandleResult | None], None]


@dataclass(slots=True)
class Offer:
    """A worker that `spawn_worker` is to run in the thread that called, which holds a slot."""

    run: Run
    message: Message | None = None
    worker_ctx: WorkerContext | None = None  # once it was taken


class Offers:
    """Hands workers to `spawn_worker` in the threads that call it.

    Args:
        spawn: takes the arguments of a worker, and calls that of its base with them, which takes
            what is offered.
        name: how an error names `spawn`.
    """

    def __init__(self, spawn: Callable[..., object], name: str) -> None:
        self._spawn = spawn
        self._name = name
        self._here = threading.local()  # with `offer`, what is to be taken there

    def offer(self, offer: Offer, *args: Any, **kwargs: Any) -> WorkerContext:
        """Call `spawn` with the arguments, and return the context of the worker that it has run.

        Raises `RuntimeError` if it has run none.
        """
        self._here.offer = offer
        try:
            self._spawn(*args, **kwargs)
        finally:
            self._here.offer = None
        if offer.worker_ctx is None:
            raise RuntimeError(
                f"{self._name} has run no worker: it must call that of its base, in the same thread"
            )
        return offer.worker_ctx

    def take(self) -> Offer | None:
        """Return what is offered to this thread, once, for what it spawns then is no part of it."""
        offer: Offer | None = getattr(self._here, "offer", None)
        if offer is not None:
            self._here.offer = None
        return offer
