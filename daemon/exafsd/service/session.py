"""From documents, or a file, to outcomes: the one way of live spectra, replay and files."""

import math
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from exafsd.contract.vocabulary import Flag, Problem, Reason
from exafsd.documents.assembler import RunAssembler
from exafsd.documents.files.reading import read_file
from exafsd.documents.items import Began, Ended, Item, Trouble
from exafsd.documents.router import Router
from exafsd.outcome import Outcome
from exafsd.pipeline import Pipeline
from exafsd.service.pace import Pace
from exafsd.service.run_state import RunState
from exafsd.settings.analysis import Analysis
from exafsd.spectra import Edge, Run, Sweep

#: s between two looks for late files in a replay
POLL = 0.05
#: s that the polish of sweeps which have come before may take
UNHURRIED = 3.0

Event = Began | Outcome | Ended | Trouble


class Session:
    """Runs from their documents to their outcomes; every method yields what happens.

    Parameters
    ----------
    router, pipeline
        Make sweeps of documents, and outcomes of sweeps.
    batch
        Sweeps that are processed together at most.
    max_lag
        s; sweeps that waited longer are rejected as overload.
    pace
        Says whether there is time for the polish; None: there always is.

    Attributes
    ----------
    pending
        Sweeps that wait to be processed together.
    sweeps
        How many have come so far.
    shedding
        Whether the latest sweep was rejected as overload.
    """

    def __init__(
        self,
        router: Router,
        pipeline: Pipeline,
        batch: int = 1,
        max_lag: float = math.inf,
        pace: Pace | None = None,
    ) -> None:
        self._router, self._pipeline = router, pipeline
        self._batch, self._max_lag, self._pace = batch, max_lag, pace
        self._hurried: Pace | None = None  # that applies again after `_hurry_at`
        self._hurry_at = math.inf
        self._counts: dict[str, Counter[str]] = {}  # run uid -> result, rejected
        self.pending: list[Sweep] = []
        self.shedding = False
        self.sweeps = 0

    @property
    def open_runs(self) -> int:
        """Runs without a stop document yet."""
        return self._router.open_runs

    def silent_runs(self, patience: float) -> list[str]:
        """Uids of open runs that got no document for `patience` s."""
        return self._router.silent_runs(patience)

    def feed(
        self,
        name: Any,
        document: Any,
        received: float | None = None,
        flags: tuple[Flag, ...] = (),
    ) -> Iterator[Event]:
        """Take a document; sweeps that it completes get `flags`."""
        yield from self._take(self._router.feed(name, document, received), flags)

    def run_of(self, name: Any, document: Any) -> RunAssembler | None:
        """Open run that a document belongs to."""
        return self._router.run_of(name, document)

    def poll(self) -> Iterator[Event]:
        """Look again for external files that were late."""
        if self._router.waiting:
            yield from self._take(self._router.poll())

    def close(self, but: Collection[str] = ()) -> Iterator[Event]:
        """Give up open runs, `but` some, and process what is left of them."""
        yield from self._take(self._router.close(but))
        yield from self.flush()

    def give_up(self, run_uid: str) -> Iterator[Event]:
        """End an open run that gets no more documents."""
        yield from self._take(self._router.give_up(run_uid))

    def runs(self) -> dict[str, tuple[Run, Counter[str]]]:
        """Open runs and their outcomes by kind, by uid."""
        return {uid: (self._router.run(uid).run, counts) for uid, counts in self._counts.items()}

    def owned(self, run_uid: str) -> list[str]:
        """Uids of an open run's descriptors and resources."""
        return self._router.run(run_uid).owned

    def is_open(self, run_uid: str) -> bool:
        """Whether a run has begun and not ended."""
        return run_uid in self._counts

    @contextmanager
    def unhurried(self) -> Iterator[None]:
        """Process sweeps that have come before without a look at the pace, for a short while."""
        pace, self._pace = self._pace, None
        self._hurry_at, self._hurried = time.monotonic() + UNHURRIED, pace
        try:
            yield
        finally:
            self._pace, self._hurried = pace, None

    def replay(self, documents: Iterable[tuple[str, Any]]) -> Iterator[Event]:
        """Take stored documents, and wait for their files."""
        for name, document in documents:
            yield from self.feed(name, document)
        while self._router.waiting:
            yield from self.poll()
            if self._router.waiting:
                time.sleep(POLL)
        yield from self.close()

    def file(self, path: Path, analysis: Analysis, edge: Edge | None) -> Iterator[Event]:
        """Take the spectra of a file, each table of it as a run.

        Raises
        ------
        SpectrumError
            If the file holds no spectrum; the text names it.
        """
        runs, troubles = read_file(path, analysis, edge, self._router.roots)
        yield from troubles
        for run, sweeps in runs:
            yield from self._take([Began(run), *sweeps, Ended(run, "success")])

    def flush(self) -> Iterator[Event]:
        """Process the sweeps that are there."""
        for trouble in self._pipeline.audit() if self.pending else ():
            yield Trouble(Problem.AUDIT, trouble)
        sweeps, self.pending = self.pending, []
        in_time, longest = [], 0.0
        for sweep in sweeps:
            waited = 0.0 if sweep.received is None else time.perf_counter() - sweep.received
            self.shedding = waited > self._max_lag
            if self.shedding:
                yield from self._counted(sweep, self._shed(sweep, waited))
            else:
                in_time.append(sweep)
                longest = max(longest, waited)
        if not in_time:
            return
        if self._hurried is not None and time.monotonic() > self._hurry_at:
            self._pace, self._hurried = self._hurried, None
        begun = time.monotonic()
        room = self._pace is None or self._pace.room(len(in_time), longest, begun)
        outcomes_of = self._pipeline.process_many(in_time, room)
        if self._pace is not None:
            now = time.monotonic()
            self._pace.count(sum(map(len, outcomes_of)), now, now - begun, room)
        for sweep, outcomes in zip(in_time, outcomes_of, strict=True):
            yield from self._counted(sweep, outcomes)

    def save(self, run_uid: str) -> RunState:
        """State of an open run, to be saved."""
        return RunState(
            self._router.run(run_uid),
            self._pipeline.run_memory(run_uid),
            self._pipeline.trends(run_uid),
            self._counts[run_uid],
            [sweep for sweep in self.pending if sweep.run.uid == run_uid],
            self._pipeline.series(run_uid),
        )

    def resume(self, state: RunState) -> None:
        """Go on with a run from its state, as if nothing had happened."""
        uid = state.assembler.run.uid
        self._router.resume(state.assembler)
        self._pipeline.resume(uid, state.memory, state.trends, state.series)
        self._counts[uid] = state.counts
        self.pending += state.pending

    def _take(self, items: Iterable[Item], flags: tuple[Flag, ...] = ()) -> Iterator[Event]:
        """Items of the documents, sweeps as their outcomes and in order."""
        for item in items:
            if isinstance(item, Sweep):
                self.sweeps += 1
                self.pending.append(replace(item, flags=(*item.flags, *flags)) if flags else item)
                if len(self.pending) >= self._batch:
                    yield from self.flush()
                continue
            if isinstance(item, Ended):
                yield from self.flush()  # its last sweeps come before its end
                self._pipeline.end(item.run.uid)
                item = replace(item, counts=self._counts.pop(item.run.uid))
            elif isinstance(item, Began):
                self._counts[item.run.uid] = Counter()
            yield item

    def _counted(self, sweep: Sweep, outcomes: Iterable[Outcome]) -> Iterator[Outcome]:
        counts = self._counts[sweep.run.uid]
        for outcome in outcomes:
            counts[outcome.message.kind] += 1
            yield outcome

    def _shed(self, sweep: Sweep, waited: float) -> Iterator[Outcome]:
        detail = (
            f"it waited {waited:.1f} s, more than service.max_lag: spectra come faster than"
            " they can be processed. It is in the archive and can be replayed"
        )
        return self._pipeline.reject(sweep, Reason.OVERLOAD, detail)
