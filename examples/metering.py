"""A dependency of one's own: it counts the calls of each user, whatever becomes of them."""

import threading
from collections import Counter

from threadko.extensions import DependencyProvider
from threadko.rpc import rpc


class Meter(DependencyProvider):
    """Injects the number of calls that this user has made, this one not counted."""

    def setup(self):
        self._calls = Counter()  # guarded by _calls_lock: workers are threads
        self._calls_lock = threading.Lock()

    def get_dependency(self, worker_ctx):
        with self._calls_lock:
            return self._calls[worker_ctx.data.get("user_id")]

    def worker_result(self, worker_ctx, result=None, exc_info=None):
        with self._calls_lock:
            self._calls[worker_ctx.data.get("user_id")] += 1


class Metered:
    name = "metered"

    calls_before = Meter()

    @rpc
    def ask(self):
        return f"You have asked {self.calls_before} times before."
