"""Runs that were open when their daemon ended: cut to what is whole, and written to again.

Nothing here needs what a state is made of, so that documents are taken while models are loaded.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from exafsd.archive.journal import REFERRED, Journal, mend
from exafsd.archive.journaled import DAMAGE, JOURNAL, SUFFIX
from exafsd.archive.outcome_log import (
    LOG,
    STATE_ENDING,
    OutcomeLog,
    SavedState,
    mend_log,
    open_runs,
    read_state,
)
from exafsd.archive.records import read_records
from exafsd.codec import dumps, loads
from exafsd.contract.vocabulary import Problem

Report = Callable[[Problem, str], None]
#: how records begin of documents that later ones refer to
_REFERRED = tuple(b"\x92" + dumps(name) for name in REFERRED)


@dataclass(frozen=True)
class OpenRun:
    """A run that was open when its daemon ended.

    Attributes
    ----------
    stem
        Name of its files.
    saved
        Its state of the latest save; None where there is none.
    end
        Place in its journal up to which its documents came by then.
    down
        s since its latest document.
    """

    uid: str
    stem: str
    saved: SavedState | None
    end: int
    down: float


def pick_up(journal: Journal, log: OutcomeLog, report: Report) -> list[OpenRun]:
    """Find the runs that were open, and go on writing to their files.

    Files are cut after their last valid record. Documents can be taken from then on.
    """
    runs: list[OpenRun] = []
    for stem in open_runs(log.folder):
        try:
            run = _pick_up(journal, log, stem, report)
        except (*DAMAGE, OSError) as error:
            what = f"the run of {stem} cannot be gone on with: {error}"
            report(Problem.JOURNAL_DAMAGED, what)
        else:
            runs += [] if run is None else [run]
    return runs


def _pick_up(journal: Journal, log: OutcomeLog, stem: str, report: Report) -> OpenRun | None:
    path = journal.folder / f"{stem}{SUFFIX}"
    marker = log.folder / f"{stem}.{STATE_ENDING}"
    if not path.exists():  # it was deleted, or its disk was full
        marker.unlink()
        return None
    saved = None
    try:
        saved = read_state(log.folder, stem)
    except DAMAGE as error:
        what = f"{marker.name} cannot be used, its run is analysed from its beginning: {error}"
        report(Problem.JOURNAL_DAMAGED, what)
    down = max(time.time() - path.stat().st_mtime, 0.0)
    start = 0 if saved is None else saved.journal
    end, wrong = mend(path, start)
    for text in (wrong, mend_log(log.folder / f"{stem}.{LOG}", saved.log if saved else 0)):
        if text is not None:
            report(Problem.JOURNAL_DAMAGED, text)
    uid, owned = (None, []) if saved is None else (saved.uid, list(saved.owned))
    for content, _ in read_records(path, JOURNAL, start, end):
        if uid is None or content.startswith(_REFERRED):
            name, document = loads(content)
            if name == "start":
                uid = document["uid"]
            elif name in REFERRED:
                owned.append(document["uid"])
    if uid is None:
        marker.unlink()
        return None
    journal.reopen(uid, stem, owned)
    return OpenRun(uid, stem, saved, end, down)
