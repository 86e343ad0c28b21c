"""An extension as somebody has published it, for nameko."""

import time

from nameko.extensions import DependencyProvider


class Stopwatch(DependencyProvider):
    """Injects a function that tells for how long the worker has run."""

    def get_dependency(self, worker_ctx):
        begun = time.monotonic()
        return lambda: time.monotonic() - begun
