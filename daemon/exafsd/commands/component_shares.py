"""Runs, or files, as shares and spectra of components: ``--components N``."""

import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from exafsd.commands.terminal import tell
from exafsd.composition.components import count_all
from exafsd.composition.decomposition import Decomposition
from exafsd.composition.mcr_als import (
    MOST,
    McrError,
    McrResult,
    mcr_als,
    meeting_points,
)
from exafsd.composition.near_edges import edge_about
from exafsd.composition.references import Reference, load, shipped_folder
from exafsd.composition.xanes import BIN, NearEdgeNumbers, near_edge_numbers
from exafsd.contract.messages import Rejected, Result, RunStart, RunStop
from exafsd.settings.analysis import Analysis
from exafsd.settings.settings import Settings
from exafsd.spectra import Edge, Floats

#: arrays of a result that this needs
NEEDED = ("energy", "norm")
#: values of a share that the table shows
SHOWN = 8
Arrays = Mapping[str, NDArray[Any]]
#: near edges that are resolved together: run (or empty), stream, channel, edge
Key = tuple[str, str, str, Edge]


@dataclass
class Series:
    """Near edges of one key by the ids of their results, with the place that is shown of each."""

    edge: float
    rows: dict[str, tuple[Any, NearEdgeNumbers]] = field(
        default_factory=dict[str, tuple[Any, NearEdgeNumbers]]
    )

    def alike(self) -> tuple[list[Any], list[NearEdgeNumbers]]:
        """Places and near edges of those that are normalised alike, as the majority is."""
        ranges = Counter(one.ranges for _, one in self.rows.values())
        common = ranges.most_common(1)[0][0]
        rows = [row for row in self.rows.values() if row[1].ranges == common]
        return [place for place, _ in rows], [one for _, one in rows]


@dataclass(frozen=True)
class _SeriesNumbers:
    """Of a series: noise of a bin, energies at which all spectra meet, and components counted."""

    noise: float
    meeting: list[float]
    counted: Decomposition | None


class ComponentResolver:
    """A sink that resolves the near edges of each run when it ends.

    Parameters
    ----------
    count
        How many components.
    anchors
        References whose spectra the first components have.
    lines
        Whether JSON is printed, and no table.

    Attributes
    ----------
    trouble
        Whether a series could not be resolved.
    """

    def __init__(self, count: int, anchors: Sequence[Reference], lines: bool) -> None:
        self._count, self._anchors, self._lines = count, anchors, lines
        self._series: dict[Key, Series] = {}
        self.trouble = False

    def run_began(self, start: RunStart, analysis: Analysis) -> None:
        """A run has begun."""

    def write(self, message: Result | Rejected, arrays: Arrays) -> None:
        """Take an outcome of a run."""
        self.take(message, arrays, message.run_uid, message.sweep)

    def take(self, message: Result | Rejected, arrays: Arrays, run: str, place: Any) -> None:
        """Take an outcome of a series; `place` is what it is called in what is printed."""
        if not isinstance(message, Result) or message.channel == "reference":
            return
        energy, norm = (arrays.get(name) for name in NEEDED)
        if energy is None or norm is None:
            return
        edge = Edge(message.element, message.edge)
        key = run, message.stream, message.channel, edge
        if key not in self._series:
            self._series[key] = Series(edge_about(edge, message.e0))
        series = self._series[key]
        numbers = near_edge_numbers(np.asarray(energy, float), np.asarray(norm, float), series.edge)
        if numbers is not None:
            series.rows[message.id] = place, numbers

    def run_ended(self, stop: RunStop) -> None:
        """Resolve the series of a run, and print what comes out."""
        self.end(stop.run_uid)

    def end(self, run: str = "") -> None:
        """Resolve the series of a run, or those without one."""
        for key in [key for key in self._series if key[0] == run]:
            series = self._series.pop(key)
            try:
                self._resolve(key, series)
            except McrError as error:
                self.trouble = True
                tell(f"{_named(key)}: no components: {error}")

    def _resolve(self, key: Key, series: Series) -> None:
        if not series.rows:
            raise McrError("no scan reaches from 35 eV below to 60 eV above the edge")
        places, numbers = series.alike()
        left_out = len(series.rows) - len(places)
        if left_out:
            tell(f"{_named(key)}: {left_out} spectra are left out because they span other energies")
        flat = np.array([one.flat for one in numbers])
        noise = float(np.median([one.noise for one in numbers]))
        names, held = self._held(key, series.edge, numbers[0])
        resolution = mcr_als(flat, self._count, noise, held)
        first = numbers[0].ranges[2] + BIN / 2
        energy = series.edge + first + BIN * np.arange(flat.shape[1])
        names += [str(i) for i in range(len(names) + 1, self._count + 1)]
        about = _SeriesNumbers(noise, meeting_points(energy, flat, noise), count_all(numbers))
        if self._lines:
            line = _as_json(key, places, names, energy, resolution, about)
            sys.stdout.write(json.dumps(line) + "\n")
        else:
            console = Console()
            console.print(_as_table(key, places, names, resolution))
            for text in _said(resolution, about):
                console.print(escape(text))

    def _held(
        self, key: Key, edge: float, like: NearEdgeNumbers
    ) -> tuple[list[str], Floats | None]:
        """Names and near edges of the anchors of an edge, in the ranges of a series."""
        names, rows = [], []
        low, high = (edge + end for end in like.ranges[:2])
        for one in self._anchors:
            if one.edge != key[3]:
                continue
            inside = (one.energy >= low - BIN) & (one.energy <= high + BIN)
            own = near_edge_numbers(one.energy[inside], one.mu[inside], edge)
            if own is None or len(own.flat) != len(like.flat):
                raise McrError(f"{one.name} does not span the energies of the spectra")
            names.append(one.name)
            rows.append(own.flat)
        return names, np.array(rows) if rows else None


