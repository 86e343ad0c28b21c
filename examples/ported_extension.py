"""The same extension, ported: one word of it has changed."""

import time

from threadko.extensions import DependencyProvider


class Stopwatch(DependencyProvider):
    """Injects a function that tells for how long the worker has run."""

    def get_dependency(self, worker_ctx):
        begun = time.monotonic()
        return lambda: time.monotonic() - begun
