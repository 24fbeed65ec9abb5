"""Logs: an event with its fields, one line each, written by structlog through Python's logging.

Modules take a logger from `get_logger` and give values by name::

    log.info("run started", run_uid=run.uid)

Where nobody called `configure`, as in a script that uses `exafsd.Live`, the script's own handlers
write the lines; the fields then stand behind the event as ``key=value``.
"""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, TextIO

import structlog
from structlog.typing import Processor

EventDict = MutableMapping[str, Any]
#: attribute of a log record that holds the fields
FIELDS = "exafsd_fields"
#: in every line, in this order, before the fields
HEAD = ("timestamp", "level", "logger", "event")


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """Logger of a module; the global configuration of structlog belongs to the user's script."""
    return structlog.wrap_logger(
        logging.getLogger(name),
        processors=[structlog.stdlib.filter_by_level, _as_record],
        wrapper_class=structlog.stdlib.BoundLogger,
    )


def configure(level: str, form: str = "auto", stream: TextIO | None = None) -> None:
    """Write all lines to one stream, each once.

    Parameters
    ----------
    level
        Lines of exafsd below it are not written; of libraries, none below WARNING.
    form
        `plain` for reading, `logfmt` or `json` for programs, or `auto`: plain on a terminal, else
        logfmt.
    stream
        Where to; stderr if None.
    """
    target: TextIO = sys.stderr if stream is None else stream
    if form == "auto":
        form = "plain" if target.isatty() else "logfmt"
    handler = logging.StreamHandler(target)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[
                structlog.stdlib.add_log_level,
                structlog.stdlib.add_logger_name,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                _from_record,
            ],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_ends(form)],
        )
    )
    # A library that is imported may have given the root logger a handler of its own, by which our
    # lines would come a second time.
    root, ours = logging.getLogger(), logging.getLogger("exafsd")
    root.handlers, ours.handlers = [handler], [handler]
    ours.propagate = False
    ours.setLevel(level)


def _ends(form: str) -> list[Processor]:
    """What makes a line of the fields."""
    if form == "plain":
        plain = structlog.dev.plain_traceback
        return [
            structlog.dev.ConsoleRenderer(colors=False, sort_keys=False, exception_formatter=plain)
        ]
    trace = structlog.processors.format_exc_info
    if form == "json":
        return [trace, structlog.processors.JSONRenderer(default=str)]
    return [trace, structlog.processors.LogfmtRenderer(key_order=HEAD, drop_missing=True)]


def _as_record(_: Any, __: str, event: EventDict) -> tuple[tuple[str], dict[str, Any]]:
    """Arguments for Python's logger: a message for any handler, and the fields for ours."""
    text = str(event.pop("event"))
    traceback = event.pop("exc_info", None)
    shown = "".join(f" {name}={value}" for name, value in event.items())
    fields = {"event": text, **event}
    return (f"{text}{shown}",), {"extra": {FIELDS: fields}, "exc_info": traceback}


def _from_record(_: Any, __: str, event: EventDict) -> EventDict:
    """The fields of a line of ours, in place of its text."""
    fields = getattr(event["_record"], FIELDS, None)
    return event if fields is None else {**event, **fields}
