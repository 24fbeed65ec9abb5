"""Documents of many runs in, sweeps out; what is malformed becomes a Trouble, never an error."""

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from exafsd.contract.vocabulary import Problem
from exafsd.documents.assembler import RunAssembler
from exafsd.documents.asset_reader import READER
from exafsd.documents.items import Began, Ended, Item, Trouble
from exafsd.settings.analysis import Analysis

#: Kinds of documents, and the field that says whose they are: a run's, or a descriptor's or
#: resource's that came before. Each has a method of its name in `RunAssembler`.
OWNER_FIELDS = {
    "descriptor": "run_start",
    "resource": "run_start",
    "stream_resource": "run_start",
    "stop": "run_start",
    "event": "descriptor",
    "event_page": "descriptor",
    "stream_datum": "descriptor",
    "datum": "resource",
    "datum_page": "resource",
}
UNKNOWN_OWNER = {
    "descriptor": Problem.UNKNOWN_DESCRIPTOR,
    "resource": Problem.UNKNOWN_RESOURCE,
}
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
        self.roots = asset_roots
        self._options = {"roots": asset_roots, "patience": asset_patience, "turn": turn}
        self._runs: OrderedDict[str, RunAssembler] = OrderedDict()
        self._owner: dict[str, str] = {}  # descriptor or resource uid -> run uid
        self._heard: dict[str, float] = {}  # run uid -> when its latest document came

    @property
    def waiting(self) -> bool:
        """Whether some sweep waits for an external file."""
        return any(run.waiting for run in self._runs.values())

    def run(self, uid: str) -> RunAssembler:
        """State of an open run."""
        return self._runs[uid]

    def run_of(self, name: Any, document: Any) -> RunAssembler | None:
        """Open run that a document belongs to."""
        field = OWNER_FIELDS.get(name) if isinstance(document, Mapping) else None
        if field is None:
            return None
        uid = str(document.get(field))
        return self._runs.get(uid if field == "run_start" else self._owner.get(uid, ""))

    def resume(self, run: RunAssembler) -> None:
        """Go on with a run whose state was saved."""
        self._runs[run.run.uid] = run
        self._owner |= dict.fromkeys(run.owned, run.run.uid)
        self._heard[run.run.uid] = self._clock()

    @property
    def open_runs(self) -> int:
        """Runs without a stop document yet."""
        return len(self._runs)

    def silent_runs(self, patience: float) -> list[str]:
        """Uids of open runs that got no document for `patience` s."""
        now = self._clock()
        return [uid for uid, heard in self._heard.items() if now - heard > patience]

    def feed(self, name: Any, document: Any, received: float | None = None) -> Iterator[Item]:
        """Take a document; yield what it completes."""
        while READER.troubles:
            yield Trouble(Problem.ASSET_READER, READER.troubles.popleft())
        try:
            yield from self._dispatch(name, document, received)
        except Exception as error:  # whatever is in a document, the next one is still read
            uid = document.get("uid") if isinstance(document, Mapping) else None
            text = f"{type(error).__name__}: {error}"
            yield Trouble(Problem.BAD_DOCUMENT, f"{name} document {uid}: {text}; it was skipped")

    def poll(self) -> Iterator[Item]:
        """Look again for external files that were late."""
        while READER.troubles:
            yield Trouble(Problem.ASSET_READER, READER.troubles.popleft())
        now = self._clock()
        for uid, run in list(self._runs.items()):
            if run.waiting:
                yield from self._guarded(uid, run.poll(now))
            if run.finished:
                yield self._close(uid)

    def close(self, but: Collection[str] = ()) -> Iterator[Item]:
        """Give up open runs, `but` some, at the end of a replay or of the daemon."""
        for uid in list(self._runs):
            if uid not in but:
                yield from self.give_up(uid)

    def give_up(self, uid: str) -> Iterator[Item]:
        """End an open run that gets no more documents."""
        yield from self._guarded(uid, self._runs[uid].abandon())
        yield self._close(uid)

    @staticmethod
    def _guarded(uid: str, items: Iterator[Item]) -> Iterator[Item]:
        """Items, and a problem where making them fails: other runs go on."""
        try:
            yield from items
        except Exception as error:
            yield Trouble(Problem.BAD_DOCUMENT, f"run {uid}: {type(error).__name__}: {error}")

    def _dispatch(self, name: Any, document: Any, received: float | None) -> Iterator[Item]:
        if not isinstance(document, Mapping):
            kind = type(document).__name__
            yield Trouble(Problem.BAD_DOCUMENT, f"{name} document is a {kind}, not a dictionary")
        elif name == "start":
            yield from self._start(document)
        elif name not in OWNER_FIELDS:
            yield Trouble(
                Problem.UNKNOWN_NAME, f"document of the unknown kind {name!r} was skipped"
            )
        elif OWNER_FIELDS[name] == "run_start":
            yield from self._of_run(name, document)
        else:
            field = OWNER_FIELDS[name]
            run = self._runs.get(self._owner.get(str(document.get(field)), ""))
            if run is None:
                yield Trouble(
                    UNKNOWN_OWNER[field],
                    f"{name} document for the unknown {field} {document.get(field)}; was its run"
                    " started before exafsd? Replay it from the archive",
                )
                return
            now = self._heard[run.run.uid] = self._clock()
            yield from getattr(run, name)(document, received, now)

    def _of_run(self, name: str, document: Mapping[str, Any]) -> Iterator[Item]:
        """Take a document that names its run."""
        uid = str(document.get("run_start"))
        run = self._runs.get(uid)
        if run is None:
            yield Trouble(
                Problem.UNKNOWN_RUN,
                f"{name} document of run {document.get('run_start')}, whose start document was"
                " never seen; exafsd follows runs from their start: replay it from the archive",
            )
            return
        self._heard[uid] = self._clock()
        if name == "stop":
            yield from self._guarded(uid, run.stop(document, self._clock()))
            if run.finished:
                yield self._close(uid)
        else:
            self._owner[str(document["uid"])] = uid
            yield from getattr(run, name)(document)

    def _start(self, document: Mapping[str, Any]) -> Iterator[Item]:
        uid = document.get("uid")
        if not isinstance(uid, str) or not uid:
            yield Trouble(Problem.BAD_DOCUMENT, "start document without a uid")
            return
        if uid in self._runs:
            yield Trouble(
                Problem.REPEATED_START, f"run {uid} was started twice; the second is ignored"
            )
            return
        run = RunAssembler(document, self._analysis, **self._options)  # type: ignore[arg-type]
        self._runs[uid] = run
        self._heard[uid] = self._clock()
        yield Began(run.run)
        if run.refused is not None:
            yield Trouble(Problem(run.refused.reason.value), f"run {uid}: {run.refused.detail}")
        if len(self._runs) > MAX_OPEN_RUNS:
            oldest = next(iter(self._runs))
            yield Trouble(Problem.LOST_STOP, f"run {oldest} never ended; it is closed")
            yield from self.give_up(oldest)

    def _close(self, uid: str) -> Ended:
        run = self._runs.pop(uid)
        self._heard.pop(uid, None)
        for owned in run.owned:
            self._owner.pop(owned, None)
        return Ended(run.run, run.exit_status)
