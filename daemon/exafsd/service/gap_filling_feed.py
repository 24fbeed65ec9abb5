"""Gaps in runs are filled from a catalog: documents wait until what was missed is there."""

import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from exafsd.archive.backfill import Backfill, Reply, Request
from exafsd.contract.vocabulary import BACKFILLED_KEY, Flag, Problem
from exafsd.documents.inbox import Arrival
from exafsd.documents.items import Trouble
from exafsd.service.session import Event, Session

#: s without a document after which the end of a run may be taken from the catalog, and between two
#: questions whether it is there: a slow scan must not have the server asked all the time
SILENT, AGAIN = 5.0, 15.0
#: documents of a run that are held at most, and runs whose ends were fetched that are remembered
HELD, ENDS = 100_000, 100
#: s that start times of the archive's runs may be before the latest document that was written down
OVERLAP = 600.0


class Keep(Protocol):
    """Where documents are written down, and how far a run has been processed."""

    def insert(self, run_uid: str, name: str, document: Mapping[str, Any]) -> Any:
        """Write a document that did not come by the inbox into the journal of its run."""
        ...

    def processed(self, place: Any) -> None:
        """Everything up to this place of a run has been fed to the session."""
        ...

    def has(self, run_uid: str) -> bool:
        """Whether there are documents of a run."""
        ...

    def save_soon(self) -> None:
        """Save the runs that are open."""
        ...


@dataclass
class _Hold:
    """A run that waits for what it has missed: documents that came meanwhile, rows that lack."""

    arrivals: deque[Arrival] = field(default_factory=deque[Arrival])
    rows: dict[str, set[int]] = field(default_factory=dict[str, set[int]])


