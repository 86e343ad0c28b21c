"""The load generator and what is read of `wrk`."""

import pytest

from tests.benchmarks.web import load, read_wrk
from threadko.testing.factories import ContainerFactory
from threadko.web.handlers import http

WRK = """Running 2s test @ http://127.0.0.1:8000/
  Latency Distribution
     50%    2.27ms
     99%  850.00us
  8042 requests in 2.00s, 1.07MB read
Requests/sec:   4020.41
"""


def test_wrk_is_read() -> None:
    assert read_wrk(WRK) == (4020.41, 0.85)


@pytest.mark.parametrize("line", ["Non-2xx or 3xx responses: 5", "Socket errors: connect 1"])
def test_failed_requests_are_no_figure(line: str) -> None:
    with pytest.raises(RuntimeError, match=line):
        read_wrk(WRK + line)


def test_own_generator_counts_answers(container_factory: ContainerFactory) -> None:
    class Counting:
        name = "counting"
        count = 0

        @http("GET", "/")
        def get(self, request: object) -> str:
            Counting.count += 1
            return "x" * 100

    container = container_factory(Counting, config={"WEB_SERVER_ADDRESS": "127.0.0.1:0"})
    container.start()
    rate, late = load(container.subextensions[0].bind_addr.port, "/", 0.2)  # type: ignore[attr-defined]
    assert Counting.count >= rate * 0.2 > 0
    assert late > 0
