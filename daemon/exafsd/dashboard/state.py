"""What one subscriber knows, whoever looks at it: bounded in memory, without any web in it.

The receiving thread writes, documents of viewers read; every method takes the lock for a moment.
"""

import json
import threading
import time
import zlib
from collections import Counter, OrderedDict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from numbers import Real
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from exafsd.client import Event, Message
from exafsd.contract.columns import best_answer

#: outcomes kept of all runs together: a daemon's ring of 10,000 results, and as many rejections.
#: With 3 shells one takes about 4 kB.
OUTCOMES = 20_000
#: spectra kept of them for the export; one of 500 energies takes 21 kB
SPECTRA = 2_000
#: runs in the picker
RUNS = 100
#: s without any message after which the daemon is said to be silent, and heartbeats that must be
#: missing; the page notices at its next tick, before 3 s are over
SILENT, BEATS = 2.3, 2.3
#: subscription events that are kept, and s for which they are told
EVENTS, TOLD = 5, 60.0

#: Latest points by which it is decided which shell leads.
LATEST = 15
#: parameters of a shell, and of its phase, as the wire names them
PARAMETERS = ("r", "n_s02", "sigma2", "e0")
#: numbers of the near edge that take their places in the trends, and what that is called
NEAR_EDGE_NUMBERS = ("edge_energy", "white_line", "white_line_area", "distance_first")
NEAR_EDGE = "near edge"
#: rows of the map of a run, and its energies, eV from the edge
MAP_ROWS, MAP_ENERGIES = 200, np.arange(-30.0, 80.5, 1.0)
#: value and one standard deviation; NaN where the wire has null
Reading = tuple[float, float]
NAN = float("nan")


class Key(NamedTuple):
    """Outcomes that belong together."""

    run_uid: str
    stream: str
    channel: str
    element: str
    edge: str


@dataclass(frozen=True, slots=True)
class Point:
    """What trends show of one outcome."""

    id: str
    sweep: int
    at: float | None  # s since 1970, middle of the sweep
    kind: Literal["value", "flagged", "withheld", "rejected"]
    reason: str
    shells: dict[str, dict[str, Reading]]
    mixed: tuple[str, ...]  # those of them that are by a fit of a mixture
    shares: dict[str, Reading]  # of the references, where they may be believed
    scores: dict[str, Reading]  # of the components of its run beyond the first
    near_edge: dict[str, Reading]  # in the places of a shell's parameters
    change_point: int | None  # sweep with which the latest change of the sample began
    context: dict[str, float]
    truth: dict[str, float]
    packed: bytes  # header as compressed JSON, for the export

    def header(self) -> dict[str, Any]:
        """Header as it came."""
        return json.loads(zlib.decompress(self.packed))


@dataclass
class Series:
    """Outcomes of one key in the order they came; `epoch` changes when old ones were replaced."""

    points: deque[Point] = field(default_factory=deque[Point])
    ids: set[str] = field(default_factory=set[str])
    total: int = 0  # ever added
    epoch: int = 0
    shells: dict[str, None] = field(default_factory=dict[str, None])  # in order
    phases: dict[str, None] = field(default_factory=dict[str, None])  # the same, of shares
    components: dict[str, None] = field(default_factory=dict[str, None])  # and of scores
    context: dict[str, str] = field(default_factory=dict[str, str])  # numeric items and their units
    newest: Message | None = None  # result or rejection
    last: Point | None = None  # of that
    spectrum: Message | None = None  # latest result with arrays
    first: Mapping[str, NDArray[Any]] | None = None  # arrays of the first, and before the latest
    previous: Mapping[str, NDArray[Any]] | None = None


@dataclass(frozen=True)
class Glance:
    """What there is under a key: names to choose from, the newest outcome and spectrum."""

    epoch: int = 0
    shells: tuple[str, ...] = ()
    leading: str = ""  # shell that comes first in the latest points
    phases: tuple[str, ...] = ()
    components: tuple[str, ...] = ()
    context: dict[str, str] = field(default_factory=dict[str, str])
    point: Point | None = None
    newest: Message | None = None
    spectrum: Message | None = None
    first: Mapping[str, NDArray[Any]] | None = None
    previous: Mapping[str, NDArray[Any]] | None = None


@dataclass
class Run:
    """A run as the picker names it; `address`: of its daemon, where there are several."""

    uid: str
    scan_id: Any = None
    sample: Any = None
    began: float | None = None
    ended: str | None = None
    address: str | None = None


