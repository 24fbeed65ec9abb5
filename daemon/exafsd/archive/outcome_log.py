"""The outcome log: every outcome as it is sent, before it is sent, in one file per run.

A record is a msgpack list, as the fields of `Logged`. Beside the log lies the run's state of the
latest save, from which another process goes on; its file is there for as long as the run is open.
"""

import errno
import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import msgpack

from exafsd.archive.journal import Fsync, Journal
from exafsd.archive.records import (
    DamagedError,
    Format,
    FormatError,
    RecordFile,
    cut,
    latest_records,
    read_records,
)
from exafsd.contract.messages import BaseMessage, Identity, Result
from exafsd.contract.vocabulary import Problem

OUTCOMES_FORMAT, STATE_FORMAT = Format("exafsd.outcomes", 1), Format("exafsd.state", 1)
LOG, STATE_ENDING = "log", "state"
#: what outcomes leave of a disk to the documents, from which they can be made again: bytes, and
#: the share of a small disk
RESERVED, SHARE = 256_000_000, 0.05
#: s between two looks at the disk
LOOK = 1.0


def folder_beside(journal: Path) -> Path:
    """Folder of the outcome logs that belong to a journal."""
    return journal.with_name(f"{journal.name}-outcomes")


class Logged(NamedTuple):
    """A message of a run as it is in the log; `id` to `model` are empty where it is no outcome."""

    kind: str
    id: str
    revision: int
    settings: str
    model: str
    publisher: str
    seq: int
    time: float
    frames: list[bytes]

    @property
    def key(self) -> tuple[str, int]:
        """What there is one of in the log."""
        return self.id, self.revision

    @classmethod
    def of(cls, message: BaseMessage, frames: Sequence[bytes]) -> "Logged":
        """Entry of a message that is about to be sent."""
        id_, revision, settings, model = "", 0, "", ""
        if isinstance(message, Identity):
            id_, revision, settings = message.id, message.revision, message.settings_sha256
            if isinstance(message, Result) and message.model is not None:
                model = message.model.sha256
        kind: str = message.kind  # type: ignore[attr-defined]
        return cls(
            kind, id_, revision, settings, model,
            message.publisher, message.seq, message.time, list(frames),
        )  # fmt: skip


@dataclass(frozen=True)
class SavedState:
    """A run's state, and where in its journal and its log it was saved.

    `owned` are the uids of its descriptors and resources.
    """

    uid: str
    owned: list[str]
    journal: int
    log: int
    state: bytes


class OutcomeLog:
    """Writes the messages of runs; whatever goes wrong is counted and reported, never raised.

    Parameters
    ----------
    journal
        Whose runs they are.
    folder
        One file per run, named as in the journal.
    fsync
        ``always``: each outcome is forced to the disk before it is sent.
    report
        Called with a reason and a sentence, once per run.

    Attributes
    ----------
    failures
        Messages not written.
    failing
        Whether the latest one could not be written.
    """

    def __init__(
        self, journal: Journal, folder: Path, fsync: Fsync, report: Callable[[Problem, str], None]
    ) -> None:
        self.folder, self._journal, self._report = folder, journal, report
        self._sync = fsync == "always"
        self.failures: Counter[Problem] = Counter()
        self.failing = False
        self._files: dict[str, RecordFile] = {}
        self._reported: set[str] = set()
        self._looked, self._short = float("-inf"), ""
        journal.on_begin = self._mark

    def path_of(self, uid: str) -> Path | None:
        """Log of an open run; None where nothing was logged."""
        path = self.folder / f"{self._journal.stems.get(uid)}.{LOG}"
        return path if path.exists() else None

    def describe(self, uid: str, analysis: Mapping[str, Any]) -> None:
        """Log how a run is analysed."""
        stem = self._journal.stems.get(uid)
        if stem is None:
            return
        frames = [json.dumps(analysis).encode()]
        entry = Logged("analysis", "", 0, "", "", "", 0, time.time(), frames)
        content = msgpack.packb(tuple(entry)) or b""
        self._guarded(uid, lambda: self._append(uid, stem, content))

    def append(self, message: BaseMessage, frames: Sequence[bytes]) -> None:
        """Log a message that is about to be sent; others than those of runs are not."""
        uid = getattr(message, "run_uid", None)
        stem = self._journal.stems.get(uid) if isinstance(uid, str) else None
        if uid is None or stem is None:
            return
        content = msgpack.packb(tuple(Logged.of(message, frames))) or b""
        self._guarded(uid, lambda: self._append(uid, stem, content))

    def save(self, uid: str, owned: list[str], journal: int, state: bytes) -> None:
        """Save the state of an open run, after what is processed of its file in the journal."""
        stem = self._journal.stems.get(uid)
        if stem is None:
            return
        log = self._files[uid].size if uid in self._files else 0
        content = msgpack.packb((uid, owned, journal, log, state)) or b""
        path = self.folder / f"{stem}.{STATE_ENDING}"

        def write() -> None:
            partial = path.with_name(f"{stem}.saving")
            partial.unlink(missing_ok=True)
            file = RecordFile(partial, STATE_FORMAT)
            try:
                file.append(content, self._sync)
            finally:
                file.close()
            partial.replace(path)

        self._guarded(uid, write)

    def end(self, uid: str) -> None:
        """A run is over: nobody has to go on with it."""
        self.close(uid)
        stem = self._journal.stems.get(uid)
        if stem is not None:
            self._guarded(
                uid, lambda: (self.folder / f"{stem}.{STATE_ENDING}").unlink(missing_ok=True)
            )

    def close(self, uid: str | None = None) -> None:
        """Close the file of a run, or of all."""
        for one in [uid] if uid is not None else list(self._files):
            if one in self._files:
                self._files.pop(one).close()

    def _mark(self, stem: str) -> None:
        """Mark a run as open, so that another process goes on with it if this one ends."""
        self._guarded(stem, lambda: (self.folder / f"{stem}.{STATE_ENDING}").touch(0o600))

    def _append(self, uid: str, stem: str, content: bytes) -> None:
        if self._is_short():
            raise OSError(errno.ENOSPC, self._short)
        file = self._files.get(uid)
        if file is None:
            file = self._files[uid] = RecordFile(self.folder / f"{stem}.{LOG}", OUTCOMES_FORMAT)
        before = file.size
        file.append(content, self._sync)
        self.failing = False
        self._journal.retention.grew(stem, file.size - before, LOG)

    def _is_short(self) -> bool:
        """Whether the rest of the disk is for documents."""
        now = time.monotonic()
        if now - self._looked > LOOK:
            disk = shutil.disk_usage(self.folder)
            reserved = min(RESERVED, int(SHARE * disk.total))
            full = os.strerror(errno.ENOSPC)
            text = f"{full}; the last {reserved / 1e6:.0f} MB are for documents"
            self._looked, self._short = now, text if disk.free < reserved else ""
        return bool(self._short)

    def _guarded(self, uid: str, write: Callable[[], object]) -> None:
        try:
            write()
        except OSError as error:
            self.failing = True
            self.failures[Problem.OUTCOME_LOG] += 1
            if uid not in self._reported:
                self._reported.add(uid)
                self._report(
                    Problem.OUTCOME_LOG,
                    f"run {uid}: outcomes cannot be logged in {self.folder}: {error}",
                )


