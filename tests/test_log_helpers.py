"""Times in logs."""

import logging
import re

import pytest

from threadko.log_helpers import make_timing_logger

LOGGER = logging.getLogger("tests.timing")


@pytest.mark.parametrize(
    ("options", "level", "pattern"),
    [
        ({}, logging.DEBUG, r"read 5 rows in 0\.\d{3}s"),
        ({"precision": 0}, logging.DEBUG, r"read 5 rows in 0s"),
        ({"precision": 6, "level": logging.WARNING}, logging.WARNING, r"read 5 rows in 0\.\d{6}s"),
    ],
)
def test_time_of_a_block_is_logged(caplog, options, level, pattern):
    log_time = make_timing_logger(LOGGER, **options)
    with caplog.at_level(logging.DEBUG), log_time("read %d rows", 5) as nothing:
        assert nothing is None
    (record,) = caplog.records
    assert record.levelno == level
    assert re.fullmatch(pattern, record.getMessage())


def test_time_is_logged_when_the_block_raises(caplog):
    log_time = make_timing_logger(LOGGER)
    with caplog.at_level(logging.DEBUG), pytest.raises(ValueError, match="oops"):
        with log_time("this"):
            raise ValueError("oops")
    assert caplog.records[0].getMessage().startswith("this in 0.")


def test_blocks_may_nest(caplog):
    log_time = make_timing_logger(LOGGER)
    with caplog.at_level(logging.DEBUG), log_time("outer"), log_time("inner"):
        pass
    assert [record.getMessage()[:5] for record in caplog.records] == ["inner", "outer"]
