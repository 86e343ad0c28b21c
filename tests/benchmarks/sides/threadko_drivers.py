"""threadko's service that waits for its database in a driver written in C."""

import os

from tests.benchmarks.waiting import wait_in_database
from threadko.rpc import rpc


class Waiting:
    name = f"bench_threadko_waiting_{os.environ['BENCH_RUN']}"

    @rpc
    def wait(self) -> None:
        wait_in_database()
