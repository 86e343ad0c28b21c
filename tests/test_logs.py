"""Logging of `threadko run`, each case in a process of its own, for logging is global."""

import json
import logging
import subprocess
import sys

import pytest

from tests.support.terminal import Terminal
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


IN_WORKER = """
import json, logging, sys
from threadko import logs
from threadko.context import current_worker

class Worker:
    service_name, call_id = "shop", "shop.sell.1"

class Odd:
    def __repr__(self):
        raise ValueError

logs.configure(json.loads(sys.argv[1]), sys.argv[2])
log = logging.getLogger("mine")
log.warning("outside")
current_worker.set(Worker)
try:
    1 / 0
except ZeroDivisionError:
    log.exception("inside", extra={"piece": 1, "odd": Odd()}, stack_info=True)
"""


def run_in_worker(log_format: str, config: object = None) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", IN_WORKER, json.dumps(config), log_format],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=True,
    )
    return done.stderr.splitlines()


def test_text_has_the_call_id_of_the_worker_that_logs() -> None:
    lines = run_in_worker("text")
    assert lines[0].endswith(" WARNING mine: outside")
    assert lines[1].endswith(" ERROR mine [shop.sell.1]: inside")
    assert "ZeroDivisionError: division by zero" in lines
    assert "\x1b" not in "".join(lines)


def test_json_is_one_object_to_a_line() -> None:
    outside, inside = map(json.loads, run_in_worker("json"))
    assert outside["level"] == "WARNING"
    assert outside["logger"] == "mine"
    assert outside["message"] == "outside"
    assert (outside["service"], outside["call_id"]) == ("-", "-")
    assert outside["time"].endswith("Z")
    assert outside["thread"] == "MainThread"
    assert (inside["service"], inside["call_id"]) == ("shop", "shop.sell.1")
    assert inside["exception"].endswith("ZeroDivisionError: division by zero")
    assert inside["stack"].startswith("Stack")
    assert (inside["piece"], inside["odd"]) == (1, "<Odd>")


def test_formats_of_a_users_own_may_name_service_and_call_id() -> None:
    config = {
        "version": 1,
        "formatters": {
            "own": {"format": "%(service)s/%(call_id)s: %(message)s"},
            "json": {"()": "threadko.logs.JsonFormatter"},
        },
        "handlers": {
            "own": {"class": "logging.StreamHandler", "formatter": "own"},
            "json": {"class": "logging.StreamHandler", "formatter": "json"},
        },
        "root": {"handlers": ["own", "json"]},
    }
    lines = run_in_worker("text", config)
    assert lines[0] == "-/-: outside"
    assert json.loads(lines[1])["message"] == "outside"
    assert lines[2] == "shop/shop.sell.1: inside"


def test_levels_are_coloured_where_that_is_wanted() -> None:
    record = logging.LogRecord("mine", logging.ERROR, "", 0, "hello", (), None)
    assert " \x1b[31mERROR\x1b[0m mine: hello" in logs.TextFormatter(colours=True).format(record)
    record.levelname = "NOTICE"
    assert " NOTICE mine: hello" in logs.TextFormatter(colours=True).format(record)


@pytest.mark.parametrize(
    ("environ", "colours"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)],
)
def test_terminal_has_colours_unless_somebody_wants_none(environ, colours, tmp_path):
    code = "from threadko import logs; import logging; logs.configure(None); logging.error('x')"
    with Terminal(["-c", code], cwd=tmp_path, environ=environ) as terminal:
        terminal.wait_for("ERROR root: x")
        assert ("\x1b[31mERROR" in terminal.raw) is colours
        assert terminal.wait() == 0


def test_no_stream_has_no_colours() -> None:
    code = "import sys; sys.stderr = None\nfrom threadko import logs; logs.configure(None)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=TIMEOUT)
