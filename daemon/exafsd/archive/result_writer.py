"""Result runs into a catalog, through TiledWriter: slow, so never on the way of live spectra."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from exafsd._version import __version__
from exafsd.archive.catalog import open_catalog
from exafsd.archive.outcome_log import read_log
from exafsd.archive.result_run import BATCH, ResultRun
from exafsd.contract.card import Card
from exafsd.contract.frames import decode, encode
from exafsd.contract.messages import Rejected, Result, RunStart, RunStop
from exafsd.contract.vocabulary import Problem
from exafsd.settings.analysis import Analysis

Arrays = Mapping[str, NDArray[Any]]
Report = Callable[[Problem, str], None]


class ResultWriter:
    """Writes result runs, as the caller waits. No method raises; trouble is counted and reported.

    Parameters
    ----------
    catalog
        Opened, or the name to open it by: a tiled profile or the URI of a server.
    cards
        Models that may read the spectra, by name.
    report
        Called with a reason and a sentence for each run that cannot be written.

    Attributes
    ----------
    lost
        Outcomes not written: ``results_failed``.
    """

    def __init__(self, catalog: Any, cards: Mapping[str, Card], report: Report) -> None:
        self.lost: Counter[Problem] = Counter()
        self._name = catalog if isinstance(catalog, str) else None
        self._catalog: Any = None if self._name is not None else catalog
        self._cards, self._report = cards, report
        self._runs: dict[str, ResultRun | None] = {}  # None: given up

    def run_began(self, start: RunStart, analysis: Analysis) -> None:
        """Begin a result run; nothing is written before its first outcomes are there."""
        try:
            emit = self._emit()
        except Exception as error:  # tiled, httpx and databases each raise their own
            self._fail(start.run_uid, None, error)
            return
        self._runs[start.run_uid] = ResultRun(start, analysis, self._cards, __version__, emit)

    def write(self, message: Result | Rejected, arrays: Arrays) -> None:
        """Write an outcome with the next batch."""
        self.write_frames(encode(message.model_copy(), arrays))

    def write_log(self, start: RunStart, log: Path, end: int) -> None:
        """Write the outcomes of a run that were logged up to place `end`, by a daemon before."""
        try:
            for entry in read_log(log, end=end):
                if entry.id:
                    self.write_frames(entry.frames)
        except (OSError, ValueError) as error:
            self._fail(start.run_uid, self._runs.get(start.run_uid), error)

    def write_frames(self, frames: Sequence[bytes]) -> None:
        """`write` of a message as on the wire."""
        message = decode(frames)
        uid = message.header["run_uid"]
        run = self._runs.get(uid)
        if run is None:
            self.lost[Problem.RESULTS_FAILED] += 1
            return
        try:
            run.write(message)
        except Exception as error:
            self._fail(uid, run, error)

    def run_ended(self, stop: RunStop) -> None:
        """Write what is left of a run, and its end."""
        run = self._runs.pop(stop.run_uid, None)
        if run is None:
            return
        try:
            run.end(stop)
        except Exception as error:
            self._fail(stop.run_uid, run, error)
            del self._runs[stop.run_uid]
            return
        if run.cut:
            self._report(
                Problem.RESULTS,
                f"run {stop.run_uid}: {run.cut} spectra have more energies than the first ones"
                " of their run; their mu(E) is not in the catalog, chi(k) and parameters are",
            )

    def close(self) -> None:
        """Close the catalog, if it was opened here; every run is written when it ends."""
        if self._name is not None and self._catalog is not None:
            self._catalog.context.close()

    def _emit(self) -> Callable[[str, dict[str, Any]], None]:
        from bluesky_tiled_plugins import TiledWriter  # seconds to import

        if self._catalog is None:
            self._catalog = open_catalog(str(self._name))
        # One for each run: a run that fails leaves nothing behind. The documents need no
        # normalizer, which is for external files and older schemas.
        return TiledWriter(self._catalog, normalizer=None, batch_size=BATCH)

    def _fail(self, uid: str, run: ResultRun | None, error: Exception) -> None:
        self._runs[uid] = None
        self.lost[Problem.RESULTS_FAILED] += 0 if run is None else run.taken
        self._report(
            Problem.RESULTS,
            f"the results of run {uid} cannot be written to the catalog, or not all:"
            f" {type(error).__name__}: {error}. Write them later with `exafsd replay --write`",
        )
