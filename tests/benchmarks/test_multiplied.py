import re

import pytest

from tests.benchmarks.multiplied import describe_multiplied


@pytest.mark.long
def test_both_are_measured_and_compared(broker_uri):
    line = describe_multiplied(broker_uri, 0.2, 1)
    figures = re.fullmatch(
        r"computing RPC: ([\d.]+)/s in one process, ([\d.]+)/s in two on \d+ processors:"
        r" ([\d.]+) times, goal 1.70",
        line,
    )
    assert figures, line
    assert all(float(figure) > 0 for figure in figures.groups())