def open_runs(folder: Path) -> list[str]:
    """Names of the files of runs that were open when their daemon ended, oldest first."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if entry.name.endswith(f".{STATE_ENDING}")]
    return sorted(name.removesuffix(f".{STATE_ENDING}") for name in names)


def read_state(folder: Path, stem: str) -> SavedState | None:
    """Latest saved state of an open run; None where none was saved.

    Raises
    ------
    DamagedError, FormatError
        If it is not as it was written.
    """
    path = folder / f"{stem}.{STATE_ENDING}"
    for content, _ in read_records(path, STATE_FORMAT):
        try:
            return SavedState(*msgpack.unpackb(content))
        except (ValueError, TypeError, msgpack.UnpackException) as error:
            raise DamagedError(f"{path.name} holds no state: {error}") from None
    return None


def read_log(path: Path, start: int = 0, end: int | None = None) -> Iterator[Logged]:
    """Messages of a run in the order in which they were sent.

    Raises
    ------
    DamagedError, FormatError
        At the first that is not as it was written.
    """
    for content, _ in read_records(path, OUTCOMES_FORMAT, start, end):
        yield Logged(*msgpack.unpackb(content))


def mend_log(path: Path, start: int = 0) -> str | None:
    """Cut a log off after its last valid record, from place `start` on; what was wrong with it."""
    if not path.exists():
        return None
    end = start
    try:
        for record in read_records(path, OUTCOMES_FORMAT, start):
            end = record.end
    except DamagedError as error:
        lost = cut(path, end)
        return f"{error}; {lost} bytes were cut off and are in {path.name}.cut"
    except FormatError as error:
        path.replace(path.with_name(f"{path.name}.other"))
        return f"{error}; it is {path.name}.other now"
    return None


def latest_logged(folder: Path, messages: int, most_bytes: int) -> list[Logged]:
    """Latest messages of all runs, oldest first, within a number and a size."""
    with os.scandir(folder) as entries:
        logs = [(e.stat().st_mtime, e.path) for e in entries if e.name.endswith(f".{LOG}")]
    latest: list[Logged] = []
    size = 0
    for _, path in sorted(logs, reverse=True):
        for content in latest_records(Path(path), OUTCOMES_FORMAT):
            size += len(content)
            if len(latest) >= messages or size > most_bytes:
                return sorted(latest, key=lambda one: one.time)
            entry = Logged(*msgpack.unpackb(content))
            if entry.publisher:
                latest.append(entry)
    return sorted(latest, key=lambda one: one.time)
