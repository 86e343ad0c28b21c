"""nameko's service that waits for its database in a driver written in C."""

import os

from nameko.rpc import rpc

from tests.benchmarks.waiting import wait_in_database


class Waiting:
    name = f"bench_nameko_waiting_{os.environ['BENCH_RUN']}"

    @rpc
    def wait(self) -> None:
        wait_in_database()
