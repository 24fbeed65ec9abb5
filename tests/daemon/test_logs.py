"""The daemon's log: one line an event, once, that a program can read."""

import io
import json
import logging
import shlex
from types import SimpleNamespace

import pytest

from exafsd.logs import configure, get_logger
from exafsd.service.rejection_log import LINES, RejectionLog

ODD = 'a "b"\nc=d % 100'


@pytest.fixture
def stream(logging_restored):
    return io.StringIO()


def write(stream, form):
    configure("INFO", form, stream)
    log = get_logger("exafsd.test_logs")
    log.info("run started", run_uid="one", detail=ODD, count=3)
    log.debug("left out")
    logging.getLogger("some.library").warning("of a library: %s", 7)
    return stream.getvalue().splitlines()


def test_json_gives_back_every_field(stream):
    ours, theirs = map(json.loads, write(stream, "json"))
    assert (ours["event"], ours["run_uid"], ours["detail"], ours["count"]) == (
        "run started", "one", ODD, 3
    )  # fmt: skip
    assert (ours["level"], ours["logger"]) == ("info", "exafsd.test_logs")
    assert theirs["event"] == "of a library: 7"


def test_logfmt_is_one_line_an_event_with_quoted_values(stream):
    ours, _ = write(stream, "logfmt")
    fields = dict(part.split("=", 1) for part in shlex.split(ours))
    assert list(fields) == ["timestamp", "level", "logger", "event", "run_uid", "detail", "count"]
    assert (fields["event"], fields["run_uid"], fields["count"]) == ("run started", "one", "3")


def test_auto_is_for_programs_where_no_terminal_is(stream):
    assert write(stream, "auto")[0].startswith("timestamp=")


def test_plain_is_for_a_terminal(stream, monkeypatch):
    monkeypatch.setattr(stream, "isatty", lambda: True, raising=False)
    ours = write(stream, "auto")[0]
    assert "run started" in ours and "run_uid=one" in ours and "timestamp=" not in ours


def test_a_handler_that_a_library_adds_does_not_double_our_lines(stream):
    theirs = logging.StreamHandler(stream)
    write(stream, "logfmt")
    logging.getLogger().addHandler(theirs)
    get_logger("exafsd.test_logs").info("once only")
    assert stream.getvalue().count("once only") == 1


def test_a_traceback_stays_in_its_line(stream):
    configure("INFO", "logfmt", stream)
    try:
        raise ValueError("inside")
    except ValueError:
        get_logger("exafsd.test_logs").warning("failed", exc_info=True)
    assert len(stream.getvalue().splitlines()) == 1
    assert "ValueError: inside" in stream.getvalue()


def test_in_a_script_of_ones_own_the_fields_stand_behind_the_event(caplog):
    with caplog.at_level("INFO", "exafsd"):
        get_logger("exafsd.test_logs").info("run started", run_uid="50%")
    assert caplog.messages == ["run started run_uid=50%"]


def rejection(number, run_uid, reason):
    return SimpleNamespace(
        id=f"{run_uid}/{number}", run_uid=run_uid, reason=reason, detail="no light"
    )


def test_rejections_are_limited_by_run_and_reason_and_counted(caplog):
    rejections = RejectionLog()
    with caplog.at_level("INFO", "exafsd"):
        for number in range(1000):
            rejections.add(rejection(number, "dark", "i0_zero"))
        rejections.add(rejection(1000, "dark", "no_edge"))
        rejections.add(rejection(1, "next", "i0_zero"))
        rejections.end("dark")
        rejections.end("next")
    lines = [record.exafsd_fields for record in caplog.records]
    one_by_one = [
        (line["run_uid"], line["reason"]) for line in lines if line["event"] == "rejected"
    ]
    assert one_by_one == [("dark", "i0_zero")] * LINES + [("dark", "no_edge"), ("next", "i0_zero")]
    totals = [line for line in lines if line["event"] == "rejected in all"]
    assert [(line["run_uid"], line["reason"], line["count"]) for line in totals] == [
        ("dark", "i0_zero", 1000)
    ]