@dataclass
class _Daemon:
    """What was heard of a daemon."""

    status: dict[str, Any] | None = None
    heard: float | None = None
    events: deque[tuple[float, Event]] = field(
        default_factory=lambda: deque[tuple[float, Event]](maxlen=EVENTS)
    )


@dataclass(frozen=True)
class Health:
    """How a daemon is. `silence` in s since its last message, None before the first."""

    status: dict[str, Any] | None
    silence: float | None
    silent: bool
    events: tuple[Event, ...]


class State:
    """Everything that the page can show; `addresses`: of the daemons, where there are several."""

    def __init__(
        self,
        outcomes: int = OUTCOMES,
        spectra: int = SPECTRA,
        runs: int = RUNS,
        addresses: Sequence[str] = ("",),
    ) -> None:
        self._lock = threading.RLock()
        self._most, self._most_runs = outcomes, runs
        self._series: dict[Key, Series] = {}
        self._order: deque[Key] = deque()  # of all points, oldest first
        self._spectra: OrderedDict[tuple[Key, str], Mapping[str, NDArray[Any]]] = OrderedDict()
        self._most_spectra = spectra
        self._runs: OrderedDict[str, Run] = OrderedDict()
        self._daemons = {address: _Daemon() for address in addresses}
        self._began = time.monotonic()
        #: changes with every outcome and run
        self.version = 0
        #: energy, eV, and normalised mu of references, by element and edge, and by name
        self.references: Mapping[tuple[str, str], Mapping[str, Mapping[str, NDArray[Any]]]] = {}

    def _daemon(self, address: str | None) -> _Daemon:
        """The daemon at an address; without one, the first."""
        return self._daemons.get(address or "") or next(iter(self._daemons.values()))

    def take(self, message: Message, address: str | None = None) -> None:
        """Take a message of the daemon at an address."""
        header = message.header
        with self._lock:
            kind = header["kind"]
            if kind == "status":
                self._daemon(address).status = header
            elif kind == "run.start":
                self._run(header).ended = None
                self.version += 1
            elif kind == "run.stop":
                self._run(header).ended = header["exit_status"]
                self.version += 1
            elif kind in ("result", "rejected"):
                self._add(message)
                self.version += 1
            if len(self._daemons) > 1 and address and header.get("run_uid") in self._runs:
                self._runs[header["run_uid"]].address = address  # of whoever goes on with it

    def heard(self, now: float | None = None, address: str | None = None) -> None:
        """Say that the daemon gave a sign of life."""
        with self._lock:
            self._daemon(address).heard = time.monotonic() if now is None else now

    def tell(self, event: Event) -> None:
        """Take what happened to the subscription."""
        with self._lock:
            self._daemon(event.address).events.append((time.monotonic(), event))

    def health(self, now: float | None = None, address: str | None = None) -> Health:
        """How the daemon is at a monotonic time."""
        now = time.monotonic() if now is None else now
        with self._lock:
            daemon = self._daemon(address)
            beat = (daemon.status or {}).get("heartbeat") or 0.0
            silence = None if daemon.heard is None else now - daemon.heard
            waited = now - self._began if silence is None else silence
            silent = waited > max(SILENT, BEATS * beat)
            recent = tuple(event for at, event in daemon.events if now - at < TOLD)
            return Health(daemon.status, silence, silent, recent)

    def healths(self) -> list[tuple[str, Health]]:
        """Address of each daemon, and how it is now."""
        return [(address, self.health(address=address)) for address in self._daemons]

    def runs(self) -> list[Run]:
        """Runs with outcomes or just begun, the latest last."""
        with self._lock:
            return list(self._runs.values())

    def keys(self, run_uid: str) -> list[Key]:
        """What there is of a run."""
        with self._lock:
            return [key for key in self._series if key.run_uid == run_uid]

    def glance(self, key: Key) -> Glance:
        """What there is under a key now."""
        with self._lock:
            series = self._series.get(key)
            if series is None:
                return Glance()
            return Glance(
                series.epoch, tuple(series.shells), _leading(series.points),
                tuple(series.phases), tuple(series.components), dict(series.context),
                series.last, series.newest, series.spectrum, series.first, series.previous,
            )  # fmt: skip

    def since(self, key: Key, shown: int, limit: int) -> tuple[int, list[Point]]:
        """Points after the first `shown` that were ever added, at most the latest `limit`."""
        with self._lock:
            series = self._series.get(key)
            if series is None:
                return 0, []
            new = min(series.total - shown, len(series.points), limit)
            return series.total, list(islice(reversed(series.points), max(new, 0)))[::-1]

    def near_edges(self, key: Key) -> tuple[NDArray[Any], NDArray[Any]] | None:
        """Sweeps (n,) and their normalised near edges (n, m), thinned out; None without arrays.

        The m energies are `MAP_ENERGIES` from the edge's energy in the first of them.
        """
        with self._lock:
            series = self._series.get(key)
            if series is None:
                return None
            with_arrays = [
                (point, arrays)
                for point in series.points
                if (arrays := self._spectra.get((key, point.id)))
                and {"energy", "norm"} <= set(arrays)
            ]
            thinned = with_arrays[:: -(-len(with_arrays) // MAP_ROWS) or 1]
        if len(thinned) < 2:
            return None
        edge = next((p.near_edge["r"][0] for p, _ in thinned if "r" in p.near_edge), NAN)
        if edge != edge:  # NaN
            edge = float(np.median(thinned[0][1]["energy"]))
        at = edge + MAP_ENERGIES
        rows = [np.interp(at, arrays["energy"], arrays["norm"]) for _, arrays in thinned]
        return np.array([point.sweep for point, _ in thinned], float), np.array(rows)

    def outcomes(self, run_uid: str) -> list[Message]:
        """All outcomes of a run that are kept, with their spectra as far as these are."""
        with self._lock:
            points = [
                (point, self._spectra.get((key, point.id), {}))
                for key, series in self._series.items()
                if key.run_uid == run_uid
                for point in series.points
            ]
        messages: list[Message] = []
        for point, arrays in points:
            header = point.header()
            topic = f"{header['kind']}.{header['element']}.{header['edge']}."
            messages.append(Message(topic, header, dict(arrays)))
        return messages

    def _run(self, header: dict[str, Any]) -> Run:
        """Run of a message; it becomes the latest if it is new or begins again."""
        uid = header["run_uid"]
        run = self._runs.get(uid)
        if run is None:
            run = self._runs[uid] = Run(uid)
        if header["kind"] == "run.start":
            self._runs.move_to_end(uid)
        run.scan_id = header["scan_id"]
        run.sample = header.get("sample", run.sample)
        run.began = run.began or started(header)
        while len(self._runs) > self._most_runs:
            self._forget(next(iter(self._runs)))
        return run

    def _forget(self, uid: str) -> None:
        del self._runs[uid]
        for key in [key for key in self._series if key.run_uid == uid]:
            for point in self._series.pop(key).points:
                self._spectra.pop((key, point.id), None)
        self._order = deque(key for key in self._order if key.run_uid != uid)

    def _add(self, message: Message) -> None:
        header = message.header
        self._run(header)
        key = Key(*(header[name] for name in Key._fields))
        point = point_of(header)
        series = self._series.setdefault(key, Series())
        if point.id in series.ids:  # analysed again and published: the newer counts
            series.points = deque(p for p in series.points if p.id != point.id)
            series.epoch += 1
            self._order.remove(key)
        series.points.append(point)
        series.ids.add(point.id)
        series.total += 1
        self._order.append(key)
        series.shells |= dict.fromkeys(point.shells)
        series.phases |= dict.fromkeys(point.shares)
        series.components |= dict.fromkeys(point.scores)
        for name in point.context:
            series.context[name] = header["context"][name].get("unit") or ""
        # topics are recovered one by one, so what comes last need not be the latest
        if series.newest is None or header["time"] >= series.newest.header["time"]:
            series.newest, series.last = message, point
        if message.arrays:
            if series.first is None:
                series.first = message.arrays
            if series.spectrum is not None:
                series.previous = series.spectrum.arrays
            if series.spectrum is None or header["time"] >= series.spectrum.header["time"]:
                series.spectrum = message
            self._spectra[key, point.id] = message.arrays
            self._spectra.move_to_end((key, point.id))
            while len(self._spectra) > self._most_spectra:
                self._spectra.popitem(last=False)
        while len(self._order) > self._most:
            self._drop(self._order.popleft())

    def _drop(self, key: Key) -> None:
        """Forget the oldest outcome of a series, and its run with the last one."""
        series = self._series[key]
        gone = series.points.popleft()
        series.ids.discard(gone.id)
        self._spectra.pop((key, gone.id), None)
        if not series.points:
            del self._series[key]
            if not self.keys(key.run_uid):
                self._runs.pop(key.run_uid, None)


def started(header: dict[str, Any]) -> float:
    """When the spectrum of a message was measured, or it was published; s since 1970."""
    acquired = header.get("acquired") or {}
    return acquired.get("start") or acquired.get("mid") or acquired.get("end") or header["time"]


def point_of(header: dict[str, Any]) -> Point:
    """What trends show of a result or a rejection."""
    rejected = header["kind"] == "rejected"
    alone = {} if rejected else shells_of(header)
    mixed = {} if rejected else mixed_of(header)
    if rejected:
        kind, reason = "rejected", f"{header['reason']}: {header['detail']}"
    elif alone and header["trust"].get("state") == "flagged":
        kind, reason = "flagged", "; ".join(header["trust"]["doubts"])
    elif alone:
        kind, reason = "value", ""
    else:
        kind, reason = "withheld", header["trust"]["reason"] or "no parameters"
    acquired = header["acquired"]
    truth = {k: float(v) for k, v in (header["truth"] or {}).items() if _is_number(v)}
    return Point(
        id=header["id"],
        sweep=header["sweep"],
        at=acquired["mid"] or acquired["end"] or acquired["start"],
        kind=kind,
        reason=reason,
        shells={**alone, **mixed},
        mixed=tuple(mixed),
        shares={} if rejected else shares_of(header),
        scores={} if rejected else scores_of(header),
        near_edge={} if rejected else near_edge_of(header),
        change_point=None if rejected else (header.get("xanes") or {}).get("change_point"),
        context={
            name: float(item["value"])
            for name, item in header["context"].items()
            if _is_number(item["value"])
        },
        truth=truth,
        packed=zlib.compress(json.dumps(header).encode(), 1),
    )


def shells_of(header: dict[str, Any]) -> dict[str, dict[str, Reading]]:
    """Parameters of every shell, of the answer that the daemon calls the best."""
    return _shells(*best_answer(header), header["e0"])


def mixed_of(header: dict[str, Any]) -> dict[str, dict[str, Reading]]:
    """The same of every phase of a mixture, by the fit of all of them together."""
    phases = (header.get("mixture") or {}).get("phases") or []
    shells = [{**shell, "phase": one["phase"]} for one in phases for shell in one["shells"]]
    return _shells(shells, {one["phase"]: one for one in phases}, header["e0"])


def _shells(
    shells: Sequence[dict[str, Any]], phases: Mapping[str, dict[str, Any]], e0: float
) -> dict[str, dict[str, Reading]]:
    """E0 of a phase stays where it is while `e0`, from which its shift counts, may move."""
    read: dict[str, dict[str, Reading]] = {}
    for shell in shells:
        shift, std = _reading(phases.get(shell["phase"], {}).get("e0_shift"))
        values = {
            **{parameter: _reading(shell.get(parameter)) for parameter in PARAMETERS[:3]},
            "e0": (e0 + shift, std),
        }
        if shell["n"] is not None:
            values["n"] = _reading(shell["n"])
        read[shell["id"]] = values
    return read


def shares_of(header: dict[str, Any]) -> dict[str, Reading]:
    """Shares of the references; empty where they must not be believed."""
    composition = header.get("composition") or {}
    if not composition.get("in_domain"):
        return {}
    return {one["phase"]: _reading(one) for one in composition["fractions"]}


def scores_of(header: dict[str, Any]) -> dict[str, Reading]:
    """How much a sweep has of the components of its run beyond the first, by their names."""
    components = (header.get("composition") or {}).get("components") or {}
    scores = components.get("scores") or ()
    return {f"component {i}": _reading(one) for i, one in enumerate(scores, 2)}


def near_edge_of(header: dict[str, Any]) -> dict[str, Reading]:
    """Numbers of the near edge, by the parameter in whose place they are shown."""
    xanes = header.get("xanes")
    if not xanes:
        return {}
    return {
        place: (NAN if value is None else float(value), NAN)
        if _is_number(value := xanes.get(name)) or value is None
        else _reading(value)
        for place, name in zip(PARAMETERS, NEAR_EDGE_NUMBERS, strict=True)
    }


def _leading(points: deque[Point]) -> str:
    """First shell of two thirds of the latest points that have any; or empty."""
    first = (next(iter(point.shells)) for point in reversed(points) if point.shells)
    counts = Counter(islice(first, LATEST))
    shell, count = counts.most_common(1)[0] if counts else ("", 0)
    return shell if 3 * count >= 2 * counts.total() else ""


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _reading(value: dict[str, Any] | None) -> Reading:
    numbers = (None, None) if value is None else (value["value"], value["std"])
    return tuple(NAN if number is None else float(number) for number in numbers)  # pyright: ignore
