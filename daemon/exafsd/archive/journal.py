"""The journal: every document as it came, in one file per run, before anything is done with it.

A file holds records of ``[name, document]`` in the strict codec. External files are not copied: the
documents that name them are.
"""

import contextlib
import fcntl
import os
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from exafsd.archive.journaled import (
    JOURNAL,
    ORPHANS,
    SUFFIX,
    JournaledRun,
    find_run,
    read_journal,
    safe_name,
    stem_of,
)
from exafsd.archive.records import (
    OVERHEAD,
    DamagedError,
    FormatError,
    RecordFile,
    cut,
    make_folder,
    read_records,
)
from exafsd.archive.retention import Retention
from exafsd.codec import dumps
from exafsd.contract.vocabulary import Problem

Fsync = Literal["never", "stop", "always"]
#: a stray publisher must not fill the disk with documents of no known run
ORPHANS_MAX_BYTES = 10_000_000
#: Runs kept open at a time: a run that never stops must not hold its file for ever. More than the
#: router follows (64), or what is analysed could not be replayed.
MAX_OPEN = 80
#: Fields that say which run a document belongs to, in order of preference.
REFERENCES = ("run_start", "descriptor", "stream_resource", "resource")
#: kinds of documents that others refer to
REFERRED = ("descriptor", "resource", "stream_resource")


class JournalError(OSError):
    """The folder cannot be a journal: another daemon has it, or it cannot be written."""


class Place(NamedTuple):
    """Where a document ends in the file of its run."""

    run_uid: str
    end: int


