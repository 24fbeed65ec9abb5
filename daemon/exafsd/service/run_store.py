"""Runs on disk, for a process that goes on with them: journal, outcome log, saved states."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Any

from exafsd.archive.journal import Journal, Place
from exafsd.archive.journaled import JOURNAL, SUFFIX, find_run
from exafsd.archive.open_runs import OpenRun
from exafsd.archive.outcome_log import LOG, OutcomeLog, SavedState, read_log
from exafsd.archive.records import read_records
from exafsd.codec import loads
from exafsd.contract.vocabulary import Problem
from exafsd.documents.inbox import Arrival
from exafsd.documents.items import Began, Ended, Trouble
from exafsd.outcome import Outcome
from exafsd.service.run_state import RunState, StateError
from exafsd.service.session import Event, Session

#: s and sweeps after which the state of a run is saved again: what has come since is analysed once
#: more after a restart. And the largest share of the time that saving may take.
SAVE, SWEEPS, SHARE = 30.0, 1000, 0.01
#: s without a document after which a run that was open is not gone on with
OLD = 86_400.0
#: times in a row that the daemon may end while it goes on with a run, before it leaves it alone
TRIES = 5


class RunStore:
    """Keeps the runs of a session on disk, and goes on with those of the daemon before.

    Parameters
    ----------
    session
        Whose runs they are.
    journal, log
        Where documents and outcomes are written.
    interrupted
        Runs that were open when the daemon before ended.
    writing
        Is held by who writes documents.
    """

    def __init__(
        self,
        session: Session,
        journal: Journal,
        log: OutcomeLog,
        interrupted: Iterable[OpenRun],
        writing: Lock,
    ) -> None:
        self._session = session
        self._writing = writing
        self.journal, self.log = journal, log
        self._open = list(interrupted)
        self._processed: dict[str, int] = {}  # run uid -> place in its journal
        self._saved: dict[str, int] = {}
        self._due = time.monotonic() + SAVE
        self._earliest, self._sweeps = 0.0, session.sweeps
        #: uid to s without documents, of runs that are gone on with and had no document since
        self.interrupted: dict[str, float] = {}

    def processed(self, place: Place | None) -> None:
        """Everything up to this place of a run has been fed to the session."""
        if place is not None and self._session.is_open(place.run_uid):
            self._processed[place.run_uid] = place.end
            self.interrupted.pop(place.run_uid, None)

    def ended(self, uid: str) -> None:
        """A run is over, and its end has been sent."""
        self.log.end(uid)
        self.journal.forget(uid)
        for places in (self._processed, self._saved, self.interrupted):
            places.pop(uid, None)

    def insert(self, run_uid: str, name: str, document: Mapping[str, Any]) -> Place | None:
        """Write a document that did not come by the inbox into the journal of its run."""
        with self._writing:
            stem = self.journal.stems.get(run_uid)
            if stem is not None and self._session.is_open(run_uid):  # its stop has closed the file
                self.journal.reopen(run_uid, stem, self._session.owned(run_uid))
            return self.journal.write(name, document)

    def has(self, run_uid: str) -> bool:
        """Whether there are documents of a run in the journal."""
        return run_uid in self.journal.stems or find_run(self.journal.folder, run_uid) is not None

    def save_soon(self) -> None:
        """Save the runs that are open at the next occasion."""
        self._due = 0.0

    def save_due(self) -> None:
        """Save the runs that are open, now and then."""
        began = time.monotonic()
        many = self._session.sweeps - self._sweeps >= SWEEPS
        if began >= self._due or (many and began >= self._earliest):
            self._save_all()
            now = time.monotonic()
            self._earliest = now + (now - began) / SHARE
            self._due = max(now + SAVE, self._earliest)
            self._sweeps = self._session.sweeps

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
                state = self._session.save(uid)
                owned = state.assembler.owned
                self.log.save(uid, owned, place, state.dump(time.monotonic()))
                self._saved[uid] = place

    def resume(
        self, feed: Callable[[Arrival], Iterator[Event]], tick: Callable[[], None]
    ) -> Iterator[Event]:
        """Go on with the runs that were open: what their logs do not have yet.

        Parameters
        ----------
        feed
            Takes a document; it says by `processed` when it has gone into the session.
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
            yield from self._resume(run, feed, tick)
            tries.clear()
        self._open.clear()
        self._save_all()

    def _resume(
        self,
        run: OpenRun,
        feed: Callable[[Arrival], Iterator[Event]],
        tick: Callable[[], None],
    ) -> Iterator[Event]:
        path = self.log.folder / f"{run.stem}.{LOG}"
        start, state = run.saved, None
        try:
            if start is not None:
                state = RunState.load(start.state, time.monotonic())
        except StateError as error:
            yield Trouble(
                Problem.JOURNAL_DAMAGED,
                f"run {run.uid} is analysed from its beginning, its state cannot be used: {error}",
            )
        if start is None or state is None:
            start = SavedState(run.uid, [], 0, 0, b"")
        logged: set[tuple[str, int]] = set()
        stopped = False
        if path.exists():
            for entry in read_log(path, start.log):
                logged.add(entry.key)
                stopped |= entry.kind == "run.stop"
        self._processed[run.uid] = start.journal
        yield Trouble(
            Problem.RESUMED,
            f"run {run.uid} was open, {run.down:.0f} s after its latest document, and goes on;"
            " what was sent while no daemon was here is missing",
        )
        if state is not None:
            self._session.resume(state)
            yield Began(state.assembler.run, "resumed")

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
                yield from new(feed(Arrival(name, document, None, Place(run.uid, end))))
                tick()
            yield from new(self._session.flush())
        self.interrupted[run.uid] = run.down
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
