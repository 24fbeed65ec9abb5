"""The journal: every document as it came, in one file per run, before anything is done with it.

A file is msgpack records ``[name, document]`` one after the other, in the strict codec. External
files are not copied: the documents that name them are.
"""

import contextlib
import hashlib
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import msgpack

from exafsd.codec import dumps, loads
from exafsd.contract.vocabulary import Problem

Document = tuple[str, dict[str, Any]]
Fsync = Literal["never", "stop", "always"]
SUFFIX = ".msgpack"
#: Documents of no known run; a stray publisher must not fill the disk with them.
ORPHANS, ORPHANS_MAX_BYTES = f"orphans{SUFFIX}", 10_000_000
#: Runs kept open at a time: a run that never stops must not hold its file for ever. More than the
#: router follows (64), or what is analysed could not be replayed.
MAX_OPEN = 80
#: A name longer than this is cut; file systems allow 255 bytes.
UID_LENGTH = 64
#: Fields that say which run a document belongs to, in order of preference.
REFERENCES = ("run_start", "descriptor", "stream_resource", "resource")


class Journal:
    """Writes documents; whatever goes wrong is counted and reported, never raised.

    Parameters
    ----------
    folder
        One file per run, ``<UTC start>-<run uid>.msgpack``.
    fsync
        When data are forced to the disk: ``never`` (they survive a crash of this process but not
        of the machine), ``stop`` of the run, or ``always`` (about 1 ms per document).
    max_bytes
        Oldest runs are deleted when a run begins or ends and the folder is larger; 0 keeps all.
    report
        Called with a reason (``unserialisable``, ``disk``, ``orphans_full``, ``malformed``) and
        a sentence, once per reason and run.

    Attributes
    ----------
    failures
        Documents not written, by reason.
    """

    def __init__(
        self,
        folder: Path,
        fsync: Fsync = "never",
        max_bytes: int = 0,
        report: Callable[[Problem, str], None] | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.failures: Counter[Problem] = Counter()
        self._folder, self._fsync, self._max_bytes = folder, fsync, max_bytes
        self._report = report
        self._reported: set[Problem] = set()
        self._open: dict[str, _RunFile] = {}
        #: uid of a start, descriptor, resource or stream resource -> its run
        self._owners: dict[str, _RunFile] = {}

    def write(self, name: str, document: Mapping[str, Any]) -> None:
        """Append a document to the file of its run."""
        try:
            record = dumps([name, document])
            if name == "start":
                self._begin(document)
            target = self._target(document, name)
            target.append(record, sync=self._fsync == "always")
            self._learn(name, document, target)
            if name == "stop" and not isinstance(target, _Orphans):
                self._end(target)
        except OSError as error:
            self._fail(Problem.DISK, f"the journal in {self._folder} cannot be written: {error}")
        except _OrphansFullError:
            self._fail(Problem.ORPHANS_FULL, f"{ORPHANS} has reached {ORPHANS_MAX_BYTES} bytes")
        except Exception as error:  # documents come from the wire: nothing about them is certain
            self._fail(Problem.MALFORMED, f"{type(error).__name__}: {error}")

    def close(self) -> None:
        """Close the files of runs that have not ended."""
        for run in list(self._open.values()):
            self._forget(run)

    def _begin(self, start: Mapping[str, Any]) -> None:
        uid = start["uid"]
        if not isinstance(uid, str):
            raise TypeError(f"the uid of a run is a {type(uid).__name__}")
        if uid in self._open:
            return
        self._reported.clear()
        self._retain()
        while len(self._open) >= MAX_OPEN:
            self._forget(next(iter(self._open.values())))
        path = self._folder / f"{_stamp(start.get('time'))}-{safe_name(uid)}{SUFFIX}"
        self._open[uid] = self._owners[uid] = _RunFile(uid, path)

    def _target(self, document: Mapping[str, Any], name: str) -> "_RunFile":
        keys = ("uid",) if name == "start" else REFERENCES
        named = [document[key] for key in keys if isinstance(document.get(key), str)]
        for reference in named:
            if reference in self._owners:
                return self._owners[reference]
        if not named and self._open:  # resources may name no run: the latest is the best guess
            return next(reversed(self._open.values()))
        return _Orphans("", self._folder / ORPHANS)

    def _learn(self, name: str, document: Mapping[str, Any], target: "_RunFile") -> None:
        if name in ("descriptor", "resource", "stream_resource") and target.uid:
            self._owners[document["uid"]] = target
            target.owned.append(document["uid"])

    def _end(self, run: "_RunFile") -> None:
        if self._fsync != "never":
            run.sync()
        self._forget(run)
        self._retain()

    def _forget(self, run: "_RunFile") -> None:
        self._open.pop(run.uid, None)
        for uid in (run.uid, *run.owned):
            self._owners.pop(uid, None)
        run.close()

    def _retain(self) -> None:
        if not self._max_bytes:
            return
        busy = {run.path for run in self._open.values()}
        files = [(path, path.stat().st_size) for path in _files(self._folder)]
        excess = sum(size for _, size in files) - self._max_bytes
        for path, size in files:
            if excess <= 0:
                return
            if path not in busy:
                path.unlink(missing_ok=True)
                excess -= size

    def _fail(self, reason: Problem, detail: str) -> None:
        self.failures[reason] += 1
        if self._report is not None and reason not in self._reported:
            self._reported.add(reason)
            self._report(reason, detail)


@dataclass(frozen=True)
class JournaledRun:
    """One run in a journal."""

    path: Path

    @cached_property
    def start(self) -> dict[str, Any]:
        """The start document."""
        return next((doc for name, doc in _records(self.path) if name == "start"), {})

    @property
    def time(self) -> float:
        """Start of the run, seconds since 1970; 0 where the start document does not say."""
        at = self.start.get("time")
        return float(at) if isinstance(at, int | float) and at == at else 0.0

    def documents(self, report: Callable[[str], None] | None = None) -> Iterator[Document]:
        """Documents in the order of arrival.

        Parameters
        ----------
        report
            Called with a sentence if the file ends in the middle of a record, as it does after a
            crash, or is damaged; what comes before is still yielded.
        """
        return _records(self.path, report)


def read_journal(
    folder: Path,
    uid: str | None = None,
    last: int | None = None,
    since: float | None = None,
    until: float | None = None,
    search: Mapping[str, Any] | None = None,
) -> Iterator[JournaledRun]:
    """Yield runs of a journal, oldest first.

    Parameters
    ----------
    folder
        As given to `Journal`.
    uid
        Only the run whose uid begins so.
    last
        So many of the latest that fit the other conditions.
    since, until
        Start times, seconds since 1970.
    search
        Items of the start document, by key (dots lead into it) and exact value.
    """

    def fits(run: JournaledRun) -> bool:
        return (
            (uid is None or str(run.start.get("uid", "")).startswith(uid))
            and (since is None or run.time >= since)
            and (until is None or run.time < until)
            and all(_item(run.start, key) == value for key, value in (search or {}).items())
        )

    journaled = sorted(filter(fits, map(JournaledRun, _files(folder))), key=lambda run: run.time)
    yield from journaled if last is None else journaled[max(len(journaled) - last, 0) :]


def find_run(folder: Path, uid: str) -> JournaledRun | None:
    """Run of a journal by its whole uid; no other file is opened."""
    named = (JournaledRun(path) for path in folder.glob(f"*-{safe_name(uid)}{SUFFIX}"))
    return next((run for run in named if run.start.get("uid") == uid), None)


def safe_name(uid: str) -> str:
    """File name for a uid off the wire: letters, digits, ``-`` and ``_``; unique all the same."""
    name = re.sub(r"[^A-Za-z0-9_-]", "_", uid)[:UID_LENGTH]
    if name == uid and name:
        return name
    digest = hashlib.sha256(uid.encode(errors="surrogatepass")).hexdigest()
    return f"{name}-{digest[:16]}".lstrip("-")


class _OrphansFullError(Exception):
    pass


class _RunFile:
    """An open file; unbuffered, so that a killed process loses nothing."""

    def __init__(self, uid: str, path: Path) -> None:
        self.uid, self.path = uid, path
        self.owned: list[str] = []
        self._file = path.open("ab", buffering=0)
        self.size = self._file.tell()

    def append(self, record: bytes, sync: bool) -> None:
        try:
            if self._file.write(record) != len(record):
                raise OSError("the disk is full")
            if sync:
                self.sync()
        except OSError:
            with contextlib.suppress(OSError):  # half a record would hide all that follow
                self._file.truncate(self.size)
            raise
        self.size += len(record)

    def sync(self) -> None:
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


class _Orphans(_RunFile):
    """Opened for one document at a time: rare, and never the hot path."""

    def append(self, record: bytes, sync: bool) -> None:
        try:
            if self.size + len(record) > ORPHANS_MAX_BYTES:
                raise _OrphansFullError
            super().append(record, sync)
        finally:
            self.close()


def _stamp(at: Any) -> str:
    try:
        moment = time.gmtime(float(at))
    except (TypeError, ValueError, OverflowError, OSError):
        moment = time.gmtime()
    return time.strftime("%Y%m%dT%H%M%S", moment)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob(f"*{SUFFIX}") if path.name != ORPHANS)


def _records(path: Path, report: Callable[[str], None] | None = None) -> Iterator[Document]:
    size = path.stat().st_size
    with path.open("rb") as boundaries, path.open("rb") as content:
        unpacker = msgpack.Unpacker(boundaries, max_buffer_size=max(size, 1))
        end = 0
        try:
            while end < size:
                unpacker.skip()
                length, end = unpacker.tell() - end, unpacker.tell()
                name, document = loads(content.read(length))
                yield name, document
        except (msgpack.OutOfData, ValueError, TypeError) as error:
            if report:
                report(f"{path.name} is incomplete after byte {end} of {size}: {error!r}")


def _item(document: Any, key: str) -> Any:
    for part in key.split("."):
        document = document.get(part) if isinstance(document, Mapping) else None
    return document
