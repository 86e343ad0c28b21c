"""`python -m tests.faults.soak_callers JSON`: the threads that call in `tests.faults.soak`.

They make the calls of a part when they are told "go on PART", and keep numbers only, so that what
this process holds does not grow with the calls by itself. Told in return: "answered COUNT" now and
then, "lost NUMBER" and "failed NUMBER ERROR" for each such call, and "done PART pending COUNT".
"""

import json
import sys
import threading
from typing import Any

from tests.stories.controlled import tell, wait_for
from threadko.exceptions import RpcTimeout
from threadko.standalone.rpc import ClusterRpcClient

__all__ = ["main"]


class Callers:
    """Threads that share a client; the numbers of a part are dealt out to them in turn."""

    def __init__(self, method: Any, *, threads: int, tell_every: int) -> None:
        self._method = method
        self._count = threads
        self._tell_every = tell_every
        self._part = range(0)
        self._gate = threading.Barrier(threads + 1)  # closes behind and in front of each part
        self._lock = threading.Lock()  # guards _answered
        self._answered = 0
        for first in range(threads):
            threading.Thread(target=self._run, args=(first,), daemon=True).start()

    def make(self, part: range) -> None:
        """Make the calls of a part, and wait until each has had its outcome."""
        self._part = part
        self._gate.wait()
        self._gate.wait()

    def _run(self, first: int) -> None:
        while True:
            self._gate.wait()
            for number in self._part[first :: self._count]:
                self._call(number)
            self._gate.wait()

    def _call(self, number: int) -> None:
        try:
            answer = self._method(number)
        except RpcTimeout:
            tell(f"lost {number}")
        except Exception as error:
            tell(f"failed {number} {error!r}")
        else:
            if answer != number * 2:
                tell(f"failed {number} answered by {answer!r}")
        with self._lock:
            self._answered += 1
            count = self._answered
        if count % self._tell_every == 0:
            tell(f"answered {count}")


def main(order: dict[str, Any]) -> None:
    """Make as many calls as the order says, in its parts."""
    calls, parts = order["calls"], order["parts"]
    rpc_client = ClusterRpcClient(config=order["config"], timeout=order["timeout"])
    with rpc_client as client:
        method = client[order["service"]].double
        callers = Callers(method, threads=order["threads"], tell_every=order["tell_every"])
        for part in range(parts):
            wait_for(f"go on {part}")
            callers.make(range(calls * part // parts, calls * (part + 1) // parts))
            tell(f"done {part} pending {rpc_client.pending}")
        wait_for("end")


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
