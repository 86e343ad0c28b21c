"""The logging of `threadko run`. An application that embeds a container keeps its own.

`configure` belongs to the main thread, before others are started; everything else is for any
thread. Once it was called, every record has `service` and `call_id`: those of the worker that
logged it, "-" outside of workers. A format of a user's own may name them.
"""

import datetime
import json
import logging.config
import os
import sys
from collections.abc import Mapping
from typing import Any, TextIO

from threadko.context import current_worker
from threadko.exceptions import ConfigurationError

__all__ = ["JsonFormatter", "TextFormatter", "configure"]

_NOBODY = "-"

_COLOURS = {"DEBUG": "2", "INFO": "32", "WARNING": "33", "ERROR": "31", "CRITICAL": "1;31"}

# What every record has; whatever else one has was given by `extra`.
_OF_EVERY_RECORD = {
    *vars(logging.makeLogRecord({})),
    *("asctime", "call_id", "message", "service", "taskName"),
}


def configure(
    logging_config: Mapping[str, Any] | None,
    log_format: str = "text",
    *,
    shows_process: bool = False,
) -> None:
    """Set logging up from a `dictConfig` mapping; without one, INFO and above go to stderr.

    Text shows the number of the process if it is one of several.

    Raises `ConfigurationError` if `logging` does not accept the mapping.
    """
    logging.setLogRecordFactory(_Record)
    if logging_config is None:
        handler = logging.StreamHandler()
        is_json = log_format == "json"
        handler.setFormatter(
            JsonFormatter() if is_json else TextFormatter(_has_colours(sys.stderr), shows_process)
        )
        logging.basicConfig(level=logging.INFO, handlers=[handler])
        return
    # By default dictConfig would silence every logger that exists, the framework's among them.
    complete = {"disable_existing_loggers": False, **logging_config}
    try:
        logging.config.dictConfig(complete)
    except (ValueError, TypeError, AttributeError, ImportError, KeyError, OSError) as exc:
        reason = exc if exc.__cause__ is None else f"{exc}: {exc.__cause__}"
        raise ConfigurationError(f"LOGGING is not a valid dictConfig: {reason}") from exc


class TextFormatter(logging.Formatter):
    """Lines for people: time, level, logger, the call id of the worker if there is one, message.

    A call id begins with the names of service and method.

    Args:
        colours: whether to colour the level, for a terminal.
        shows_process: whether to show the number of the process behind the time.
    """

    def __init__(self, colours: bool = False, shows_process: bool = False) -> None:
        super().__init__()
        self._shows_process = shows_process
        self._colours = colours

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (logging's name)
        """Return the line without a traceback."""
        level = record.levelname
        if self._colours and level in _COLOURS:
            level = f"\x1b[{_COLOURS[level]}m{level}\x1b[0m"
        call_id = getattr(record, "call_id", _NOBODY)
        place = record.name if call_id == _NOBODY else f"{record.name} [{call_id}]"
        process = f" {record.process}" if self._shows_process else ""
        return f"{self.formatTime(record)}{process} {level} {place}: {record.message}"


class JsonFormatter(logging.Formatter):
    """One JSON object to a line, for machines; what was given by `extra` is in it too."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the object as text."""
        moment = datetime.datetime.fromtimestamp(record.created, datetime.timezone.utc)
        entry: dict[str, Any] = {
            "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "service": getattr(record, "service", _NOBODY),
            "call_id": getattr(record, "call_id", _NOBODY),
            "thread": record.threadName,
            "process": record.process,
        }
        if record.exc_info and record.exc_info[0] is not None:
            entry["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            entry["stack"] = self.formatStack(record.stack_info)
        extra = {key: value for key, value in vars(record).items() if key not in _OF_EVERY_RECORD}
        return json.dumps({**extra, **entry}, default=_describe, ensure_ascii=False)


class _Record(logging.LogRecord):
    """A record that knows the worker that it was logged by."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        worker_ctx = current_worker.get()
        self.service = _NOBODY if worker_ctx is None else worker_ctx.service_name
        self.call_id = _NOBODY if worker_ctx is None else worker_ctx.call_id


def _describe(value: object) -> str:
    try:
        return repr(value)
    except Exception:  # of a user's class; the record is worth more
        return f"<{type(value).__name__}>"


def _has_colours(stream: TextIO) -> bool:
    """Whether a stream is a terminal that shows colours, and nobody has asked for none."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    try:
        return stream.isatty()
    except (AttributeError, ValueError):  # there is none, or it is closed
        return False
