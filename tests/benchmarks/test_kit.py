"""What measures the test kits."""

import sys

import pytest

from tests.benchmarks.kit import measure_tests
from tests.benchmarks.processes import delete_queues

COMMAND = (sys.executable, "-m", "pytest")


@pytest.mark.long
@pytest.mark.parametrize("broker", ["named_broker", "rabbit_config"])
def test_time_of_a_test_is_measured(broker_uri: str, broker: str) -> None:
    seconds = measure_tests(COMMAND, "threadko", broker, broker_uri, 2)
    delete_queues(broker_uri, ["rpc-bench_kit_front", "rpc-bench_kit_back"])
    assert seconds > 0


@pytest.mark.long
def test_tests_that_fail_are_no_figure(broker_uri: str) -> None:
    with pytest.raises(RuntimeError, match="no_such_fixture"):
        measure_tests(COMMAND, "threadko", "no_such_fixture", broker_uri, 1)
