"""Logging that never raises."""

import logging
from collections.abc import Iterator

import pytest

from threadko.utils.safelog import describe_error, log_safely

ERRORS = [ValueError, SystemExit, KeyboardInterrupt]


class Mute(Exception):  # noqa: N818 - its name says what it does
    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __str__(self) -> str:
        raise self.error

    __repr__ = __str__


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    logger = logging.getLogger("tests.safelog")
    yield logger
    logger.filters.clear()


def test_message_is_logged_with_the_traceback(
    logger: logging.Logger, caplog: pytest.LogCaptureFixture
) -> None:
    log_safely(logger, logging.ERROR, "%s failed", "it", exc_info=ValueError("why"))
    assert "it failed" in caplog.text
    assert "ValueError: why" in caplog.text


@pytest.mark.parametrize("error", ERRORS)
def test_object_that_cannot_be_shown_is_left_out(
    logger: logging.Logger, caplog: pytest.LogCaptureFixture, error: type[BaseException]
) -> None:
    log_safely(logger, logging.ERROR, "killing %r failed", Mute(error("on purpose")))
    assert "a message could not be logged in full: killing %r failed" in caplog.text


@pytest.mark.parametrize("error", ERRORS)
def test_filter_that_raises_disturbs_nobody(
    logger: logging.Logger, caplog: pytest.LogCaptureFixture, error: type[BaseException]
) -> None:
    def fail(record: logging.LogRecord) -> bool:
        raise error("on purpose")

    logger.addFilter(fail)
    log_safely(logger, logging.ERROR, "failed")
    assert caplog.records == []


def test_error_is_described_by_type_and_the_begin_of_its_text() -> None:
    assert describe_error(KeyError("key")) == "KeyError: 'key'"
    assert describe_error(ValueError("x" * 10**6)) == "ValueError: " + "x" * 1_000


@pytest.mark.parametrize("error", ERRORS)
def test_error_without_a_text_is_described_by_its_type(error: type[BaseException]) -> None:
    assert describe_error(Mute(error())) == "Mute (without a text)"
