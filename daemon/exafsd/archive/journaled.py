"""Runs of a journal, read back: found by uid, time and metadata, damage told."""

import hashlib
import re
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import msgpack

from exafsd.archive.records import DamagedError, Format, FormatError, read_records
from exafsd.codec import loads
from exafsd.contract.vocabulary import BACKFILLED_KEY

Document = tuple[str, dict[str, Any]]
#: of the files; the first version had bare msgpack records, and no first line
JOURNAL = Format("exafsd.journal", 2)
SUFFIX = ".msgpack"
#: what is in every record of a page that was fetched from an archive
_FETCHED = BACKFILLED_KEY.encode()
#: documents of no known run
ORPHANS = f"orphans{SUFFIX}"
#: first byte of a file of the first version: a msgpack list of two
FIRST_VERSION = b"\x92"
#: A name longer than this is cut; file systems allow 255 bytes.
UID_LENGTH = 64
#: what reading a file raises where it is not as it was written
DAMAGE = (DamagedError, FormatError)


@dataclass(frozen=True)
class JournaledRun:
    """One run in a journal."""

    path: Path

    @cached_property
    def start(self) -> dict[str, Any]:
        """The start document; empty where it cannot be read."""
        with suppress(*DAMAGE):
            old = is_first_version(self.path)
            written = _first_version(self.path) if old else self._loaded(None)
            return next((doc for name, doc in written if name == "start"), {})
        return {}

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
            crash, or is damaged, or of a later version; what comes before is still yielded.
        """
        try:
            if is_first_version(self.path):
                yield from _first_version(self.path)
            else:
                yield from in_order(self._loaded(report), self._fetched())
        except DAMAGE as error:
            if report:
                report(str(error))

    def _loaded(self, report: Callable[[str], None] | None) -> Iterator[Document]:
        for content, end in read_records(self.path, JOURNAL):
            try:
                name, document = loads(content)
            except (ValueError, TypeError) as error:  # as it was sent: others follow
                if report:
                    report(f"{self.path.name}: no document before byte {end}: {error}")
                continue
            yield name, document

    def _fetched(self) -> list[dict[str, Any]]:
        """Pages that were fetched from an archive, which are behind others that came live."""
        pages: list[dict[str, Any]] = []
        with suppress(*DAMAGE):
            for content, _ in read_records(self.path, JOURNAL):
                if _FETCHED in content:
                    with suppress(ValueError, TypeError):
                        pages.append(loads(content)[1])
        return [page for page in pages if isinstance(page, dict) and BACKFILLED_KEY in page]


def in_order(documents: Iterable[Document], fetched: list[dict[str, Any]]) -> Iterator[Document]:
    """Documents with fetched pages where they would have come: before later rows, and the stop."""
    waiting: dict[str, deque[dict[str, Any]]] = defaultdict(deque)  # by descriptor
    for page in sorted(fetched, key=lambda page: page["seq_num"][0]):
        waiting[page["descriptor"]].append(page)
    for name, document in documents:
        if name == "event_page" and BACKFILLED_KEY in document:
            continue
        if name in ("event", "event_page") and waiting:
            numbers = document.get("seq_num")
            first = numbers[0] if isinstance(numbers, Sequence) and numbers else numbers
            pages = waiting[str(document.get("descriptor"))]
            while pages and isinstance(first, int) and pages[0]["seq_num"][0] < first:
                yield "event_page", pages.popleft()
        elif name == "stop":
            for pages in waiting.values():
                yield from (("event_page", page) for page in pages)
            waiting.clear()
        yield name, document
    for pages in waiting.values():
        yield from (("event_page", page) for page in pages)


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

    files = sorted(path for path in folder.glob(f"*{SUFFIX}") if path.name != ORPHANS)
    journaled = sorted(filter(fits, map(JournaledRun, files)), key=lambda run: run.time)
    yield from journaled if last is None else journaled[max(len(journaled) - last, 0) :]


def find_run(folder: Path, uid: str) -> JournaledRun | None:
    """Run of a journal by its whole uid; no other file is opened."""
    named = (JournaledRun(path) for path in folder.glob(f"*-{safe_name(uid)}{SUFFIX}"))
    return next((run for run in named if run.start.get("uid") == uid), None)


def latest_write(folder: Path) -> float | None:
    """When a document of a run was last written, s since 1970; None: never."""
    files = (path for path in folder.glob(f"*{SUFFIX}") if path.name != ORPHANS)
    return max((path.stat().st_mtime for path in files), default=None)


def is_first_version(path: Path) -> bool:
    """Whether a file has the bare records of the first version, without checksums."""
    with path.open("rb") as file:
        return file.read(1) == FIRST_VERSION


def stem_of(uid: str, at: Any) -> str:
    """Name of a run's files, without what they end in; `at`: start, seconds since 1970."""
    try:
        moment = time.gmtime(float(at))
    except (TypeError, ValueError, OverflowError, OSError):
        moment = time.gmtime()
    return f"{time.strftime('%Y%m%dT%H%M%S', moment)}-{safe_name(uid)}"


def safe_name(uid: str) -> str:
    """File name for a uid off the wire: letters, digits, ``-`` and ``_``; unique all the same."""
    name = re.sub(r"[^A-Za-z0-9_-]", "_", uid)[:UID_LENGTH]
    if name == uid and name:
        return name
    digest = hashlib.sha256(uid.encode(errors="surrogatepass")).hexdigest()
    return f"{name}-{digest[:16]}".lstrip("-")


def _first_version(path: Path) -> Iterator[Document]:
    size = path.stat().st_size
    with path.open("rb") as boundaries, path.open("rb") as content:
        unpacker = msgpack.Unpacker(boundaries, max_buffer_size=max(size, 1))
        end = 0
        while end < size:
            try:
                unpacker.skip()
                length, after = unpacker.tell() - end, unpacker.tell()
                name, document = loads(content.read(length))
                if not isinstance(name, str):  # what follows is not as it was written either
                    raise TypeError(f"{name!r} is no name of a document")
            except (msgpack.OutOfData, ValueError, TypeError) as error:
                raise DamagedError(
                    f"{path.name} is incomplete after byte {end} of {size}: {error!r}"
                ) from None
            yield name, document
            end = after


def _item(document: Any, key: str) -> Any:
    for part in key.split("."):
        document = document.get(part) if isinstance(document, Mapping) else None
    return document