class Journal:
    """Writes documents; whatever goes wrong is counted and reported, never raised.

    Parameters
    ----------
    folder
        One file per run, ``<UTC start>-<run uid>.msgpack``. It is locked against other daemons.
    fsync
        When data are forced to the disk: ``never`` (they survive a crash of this process but not
        of the machine), ``stop`` of the run, or ``always`` (about 1 ms per document).
    max_bytes
        Oldest runs are deleted when a run begins or ends and the folder is larger; 0 keeps all.
    report
        Called with a reason (``unserialisable``, ``disk``, ``orphans_full``, ``malformed``) and
        a sentence, once per reason and run.
    beside
        Folders with other files of the same runs, which are deleted with them.

    Attributes
    ----------
    failures
        Documents not written, by reason.
    failing
        Whether the latest document of a run could not be written.
    on_begin
        Called with the name of a run's files before there are any.
    stems
        Run uid to the name of its files, of runs that have not been forgotten.

    Raises
    ------
    JournalError
        If another daemon writes to the folder, or it cannot be made.
    """

    def __init__(
        self,
        folder: Path,
        fsync: Fsync = "never",
        max_bytes: int = 0,
        report: Callable[[Problem, str], None] | None = None,
        beside: Iterable[Path] = (),
    ) -> None:
        self.failures: Counter[Problem] = Counter()
        self.failing = False
        self.folder, self._fsync = folder, fsync
        try:
            for one in (folder, *beside):
                make_folder(one)
            self._unlock = weakref.finalize(self, os.close, _locked(folder))
            self.retention = Retention((folder, *beside), max_bytes)
        except JournalError:
            raise
        except OSError as error:
            raise JournalError(f"the journal {folder} cannot be used: {error}") from None
        self._report = report
        self._reported: set[Problem] = set()
        self.stems: dict[str, str] = {}
        self.on_begin: Callable[[str], None] | None = None
        self._open: dict[str, _RunFile] = {}
        #: uid of a start, descriptor, resource or stream resource -> its run
        self._owners: dict[str, _RunFile] = {}

    def write(self, name: str, document: Mapping[str, Any]) -> Place | None:
        """Append a document to the file of its run; where it ends, None if it is not kept."""
        try:
            record = dumps([name, document])
            if name == "start":
                self._begin(document)
            target = self._target(document, name)
            if target is None:
                self._keep_orphan(record)
                return None
            before = target.file.size
            end = target.file.append(record, sync=self._fsync == "always")
            self.retention.grew(target.stem, end - before, SUFFIX[1:])
            self.failing = False
            self._learn(name, document, target)
            if name == "stop":
                self._end(target)
            return Place(target.uid, end)
        except OSError as error:
            self.failing = True
            self._fail(Problem.DISK, f"the journal in {self.folder} cannot be written: {error}")
        except _OrphansFullError:
            self._fail(Problem.ORPHANS_FULL, f"{ORPHANS} has reached {ORPHANS_MAX_BYTES} bytes")
        except Exception as error:  # documents come from the wire: nothing about them is certain
            self._fail(Problem.MALFORMED, f"{type(error).__name__}: {error}")
        return None

    def reopen(self, uid: str, stem: str, owned: Iterable[str]) -> None:
        """Go on with the file of a run that another daemon had begun.

        Parameters
        ----------
        owned
            Uids of its descriptors and resources.
        """
        if uid in self._open:
            return
        run = _RunFile(uid, stem, RecordFile(self.folder / f"{stem}{SUFFIX}", JOURNAL))
        self.stems[uid] = stem
        self._open[uid] = self._owners[uid] = run
        run.owned = list(owned)
        self._owners |= dict.fromkeys(run.owned, run)

    def forget(self, uid: str) -> None:
        """Let go of a run that is over; its files may be deleted from now on."""
        if (run := self._open.get(uid)) is not None:
            self._close(run)
        self.stems.pop(uid, None)

    def close(self) -> None:
        """Close the files of runs that have not ended, and give the folder free."""
        for run in list(self._open.values()):
            self._close(run)
        self._unlock()

    def _begin(self, start: Mapping[str, Any]) -> None:
        uid = start["uid"]
        if not isinstance(uid, str):
            raise TypeError(f"the uid of a run is a {type(uid).__name__}")
        if uid in self._open:
            return
        self._reported.clear()
        self.retention.make_room({run.stem for run in self._open.values()})
        while len(self._open) >= MAX_OPEN:
            self.forget(next(iter(self._open)))
        stem = self._usable(stem_of(uid, start.get("time")))
        if self.on_begin is not None:
            self.on_begin(stem)
        run = _RunFile(uid, stem, RecordFile(self.folder / f"{stem}{SUFFIX}", JOURNAL))
        self.stems[uid] = stem
        self._open[uid] = self._owners[uid] = run

    def _usable(self, stem: str) -> str:
        """Name for a run's file; of one that came before, its file if records may follow in it."""
        path = self.folder / f"{stem}{SUFFIX}"
        if not path.exists():
            return stem
        try:
            mend(path)
        except FormatError:  # a file is of one format
            return f"{stem}-again"
        return stem

    def _target(self, document: Mapping[str, Any], name: str) -> "_RunFile | None":
        keys = ("uid",) if name == "start" else REFERENCES
        named = [document[key] for key in keys if isinstance(document.get(key), str)]
        for reference in named:
            if reference in self._owners:
                return self._owners[reference]
        if not named and self._open:  # resources may name no run: the latest is the best guess
            return next(reversed(self._open.values()))
        return None

    def _learn(self, name: str, document: Mapping[str, Any], target: "_RunFile") -> None:
        if name in REFERRED:
            self._owners[document["uid"]] = target
            target.owned.append(document["uid"])

    def _keep_orphan(self, record: bytes) -> None:
        """Keep a document of no known run: rare, and never the hot path."""
        path = self.folder / ORPHANS
        size = path.stat().st_size if path.exists() else 0
        if size + len(record) + OVERHEAD > ORPHANS_MAX_BYTES:
            raise _OrphansFullError
        with contextlib.closing(RecordFile(path, JOURNAL)) as file:
            file.append(record)

    def _end(self, run: "_RunFile") -> None:
        if self._fsync != "never":
            run.file.sync()
        self._close(run)
        self.retention.make_room({run.stem for run in self._open.values()})

    def _close(self, run: "_RunFile") -> None:
        self._open.pop(run.uid, None)
        for uid in (run.uid, *run.owned):
            self._owners.pop(uid, None)
        run.file.close()

    def _fail(self, reason: Problem, detail: str) -> None:
        self.failures[reason] += 1
        if self._report is not None and reason not in self._reported:
            self._reported.add(reason)
            self._report(reason, detail)


class _RunFile:
    """The open file of a run, and the uids of what belongs to the run."""

    def __init__(self, uid: str, stem: str, file: RecordFile) -> None:
        self.uid, self.stem, self.file = uid, stem, file
        self.owned: list[str] = []


class _OrphansFullError(Exception):
    pass


def mend(path: Path, start: int = 0) -> tuple[int, str | None]:
    """Cut a file off after its last valid record, from place `start` on.

    Returns
    -------
    Where its last record ends now, and what was wrong with it; None: nothing.

    Raises
    ------
    FormatError
        If it is of another version; it is left as it is.
    """
    end = start
    try:
        for record in read_records(path, JOURNAL, start):
            end = record.end
    except DamagedError as error:
        if start and end == start:  # perhaps no record begins there
            return mend(path)
        lost = cut(path, end)
        return end, f"{error}; {lost} bytes were cut off and are in {path.name}.cut"
    return end, None


def _locked(folder: Path) -> int:
    """Lock of a folder, which ends with this process, however it ends."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise JournalError(
            f"another exafsd writes to the journal {folder}: stop it, or give this one a folder of"
            " its own (journal.folder)"
        ) from None
    except OSError:  # a network file system without locks
        return handle
    return handle


__all__ = [
    "MAX_OPEN",
    "ORPHANS",
    "Fsync",
    "Journal",
    "JournalError",
    "JournaledRun",
    "Place",
    "find_run",
    "mend",
    "read_journal",
    "safe_name",
]
