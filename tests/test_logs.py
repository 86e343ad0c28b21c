"""Logging of `threadko run`, each case in a process of its own, for logging is global."""

import json
import subprocess
import sys

import pytest

from tests.support.timing import TIMEOUT
from threadko import logs
from threadko.exceptions import ConfigurationError

SCRIPT = """
import json, logging, sys
from threadko import logs
log = logging.getLogger("threadko.early")
logs.configure(json.loads(sys.argv[1]))
log.info("hello %s", "you")
log.debug("hidden")
"""


def run_configured(config: object) -> str:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(config)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=True,
    )
    assert done.stdout == ""
    return done.stderr


def test_info_goes_to_stderr_with_time_level_and_name_when_nothing_is_configured() -> None:
    text = run_configured(None)
    assert text.endswith(" INFO threadko.early: hello you\n")
    assert len(text.splitlines()) == 1


def test_a_given_configuration_is_used_and_loggers_that_exist_still_speak() -> None:
    config = {
        "version": 1,
        "formatters": {"short": {"format": "%(message)s!"}},
        "handlers": {"out": {"class": "logging.StreamHandler", "formatter": "short"}},
        "root": {"level": "INFO", "handlers": ["out"]},
    }
    assert run_configured(config) == "hello you!\n"


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"version": 2},
        {"version": 1, "handlers": {"x": {"class": "no.such.Handler"}}},
        {"version": 1, "root": {"handlers": ["missing"]}},
        {"version": 1, "root": 5},
    ],
)
def test_a_bad_configuration_is_an_error_that_names_its_key(config: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match="LOGGING"):
        logs.configure(config)
