"""Results of runs from the outcome logs beside a journal, as the messages they were on the wire."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from exafsd.archive.catalog import CatalogError
from exafsd.archive.journaled import find_run, read_journal
from exafsd.archive.outcome_log import LOG, Logged, folder_beside, read_log
from exafsd.archive.records import DamagedError, FormatError
from exafsd.contract.frames import Message, decode


@dataclass(frozen=True)
class LoggedRun:
    """What the log of one run holds.

    Attributes
    ----------
    start
        As the start document of a result run in a catalog, as far as it is known.
    counts
        Outcomes by kind.
    stopped
        Exit status of the raw run; None while it is open.
    damage
        What is wrong with the log, in words.
    """

    uid: str
    path: Path
    start: dict[str, Any]
    counts: Counter[str] = field(default_factory=Counter[str])
    stopped: str | None = None
    damage: str | None = None


def logged_runs(journal: Path) -> Iterator[LoggedRun]:
    """Runs of a journal that have a log of outcomes, oldest first."""
    for run in read_journal(journal):
        uid, path = run.start.get("uid"), _log_of(journal, run.path)
        if isinstance(uid, str) and path.exists():
            yield _summary(uid, path, run.time)


def find_logged(journal: Path, uid: str) -> LoggedRun:
    """Log of the run whose uid is this, or begins so.

    Raises
    ------
    CatalogError
        If there is none.
    """
    run = find_run(journal, uid) or next(read_journal(journal, uid), None)
    if run is None or not _log_of(journal, run.path).exists():
        raise CatalogError(
            f"no results of run {uid} beside {journal}; make them with `exafsd replay {journal}`"
        )
    return _summary(run.start["uid"], _log_of(journal, run.path), run.time)


def logged_messages(run: LoggedRun) -> Iterator[Message]:
    """Outcomes of a run in order, up to where its log is damaged."""
    for entry in _entries(run.path, []):
        if entry.id:
            yield decode(entry.frames)


def _log_of(journal: Path, documents: Path) -> Path:
    return folder_beside(journal) / f"{documents.stem}.{LOG}"


def _entries(path: Path, damage: list[str]) -> Iterator[Logged]:
    try:
        yield from read_log(path)
    except (DamagedError, FormatError) as error:
        damage.append(str(error))


def _summary(uid: str, path: Path, at: float) -> LoggedRun:
    counts: Counter[str] = Counter()
    damage: list[str] = []
    stopped: str | None = None
    analysis: dict[str, Any] = {"version": "unknown", "settings": {}, "settings_sha256": ""}
    model: dict[str, str] = {}
    start: dict[str, Any] = {"uid": uid, "time": at, "original_run_uid": uid}
    for entry in _entries(path, damage):
        if entry.id:
            counts[entry.kind] += 1
            if entry.model and not model:
                model = json.loads(entry.frames[1])["model"]
        elif entry.kind == "analysis":
            analysis = json.loads(entry.frames[0])
        elif entry.kind == "run.start":
            header = json.loads(entry.frames[1])
            start |= {key: header[key] for key in ("element", "edge", "sample")}
            start["parent_scan_id"] = header["scan_id"]
        elif entry.kind == "run.stop":
            stopped = json.loads(entry.frames[1])["exit_status"]
    named = {"model": model.get("name"), "model_sha256": model.get("sha256")}
    start["analysis"] = {**analysis, **named}
    return LoggedRun(uid, path, start, counts, stopped, damage[0] if damage else None)