def make_component_resolver(
    settings: Settings, count: int, anchors: Sequence[str], lines: bool
) -> ComponentResolver:
    """Sink for `count` components, of which some are references of the settings.

    Raises
    ------
    ValueError
        If results do not carry what is needed, or there is no such reference.
    """
    missing = set(NEEDED) - set(settings.publish.arrays)
    if missing:
        raise ValueError(f"--components needs {', '.join(sorted(missing))} in publish.arrays")
    if not 2 <= count <= MOST:
        raise ValueError(f"--components must be 2 to {MOST}")
    asked = settings.composition
    folders = [*([shipped_folder()] if asked.shipped else []), *asked.references]
    there = load(folders)[0] if anchors else []
    held = [one for name in dict.fromkeys(anchors) for one in there if one.name == name]
    unknown = set(anchors) - {one.name for one in held}
    if unknown:
        raise ValueError(
            f"there is no reference {', '.join(sorted(unknown))}; exafsd references list shows them"
        )
    return ComponentResolver(count, held, lines)


def _named(key: Key) -> str:
    run, stream, channel, edge = key
    return " ".join(filter(None, (run[:8], stream, channel, edge.element, edge.edge)))


def _as_json(
    key: Key,
    places: Sequence[Any],
    names: Sequence[str],
    energy: Floats,
    resolution: McrResult,
    about: _SeriesNumbers,
) -> dict[str, Any]:
    run, stream, channel, edge = key
    components = [
        {
            "name": name,
            "spectrum": resolution.spectra[i].tolist(),
            "share": resolution.shares[:, i].tolist(),
            "least": resolution.low[:, i].tolist(),
            "largest": resolution.high[:, i].tolist(),
        }
        for i, name in enumerate(names)
    ]
    counted = about.counted and {
        "by_noise": about.counted.by_noise, "by_structure": about.counted.by_structure,
    }  # fmt: skip
    return {
        "kind": "components", "run_uid": run or None, "stream": stream, "channel": channel,
        "element": edge.element, "edge": edge.edge, "places": list(places),
        "energy": energy.tolist(), "components": components, "left": resolution.rest,
        "noise": about.noise, "converged": resolution.converged, "isosbestic": about.meeting,
        "counted": counted,
    }  # fmt: skip


def _as_table(
    key: Key, places: Sequence[Any], names: Sequence[str], resolution: McrResult
) -> Table:
    """Shares of some of the sweeps, and between what they may be."""
    table = Table("spectrum", *map(escape, names), title=escape(_named(key)))
    for row in np.unique(np.linspace(0, len(places) - 1, SHOWN).astype(int)).tolist():
        cells = [
            f"{resolution.shares[row, i]:.3f}  {resolution.low[row, i]:.2f} to"
            f" {resolution.high[row, i]:.2f}"
            for i in range(len(names))
        ]
        table.add_row(escape(str(places[row])), *cells)
    return table


def _said(resolution: McrResult, about: _SeriesNumbers) -> Iterator[str]:
    """What to know about the numbers, in words."""
    yield f"residual: {resolution.rest:.2g} of the edge step in 1 eV; noise {about.noise:.2g}"
    yield "after each share: the range of shares that fit the spectra equally well"
    if about.counted is not None:
        yield (
            f"counted: {about.counted.by_noise} components by the measured noise,"
            f" {about.counted.by_structure} by their shape"
        )
    if not resolution.converged:
        yield "the fit has not converged: try more components, or fewer"
    if about.meeting:
        points = ", ".join(f"{point:.1f}" for point in about.meeting)
        yield f"all spectra meet at {points} eV: this suggests two phases, but does not prove them"
