"""What lets another process go on with the runs of this one: journal, outcome log, saved states."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import msgpack

from exafsd.archive.journal import REFERRED, Journal, Place, mend
from exafsd.archive.journaled import DAMAGE, JOURNAL, SUFFIX
from exafsd.archive.outcome_log import (
    LOG,
    SAVED,
    OutcomeLog,
    Saved,
    mend_log,
    open_runs,
    read_log,
    read_saved,
)
from exafsd.archive.records import read_records
from exafsd.codec import dumps, loads
from exafsd.contract.vocabulary import Problem
from exafsd.documents.inbox import AHEAD, Inbox
from exafsd.documents.items import Began, Ended, Trouble
from exafsd.pipeline import Outcome
from exafsd.service.run_state import RunState, StateError
from exafsd.service.session import Event, Session

#: s between two saves of a run's state, and the largest share of the time that saving may take
SAVE, SHARE = 30.0, 0.01
#: s without a document after which a run that was open is not gone on with
OLD = 86_400.0
#: times in a row that the daemon may end while it goes on with a run, before it leaves it alone
TRIES = 5
#: how records begin of documents that later ones refer to
_REFERRED = tuple(b"\x92" + dumps(name) for name in REFERRED)


@dataclass
class _OpenRun:
    """A run that was open when its daemon ended."""

    uid: str
    stem: str
    state: RunState | None
    saved: Saved | None
    end: int
    down: float  # s since its latest document


class Keeping:
    """Keeps the runs of a session on disk, and goes on with those of the daemon before.

    Parameters
    ----------
    session
        Whose runs they are.
    journal, log
        Where documents and outcomes are written.
    """

    def __init__(self, session: Session, journal: Journal, log: OutcomeLog) -> None:
        self._session = session
        self.journal, self.log = journal, log
        self._processed: dict[str, int] = {}  # run uid -> place in its journal
        self._saved: dict[str, int] = {}
        self._due = time.monotonic() + SAVE
        self._open: list[_OpenRun] = []
        #: uid to s without documents, of runs that are gone on with and had no document since
        self.interrupted: dict[str, float] = {}

    def processed(self, place: Place | None) -> None:
        """Everything up to this place of a run has been fed to the session."""
        if place is not None and self._session.is_open(place.run_uid):
            self._processed[place.run_uid] = place.end
            self.interrupted.pop(place.run_uid, None)

    def began(self, uid: str) -> None:
        """A run has begun."""
        self.log.begin(uid)

    def ended(self, uid: str) -> None:
        """A run is over, and its end has been sent."""
        self.log.end(uid)
        self.journal.forget(uid)
        for places in (self._processed, self._saved, self.interrupted):
            places.pop(uid, None)

    def save_due(self) -> None:
        """Save the runs that are open, now and then."""
        if time.monotonic() >= self._due:
            began = time.monotonic()
            self._save_all()
            took = time.monotonic() - began
            self._due = time.monotonic() + max(SAVE, took / SHARE)

    def kept(self) -> set[str]:
        """Runs that another process can go on with."""
        return self._processed.keys() & self.journal.stems.keys()

    def close(self) -> None:
        """Save the runs that are open, and close all files."""
        self._save_all()
        self.log.close()
        self.journal.close()

    def _save_all(self) -> None:
        for uid, place in self._processed.items():
            if self._saved.get(uid) != place and self._session.is_open(uid):
                self.log.save(uid, place, self._session.save(uid).dump(time.monotonic()))
                self._saved[uid] = place

    def pick_up(self) -> list[Trouble]:
        """Find the runs that were open, and go on writing to their files; what was wrong.

        Files are cut after their last valid record. Documents can be taken from then on.
        """
        troubles: list[Trouble] = []
        for stem in open_runs(self.log.folder):
            try:
                troubles += self._pick_up(stem)
            except (*DAMAGE, OSError) as error:
                what = f"the run of {stem} cannot be gone on with: {error}"
                troubles.append(Trouble(Problem.JOURNAL_DAMAGED, what))
        return troubles

    def _pick_up(self, stem: str) -> Iterator[Trouble]:
        path = self.journal.folder / f"{stem}{SUFFIX}"
        marker = self.log.folder / f"{stem}.{SAVED}"
        if not path.exists():  # it was deleted, or its disk was full
            marker.unlink()
            return
        state = saved = None
        try:
            saved = read_saved(self.log.folder, stem)
            if saved is not None:
                state = RunState.load(saved.state, time.monotonic())
        except (*DAMAGE, StateError, ValueError, TypeError, msgpack.UnpackException) as error:
            saved = None
            yield Trouble(
                Problem.JOURNAL_DAMAGED,
                f"{marker.name} cannot be used, its run is analysed from its beginning: {error}",
            )
        end, wrong = mend(path, saved.journal if saved else 0)
        if wrong is not None:
            yield Trouble(Problem.JOURNAL_DAMAGED, wrong)
        wrong = mend_log(self.log.folder / f"{stem}.{LOG}", saved.log if saved else 0)
        if wrong is not None:
            yield Trouble(Problem.JOURNAL_DAMAGED, wrong)
        uid = state.assembler.run.uid if state else None
        owned = list(state.assembler.owned) if state else []
        for content, _ in read_records(path, JOURNAL, saved.journal if saved else 0, end):
            if uid is None or content.startswith(_REFERRED):
                name, document = loads(content)
                if name == "start":
                    uid = document["uid"]
                elif name in REFERRED:
                    owned.append(document["uid"])
        if uid is None:
            marker.unlink()
            return
        down = max(time.time() - path.stat().st_mtime, 0.0)
        self.journal.reopen(uid, stem, owned)
        self._open.append(_OpenRun(uid, stem, state, saved, end, down))

    def resume(self, tick: Callable[[], None]) -> Iterator[Event]:
        """Go on with the runs that were open: what their logs do not have yet.

        Parameters
        ----------
        tick
            Called after each document.
        """
        for run in self._open:
            tries = _Tries(self.log.folder / f"{run.stem}.tries")
            if tries.count >= TRIES:
                yield Trouble(
                    Problem.RESUMED,
                    f"run {run.uid}: the daemon has ended {TRIES} times while it went on with it;"
                    " it is left alone. Replay it from the journal",
                )
                self.ended(run.uid)
                tries.clear()
                continue
            tries.add()
            yield from self._resume(run, tick)
            tries.clear()
        self._open.clear()
        self._save_all()

    def _resume(self, run: _OpenRun, tick: Callable[[], None]) -> Iterator[Event]:
        path = self.log.folder / f"{run.stem}.{LOG}"
        start = run.saved or Saved(0, 0, b"")
        logged: set[tuple[str, int]] = set()
        stopped = False
        if path.exists():
            for entry in read_log(path, start.log):
                logged.add(entry.key)
                stopped |= entry.kind == "run.stop"
        self._processed[run.uid] = start.journal
        self.interrupted[run.uid] = run.down
        yield Trouble(
            Problem.RESUMED,
            f"run {run.uid} was open, {run.down:.0f} s after its latest document, and goes on;"
            " what was sent while no daemon was here is missing",
        )
        if run.state is not None:
            self._session.resume(run.state)
            yield Began(run.state.assembler.run, "resumed")

        def new(events: Iterator[Event]) -> Iterator[Event]:
            for event in events:
                if isinstance(event, Outcome):
                    if (event.message.id, event.message.revision) in logged:
                        continue
                    event.message.delivery = "resumed"
                elif isinstance(event, Ended) and stopped:
                    self.ended(event.run.uid)
                    continue
                yield replace(event, delivery="resumed") if isinstance(event, Began) else event

        with self._session.unhurried():
            file = self.journal.folder / f"{run.stem}{SUFFIX}"
            for content, end in read_records(file, JOURNAL, start.journal, run.end):
                try:
                    name, document = loads(content)
                except ValueError:  # it could not be read when it came either
                    continue
                yield from new(self._session.feed(name, document))
                self._processed[run.uid] = end
                tick()
            yield from new(self._session.flush())
        if not self._session.is_open(run.uid):
            self._processed.pop(run.uid, None)
            self.interrupted.pop(run.uid, None)
        elif run.down > OLD:
            yield from new(self._session.give_up(run.uid))


class _Tries:
    """How often it was tried to go on with a run, in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self.count = path.stat().st_size
        except OSError:
            self.count = 0

    def add(self) -> None:
        """One more."""
        try:
            self._path.touch(0o600)
            with self._path.open("ab") as file:
                file.write(b".")
        except OSError:  # a full disk: it is tried again and again
            return

    def clear(self) -> None:
        """It went well."""
        self._path.unlink(missing_ok=True)


class WriteAhead:
    """A thread that writes down what comes while the worker is at work.

    Parameters
    ----------
    inbox
        That documents come by.
    """

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="exafsd-journal", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(AHEAD):
            self._inbox.write_ahead()
