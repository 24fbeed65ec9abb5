"""Documents of many runs in, sweeps out; what is malformed becomes a Problem, never an error."""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from exafsd.documents.assembler import RunAssembler
from exafsd.documents.items import Item, Problem, RunBegan, RunEnded
from exafsd.settings.analysis import Analysis

#: runs that may be open at once; the oldest beyond it has lost its stop document
MAX_OPEN_RUNS = 64


class Router:
    """Gives each document to the assembler of its run. Never raises on a bad document.

    Parameters
    ----------
    analysis
        Settings; a run may override the allowed ones for itself.
    asset_roots, asset_patience
        Folders below which external files may be opened, and s to wait for late ones.
    turn
        eV by which the energy must come back before a sweep is cut; where the encoder is noisy
        six standard deviations of its noise, if that is more.
    clock
        Monotonic seconds, for the patience with late files.
    """

    def __init__(
        self,
        analysis: Analysis,
        clock: Callable[[], float],
        asset_roots: tuple[Path, ...] = (),
        asset_patience: float = 5.0,
        turn: float = 20.0,
    ) -> None:
        self._analysis = analysis
        self._clock = clock
        self._options = {"roots": asset_roots, "patience": asset_patience, "turn": turn}
        self._runs: OrderedDict[str, RunAssembler] = OrderedDict()
        self._owner: dict[str, str] = {}  # descriptor or resource uid -> run uid

    @property
    def waiting(self) -> bool:
        """Whether some sweep waits for an external file."""
        return any(run.waiting for run in self._runs.values())

    @property
    def open_runs(self) -> int:
        """Runs without a stop document yet."""
        return len(self._runs)

    def feed(self, name: Any, document: Any, received: float | None = None) -> Iterator[Item]:
        """Take a document; yield what it completes."""
        try:
            yield from self._dispatch(name, document, received)
        except Exception as error:  # whatever is in a document, the next one is still read
            uid = document.get("uid") if isinstance(document, Mapping) else None
            text = f"{type(error).__name__}: {error}"
            yield Problem("bad_document", f"{name} document {uid}: {text}; it was skipped")

    def poll(self) -> Iterator[Item]:
        """Look again for external files that were late."""
        now = self._clock()
        for uid, run in list(self._runs.items()):
            if run.waiting:
                yield from self._guarded(uid, run.poll(now))
            if run.finished:
                yield self._close(uid)

    def close(self) -> Iterator[Item]:
        """Give up open runs, at the end of a replay or of the daemon."""
        for uid in list(self._runs):
            yield from self._give_up(uid)

    def _give_up(self, uid: str) -> Iterator[Item]:
        yield from self._guarded(uid, self._runs[uid].abandon())
        yield self._close(uid)

    @staticmethod
    def _guarded(uid: str, items: Iterator[Item]) -> Iterator[Item]:
        """Items, and a problem where making them fails: other runs go on."""
        try:
            yield from items
        except Exception as error:
            yield Problem("bad_document", f"run {uid}: {type(error).__name__}: {error}")

    def _dispatch(self, name: Any, document: Any, received: float | None) -> Iterator[Item]:
        if not isinstance(document, Mapping):
            kind = type(document).__name__
            yield Problem("bad_document", f"{name} document is a {kind}, not a dictionary")
        elif name == "start":
            yield from self._start(document)
        elif name in ("descriptor", "resource", "stream_resource", "stop"):
            uid = document.get("run_start")
            run = self._runs.get(str(uid))
            if run is None:
                yield Problem(
                    "unknown_run",
                    f"{name} document of run {uid}, whose start document was never seen; exafsd"
                    " follows runs from their start: replay it from the archive",
                )
                return
            if name == "stop":
                yield from self._guarded(str(uid), run.stop(document, self._clock()))
                if run.finished:
                    yield self._close(str(uid))
                return
            self._owner[str(document["uid"])] = str(uid)
            for text in getattr(run, name)(document):
                yield Problem("bad_document", f"run {uid}: {text}")
        elif name in ("event", "event_page", "datum", "datum_page", "stream_datum"):
            field = "resource" if name.startswith("datum") else "descriptor"
            uid = self._owner.get(str(document.get(field)))
            run = self._runs.get(uid) if uid is not None else None
            if run is None:
                yield Problem(
                    f"unknown_{field}",
                    f"{name} document for the unknown {field} {document.get(field)}; was its run"
                    " started before exafsd? Replay it from the archive",
                )
                return
            yield from getattr(run, name)(document, received, self._clock())
        else:
            yield Problem("unknown_name", f"document of the unknown kind {name!r} was skipped")

    def _start(self, document: Mapping[str, Any]) -> Iterator[Item]:
        uid = document.get("uid")
        if not isinstance(uid, str) or not uid:
            yield Problem("bad_document", "start document without a uid")
            return
        if uid in self._runs:
            yield Problem("repeated_start", f"run {uid} was started twice; the second is ignored")
            return
        run = RunAssembler(document, self._analysis, **self._options)  # type: ignore[arg-type]
        self._runs[uid] = run
        yield RunBegan(run.run, run.analysis)
        if run.refused is not None:
            yield Problem(run.refused.reason, f"run {uid}: {run.refused.detail}")
        if len(self._runs) > MAX_OPEN_RUNS:
            oldest = next(iter(self._runs))
            yield Problem("lost_stop", f"run {oldest} never ended; it is closed")
            yield from self._give_up(oldest)

    def _close(self, uid: str) -> RunEnded:
        run = self._runs.pop(uid)
        for owned in run.owned:
            self._owner.pop(owned, None)
        return RunEnded(run.run, run.exit_status)