class GapFillingFeed:
    """Stands before a session, and feeds it the documents of each run without gaps if it can.

    Rows that are sweeps go on while earlier ones are missing; these are fetched when the run stops.
    Where sweeps are cut from points, documents after a gap are held until it is filled or the
    patience is over. A run whose start was missed is fetched when its stop comes.

    Parameters
    ----------
    session
        That documents are fed to.
    backfill
        Fetches what is missing; None: nothing is held, and gaps remain.
    patience
        s to wait for it.
    keep
        Journal; None without.
    ends
        Whether the ends of silent runs are asked for.
    """

    def __init__(
        self,
        session: Session,
        backfill: Backfill | None = None,
        patience: float = 0.0,
        keep: Keep | None = None,
        ends: bool = True,
    ) -> None:
        self._session, self._backfill, self._patience = session, backfill, patience
        self._keep, self._ends = keep, ends
        self._held: dict[str, _Hold] = {}
        self._filled: set[str] = set()  # runs whose next sweep may hold fetched points
        self._ends_asked: dict[str, float] = {}
        self._ends_fetched: deque[str] = deque(
            maxlen=ENDS
        )  # uids of runs; their stops may come yet

    def start(self, since: float | None) -> None:
        """Begin to fetch: runs that have ended while no daemon was here.

        Parameters
        ----------
        since
            When the latest document was written down before, s since 1970; None: never.
        """
        if self._backfill is None:
            return
        self._backfill.start()
        if since is not None:
            request = Request("uids", since=since - OVERLAP, patience=self._patience)
            self._backfill.ask(request)

    def stop(self) -> None:
        """Fetch nothing any more; what is held stays in the journal for the next daemon."""
        if self._backfill is not None:
            self._backfill.stop()

    def feed(self, arrival: Arrival) -> Iterator[Event]:
        """Take a document, or hold it."""
        if self._backfill is None:
            yield from self._pass(arrival)
            return
        run = self._session.run_of(arrival.name, arrival.document)
        if run is None:
            yield from self._feed_unknown_run(arrival)
            return
        hold = self._held.get(run.run.uid)
        if hold is None:
            rows = self._missing(run, arrival)
            if rows:
                self._begin(run.run.uid, arrival, rows)
            else:
                yield from self._pass(arrival)
        elif BACKFILLED_KEY in arrival.document:  # the daemon before has fetched and journaled it
            yield from self._fill(run.run.uid, hold, arrival)
        else:
            hold.arrivals.append(arrival)
            if len(hold.arrivals) > HELD:
                yield from self._unfilled(run.run.uid, f"{HELD} documents wait already")
                yield from self._release(run.run.uid, hold)

    def poll(self, idle: bool = True) -> Iterator[Event]:
        """Take what has been fetched; `idle`: no documents wait."""
        if self._backfill is None:
            return
        for reply in self._backfill.replies():
            yield from self._take(reply)
        if idle and self._ends:
            self._ask_for_ends()

    def _missing(self, run: Any, arrival: Arrival) -> dict[str, set[int]]:
        if arrival.name == "stop":
            return {name: set(rows) for name, rows in run.missing(arrival.document).items()}
        gap = run.gap_before(arrival.name, arrival.document)
        return {} if gap is None else {gap[0]: set(gap[1])}

    def close(self) -> Iterator[Event]:
        """Feed what is held, where no journal keeps it for the next daemon."""
        if self._keep is None:
            for uid, hold in list(self._held.items()):
                yield from self._unfilled(uid, "the daemon ends")
                yield from self._release(uid, hold)

    def _begin(self, uid: str, arrival: Arrival, rows: dict[str, set[int]]) -> None:
        """Hold a run from this document on, and ask for what it lacks."""
        self._held[uid] = _Hold(deque([arrival]), rows)
        asked = {name: frozenset(numbers) for name, numbers in rows.items()}
        self._ask(Request("rows", uid, asked, patience=self._patience))

    def _feed_unknown_run(self, arrival: Arrival) -> Iterator[Event]:
        """Ask for the whole run where the end comes of one whose start did not."""
        document = arrival.document
        uid = document.get("run_start") if isinstance(document, Mapping) else None
        if arrival.name == "stop" and uid in self._ends_fetched:
            return  # it was late, and the run has ended by the catalog's
        if arrival.name != "stop" or not isinstance(uid, str) or self._has(uid):
            yield from self._pass(arrival)
            return
        self._held[uid] = _Hold(deque([arrival]))
        self._ask(Request("whole", uid, patience=self._patience))

    def _take(self, reply: Reply) -> Iterator[Event]:
        request, uid = reply.request, reply.request.run_uid
        if request.kind == "uids":
            for _, start in reply.documents:
                missed = str(start.get("uid"))
                if not self._session.is_open(missed) and not self._has(missed):
                    self._held[missed] = _Hold()
                    self._ask(Request("whole", missed, patience=self._patience))
        elif request.kind == "stop":
            # unless documents have come meanwhile: then its end will come as well
            if reply.lacking is None and uid in self._session.silent_runs(SILENT):
                self._ends_fetched.append(uid)
                for name, document in reply.documents:
                    yield from self.feed(self._inserted(uid, name, document))
        elif uid in self._held:
            yield from self._fill_gaps(uid, self._held[uid], reply)

    def _fill_gaps(self, uid: str, hold: _Hold, reply: Reply) -> Iterator[Event]:
        """Feed what was missed, then what was held."""
        rows = 0
        whole = reply.request.kind == "whole"
        for name, document in [] if whole and reply.lacking else reply.documents:
            if name == "descriptor" and not whole and self._described(document):
                continue
            rows += len(document["seq_num"]) if name == "event_page" else 0
            yield from self._pass(self._inserted(uid, name, document))
        if rows or (whole and not reply.lacking):
            yield Trouble(Problem.BACKFILLED, f"run {uid}: {rows} events were fetched", 0)
        if reply.lacking is not None:
            yield from self._unfilled(uid, f"in {self._patience:g} s: {reply.lacking}")
        if whole and not reply.lacking:
            hold.arrivals.clear()  # its stop, which has come with the rest
        yield from self._release(uid, hold)

    def _unfilled(self, uid: str, why: str) -> Iterator[Event]:
        """Say that a run goes on without what it has missed."""
        catalog = "" if self._backfill is None else self._backfill.catalog
        yield Trouble(
            Problem.UNFILLED,
            f"run {uid} goes on without what it has missed, {why}. When the archive is complete:"
            f" exafsd replay {catalog} --uid {uid}",
        )

    def _fill(self, uid: str, hold: _Hold, page: Arrival) -> Iterator[Event]:
        """Feed rows that the daemon before has fetched; go on when none is missing any more."""
        yield from self._pass(page)
        for rows in hold.rows.values():
            rows.difference_update(page.document["seq_num"])
        if not any(hold.rows.values()):
            yield from self._release(uid, hold)

    def _release(self, uid: str, hold: _Hold) -> Iterator[Event]:
        del self._held[uid]
        # what waited here has not come too late to be processed
        arrivals = [arrival._replace(received=None) for arrival in hold.arrivals]
        for arrival in arrivals[:1]:
            yield from self._pass(arrival)
        for arrival in arrivals[1:]:  # one of them may be after another gap
            yield from self.feed(arrival)
        if self._keep is not None:
            self._keep.save_soon()  # after a restart these rows are not asked for again

    def _pass(self, arrival: Arrival) -> Iterator[Event]:
        """Feed a document; sweeps with fetched rows are flagged."""
        name, document, received, place = arrival
        session, uid = self._session, None
        fetched = isinstance(document, Mapping) and BACKFILLED_KEY in document
        if fetched or self._filled:
            run = session.run_of(name, document)
            uid = None if run is None else run.run.uid
            if fetched and uid is not None:
                self._filled.add(uid)
        sweeps = session.sweeps
        flags = (Flag.BACKFILLED,) if uid in self._filled else ()
        yield from session.feed(name, document, received, flags)
        if uid is not None and not fetched and (session.sweeps > sweeps or name == "stop"):
            self._filled.discard(uid)  # later sweeps have no fetched rows
        if self._keep is not None:
            self._keep.processed(place)

    def _described(self, descriptor: Mapping[str, Any]) -> bool:
        """Whether the run has a descriptor already."""
        run = self._session.run_of("descriptor", descriptor)
        return run is not None and descriptor["uid"] in run.owned

    def _inserted(self, uid: str, name: str, document: Any) -> Arrival:
        place = None if self._keep is None else self._keep.insert(uid, name, document)
        return Arrival(name, document, None, place)

    def _has(self, uid: str) -> bool:
        return uid in self._held or (self._keep is not None and self._keep.has(uid))

    def _ask(self, request: Request) -> None:
        if self._backfill is not None:
            self._backfill.ask(request)

    def _ask_for_ends(self) -> None:
        """Ask for the stop documents of runs that are silent."""
        now = time.monotonic()
        silent = set(self._session.silent_runs(SILENT)) - self._held.keys()
        self._ends_asked = {uid: at for uid, at in self._ends_asked.items() if uid in silent}
        for uid in silent:
            if now - self._ends_asked.get(uid, -AGAIN) >= AGAIN:
                self._ends_asked[uid] = now
                self._ask(Request("stop", uid))
